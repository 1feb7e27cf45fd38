//! What a lab shall be like, and its name; checks both before anything is made.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use super::address::MAX_BACKENDS;
use super::error::LabError;
use super::plumbing::CLIENT_MTU;
use super::process::Lifetime;
use super::state::{FILES_PREFIX, Owner, State};
use super::topology::{Topology, netns_name, roles};

/// What a lab shall be like.
#[derive(Debug, Clone)]
pub struct Builder {
    name: String,
    pub(super) backends: u8,
    pub(super) mtu: u16,
    pub(super) big_bytes: u64,
    pub(super) ipv6: bool,
    pub(super) queues: u16,
    pub(super) client_mtu: u16,
    pub(super) lifetime: Lifetime,
}

/// A name that no other lab of this or any living process has: `t`, the process id, a counter.
pub fn unique_prefix() -> String {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let counter = COUNTER.fetch_add(1, Ordering::Relaxed);
    // Pids stay below 2^22 (five digits in base 36), which leaves two for the counter.
    format!("t{}{:0>2}", base36(std::process::id()), base36(counter % (36 * 36)))
}

fn base36(mut number: u32) -> String {
    let mut digits = Vec::new();
    loop {
        digits.push(char::from_digit(number % 36, 36).unwrap_or('0'));
        number /= 36;
        if number == 0 {
            return digits.iter().rev().collect();
        }
    }
}

impl Builder {
    pub(super) fn new(name: String) -> Self {
        Self {
            name,
            backends: 3,
            mtu: 1600,
            big_bytes: 64 << 20,
            ipv6: false,
            queues: 2,
            client_mtu: CLIENT_MTU,
            lifetime: Lifetime::Guarded,
        }
    }

    /// How many backends (3).
    #[must_use]
    pub fn backends(self, backends: u8) -> Self {
        Self { backends, ..self }
    }

    /// The MTU of the server segment (1600: a tunnel header fits around the client's 1500).
    #[must_use]
    pub fn mtu(self, mtu: u16) -> Self {
        Self { mtu, ..self }
    }

    /// The MTU of the client's link (1500, as in the internet).
    #[must_use]
    pub fn client_mtu(self, client_mtu: u16) -> Self {
        Self { client_mtu, ..self }
    }

    /// How many queues every interface has for each direction (2).
    #[must_use]
    pub fn queues(self, queues: u16) -> Self {
        Self { queues, ..self }
    }

    /// The size of `/big` (64 MiB).
    #[must_use]
    pub fn big_bytes(self, big_bytes: u64) -> Self {
        Self { big_bytes, ..self }
    }

    /// With IPv6 addresses beside the IPv4 ones; without, no packet of it is ever sent.
    #[must_use]
    pub fn ipv6(self) -> Self {
        Self { ipv6: true, ..self }
    }

    /// The lab shall be able to outlive this process: see [`Topology::release`].
    #[must_use]
    pub fn kept(self) -> Self {
        Self { lifetime: Lifetime::Kept, ..self }
    }

    /// Makes namespaces, interfaces and addresses, and starts the web servers; returns when they listen.
    pub fn build(self) -> Result<Topology, LabError> {
        self.check()?;
        let roles = roles(self.backends);
        let dir = make_dir(&self.name)?;
        let state = State {
            netns: roles.iter().map(|&role| netns_name(&self.name, role)).collect(),
            name: self.name.clone(),
            dir,
            pids: BTreeMap::new(),
            owner: Some(Owner::this_process()),
        };
        if let Err(error) = state.create() {
            let _ = fs::remove_dir_all(&state.dir);
            return Err(error);
        }
        Topology::raise(state, &roles, &self)
    }

    fn check(&self) -> Result<(), LabError> {
        let name = &self.name;
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if !(1..=8).contains(&name.len())
            || !name.starts_with(|c: char| c.is_ascii_lowercase())
            || !name.chars().all(allowed)
        {
            return Err(LabError::Name(name.clone()));
        }
        if !(1..=MAX_BACKENDS).contains(&self.backends) {
            return Err(LabError::Backends(self.backends));
        }
        if !nix::unistd::geteuid().is_root() {
            return Err(LabError::NotRoot);
        }
        Ok(())
    }
}

/// A directory nobody could have prepared; open to readers, so that servers may drop their rights.
fn make_dir(lab: &str) -> Result<PathBuf, LabError> {
    let template = std::env::temp_dir().join(format!("{FILES_PREFIX}{lab}-XXXXXX"));
    let attempt = || LabError::io(format!("make {}", template.display()));
    let dir = nix::unistd::mkdtemp(&template).map_err(|errno| attempt()(errno.into()))?;
    fs::set_permissions(&dir, Permissions::from_mode(0o755)).map_err(attempt())?;
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_short_and_differ() {
        let (a, b) = (unique_prefix(), unique_prefix());
        assert_ne!(a, b);
        assert!(a.len() <= 8, "{a}");
    }

    #[test]
    fn bad_names_and_sizes_are_refused_before_anything_is_made() {
        for name in ["", "Lab", "-lab", "lab/..", "muchtoolong"] {
            assert!(matches!(Topology::builder(name).build(), Err(LabError::Name(_))), "{name}");
        }
        assert!(matches!(Topology::builder("lab").backends(0).build(), Err(LabError::Backends(0))));
    }
}
