//! Puts the program on interfaces.

use crate::dataplane::{
    Attachment, Error as PlaneError, Facts, KernelPlane, Mode, Refusal, Target, possible_cpus,
};
use crate::model::{AttachMode, Interface};
use crate::netlink::{Link, Snapshot, XdpMode};
use crate::nic;
use crate::reconcile::Observed;

use super::Error;

/// Finds the interfaces by name.
pub(super) fn find<'a>(wanted: &[Interface], links: &'a Snapshot) -> Result<Vec<&'a Link>, Error> {
    wanted
        .iter()
        .map(|interface| {
            links.by_name(&interface.name).ok_or_else(|| Error::NoInterface {
                name: interface.name.clone(),
                present: links.iter().map(|link| link.name.as_str()).collect::<Vec<_>>().join(", "),
            })
        })
        .collect()
}

/// Attaches to (or replaces the program on) one interface, natively if it can be; what was done, in words.
pub(super) fn attach(
    plane: &KernelPlane,
    observed: &Observed,
    interface: &Interface,
    link: &Link,
) -> Result<String, Error> {
    let ours = observed
        .attached
        .iter()
        .any(|port| observed.ports.get(port).is_some_and(|p| p.ifindex == link.ifindex));
    let port =
        observed.ports.iter().find(|(_, port)| port.ifindex == link.ifindex).map_or(0, |(number, _)| *number);
    let target = Target { ifindex: link.ifindex, port, facts: facts(link, ours) };
    let name = &link.name;
    let running = link.xdp.as_ref().filter(|_| ours).map(|xdp| xdp.mode.into());
    let (mode, attachment) = match interface.mode {
        // A link keeps the mode it was made with; a new link would be a gap in forwarding.
        wanted if let Some(running) = running => {
            (kept(name, wanted, running), plane.attach(&target, running)?)
        }
        AttachMode::Native => (Mode::Native, attach_native(plane, &target)?),
        AttachMode::Generic => (Mode::Generic, plane.attach(&target, Mode::Generic)?),
        AttachMode::Auto => match attach_native(plane, &target) {
            Ok(attachment) => (Mode::Native, attachment),
            Err(PlaneError::Refused(refusal)) if refusal.code != "LB010" && refusal.code != "LB015" => {
                let attachment = plane.attach(&target, Mode::Generic)?;
                tracing::warn!(
                    interface = name.as_str(),
                    kernel = refusal.kernel,
                    cause = refusal.cause,
                    fix = refusal.fix,
                    "native XDP refused: running in GENERIC mode, many times slower (mode: native refuses instead)"
                );
                (Mode::Generic, attachment)
            }
            Err(error) => return Err(error.into()),
        },
    };
    let verb = if attachment.replaced { "program replaced in place" } else { "attached" };
    Ok(format!("{name}: {verb}, {mode}, link {}, program {}", attachment.link_id, attachment.program_id))
}

fn attach_native(plane: &KernelPlane, target: &Target) -> Result<Attachment, PlaneError> {
    let channels = nic::facts(&target.facts.interface).channels.unwrap_or_default();
    let (now, most) = (channels.now.combined, channels.max.combined);
    let cpus = u32::try_from(possible_cpus()).unwrap_or(u32::MAX);
    match Refusal::of_virtio_queues(&target.facts, now, most, cpus) {
        Some(refusal) => Err(PlaneError::Refused(Box::new(refusal))),
        None => plane.attach(target, Mode::Native),
    }
}

fn kept(name: &str, wanted: AttachMode, running: Mode) -> Mode {
    let other = matches!(
        (wanted, running),
        (AttachMode::Native, Mode::Generic) | (AttachMode::Generic, Mode::Native)
    );
    if other {
        tracing::warn!(interface = name, "stays in {running} mode: detach it first to change the mode");
    }
    running
}

impl From<XdpMode> for Mode {
    fn from(mode: XdpMode) -> Self {
        match mode {
            XdpMode::Native | XdpMode::Offload | XdpMode::Multiple => Self::Native,
            XdpMode::Generic => Self::Generic,
        }
    }
}

fn facts(link: &Link, ours: bool) -> Facts {
    Facts {
        interface: link.name.clone(),
        driver: link.kind.clone().or_else(|| driver(&link.name)),
        mtu: link.mtu,
        foreign_program: link.xdp.as_ref().filter(|_| !ours).map(|xdp| xdp.program_id),
    }
}

/// The driver's name, as sysfs tells for physical interfaces.
fn driver(interface: &str) -> Option<String> {
    let path = std::fs::read_link(format!("/sys/class/net/{interface}/device/driver")).ok()?;
    Some(path.file_name()?.to_string_lossy().into_owned())
}
