//! What can go wrong between us and the kernel, and the way out.

use std::io;
use std::path::PathBuf;

use nix::errno::Errno;

use super::Refusal;

/// A failure of the data plane.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No BPF file system where pins belong.
    #[error(
        "{path} is not a BPF file system; mount one (mount -t bpf bpf {path}), or name another with --bpffs. \
         Inside `ip netns exec` it is hidden: use `lb --netns NAME …` or `nsenter --net=/run/netns/NAME` instead"
    )]
    NoBpffs {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A file operation failed.
    #[error("{action} {path}: {source}")]
    File {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Somebody else writes.
    #[error("another lb changes this data plane now{}; try again when it is done", holder(.pid))]
    Locked {
        /// Its process, where known.
        pid: Option<u32>,
    },
    /// No pinned data plane.
    #[error(
        "no data plane is loaded here (looked in {path}); `lb attach IFACE --config FILE` or `lb run` loads one"
    )]
    NotLoaded {
        /// Where its pins would be.
        path: PathBuf,
    },
    /// Pinned maps of another build.
    #[error(
        "the pinned map {map} does not fit this lb: {difference}. Another version made it: `lb detach IFACE --force` \
         with that version (or this one), then attach again"
    )]
    Misfit {
        /// The map.
        map: String,
        /// What differs.
        difference: String,
    },
    /// A map operation failed.
    #[error("map {map}: {}", whole(.source))]
    Map {
        /// The map.
        map: &'static str,
        /// Why.
        source: aya::maps::MapError,
    },
    /// The maps could not be created.
    #[error("loading the BPF object: {}{}", whole(.source), load_hint(.source))]
    Load {
        /// Why not.
        source: aya::EbpfError,
    },
    /// The kernel refused a program.
    #[error("the kernel refused program {program}: {}", whole(.source))]
    Program {
        /// The program.
        program: &'static str,
        /// Why, with the verifier's log if it was the verifier.
        source: aya::programs::ProgramError,
    },
    /// Attaching was refused.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// The redirect map refused an interface.
    #[error("map EGRESS: {}", whole(.source))]
    Egress {
        /// Why.
        source: aya::maps::xdp::XdpMapError,
    },
    /// An operation on a link failed.
    #[error("XDP link of {interface}: {}", whole(.source))]
    Link {
        /// The interface.
        interface: String,
        /// Why.
        source: io::Error,
    },
    /// The built object lacks something: a broken build.
    #[error("the embedded BPF object has no {0}; this lb was built wrongly")]
    Missing(&'static str),
}

fn holder(pid: &Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (process {pid})"))
}

fn load_hint(error: &aya::EbpfError) -> &'static str {
    let text = format!("{error:?}");
    if text.contains("PermissionDenied") || text.contains("Operation not permitted") {
        " (lb needs root, or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON)"
    } else {
        ""
    }
}

/// An error and its causes, without those whose words are already there: aya's own words leave out the kernel's reason.
fn whole(error: &(dyn std::error::Error + 'static)) -> String {
    causes(error).fold(String::new(), |text, cause| {
        let words = cause.to_string();
        match text.as_str() {
            "" => words,
            said if said.contains(&words) => text,
            said => format!("{said}: {words}"),
        }
    })
}

/// An error, what caused it, what caused that, and so on.
fn causes<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}

/// Whether the kernel gave this as its reason.
pub(super) fn is_because(error: &(dyn std::error::Error + 'static), errno: Errno) -> bool {
    let reasons = causes(error).filter_map(|cause| cause.downcast_ref::<io::Error>());
    reasons.filter_map(io::Error::raw_os_error).any(|raw| raw == errno as i32)
}

impl Error {
    /// Wraps a load error.
    pub(super) fn load(source: aya::EbpfError) -> Self {
        Self::Load { source }
    }

    /// Wraps a map error.
    pub(super) fn map(map: &'static str) -> impl Fn(aya::maps::MapError) -> Self {
        move |source| Self::Map { map, source }
    }
}

#[cfg(test)]
mod tests {
    use aya::maps::MapError;
    use aya::maps::xdp::XdpMapError;
    use aya::sys::SyscallError;

    use super::*;

    #[test]
    fn the_kernels_reason_is_told() {
        let refused = || {
            let io_error = io::Error::from_raw_os_error(Errno::EINVAL as i32);
            MapError::SyscallError(SyscallError { call: "bpf_map_update_elem", io_error })
        };
        let map = Error::map("PORTS")(refused());
        assert_eq!(
            map.to_string(),
            "map PORTS: `bpf_map_update_elem` failed: Invalid argument (os error 22)"
        );
        let egress = Error::Egress { source: XdpMapError::MapError(refused()) };
        assert!(egress.to_string().ends_with("failed: Invalid argument (os error 22)"), "{egress}");
        assert!(is_because(&egress, Errno::EINVAL) && !is_because(&egress, Errno::ENOLINK));
    }
}
