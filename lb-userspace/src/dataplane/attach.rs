//! Attaches the balancer to interfaces through pinned links, and removes it.

use std::fmt;
use std::io;
use std::os::fd::AsFd;

use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::xdp::{XdpLink, XdpMode};
use aya::programs::{ProgramError, Xdp};
use lb_common::abi::names::BALANCER_PROGRAM;

use super::kernel_log::LogTail;
use super::maps::Maps;
use super::{Error, Facts, Pins, Refusal, object, stages};
use crate::netlink::{self, XdpMode as NetlinkMode};
use crate::reconcile::Size;

/// Where a program runs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    /// In the driver.
    Native,
    /// In the network stack.
    Generic,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Generic => "generic",
        })
    }
}

impl From<Mode> for XdpMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Native => Self::Driver,
            Mode::Generic => Self::Skb,
        }
    }
}

impl From<Mode> for NetlinkMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Native => Self::Native,
            Mode::Generic => Self::Generic,
        }
    }
}

/// An interface to attach to.
#[derive(Clone, Debug)]
pub struct Target {
    /// Kernel's index.
    pub ifindex: u32,
    /// Number of its port.
    pub port: u16,
    /// For explaining a refusal.
    pub facts: Facts,
}

/// A program on an interface.
#[derive(Clone, Debug)]
pub struct Attachment {
    /// Kernel's index of the interface.
    pub ifindex: u32,
    /// Id of the link.
    pub link_id: u32,
    /// Id of the program.
    pub program_id: u32,
    /// Whether an older program was replaced without a gap.
    pub replaced: bool,
}

/// Attaches the program to an interface, or replaces the one that our pinned link there has, in place.
pub fn attach(pins: &Pins, size: &Size, target: &Target, mode: Mode) -> Result<Attachment, Error> {
    let mut object = object::balancer(pins, size, target.port)?;
    stages::set(pins, &mut object, target.port)?;
    let program = object::program(&mut object, BALANCER_PROGRAM)?;
    let name = &target.facts.interface;
    let path = pins.link(target.ifindex);
    if let Ok(pinned) = PinnedLink::from_pin(&path) {
        match replace(program, pinned, name) {
            Ok(link) => return described(&link, target.ifindex, true, name),
            // The interface went away and came back: the link is attached to nothing any more.
            Err(error) => {
                tracing::debug!(interface = name.as_str(), %error, "stale link");
                std::fs::remove_file(&path).map_err(|source| Error::File {
                    action: "removing",
                    path: path.clone(),
                    source,
                })?;
            }
        }
    }
    let log = LogTail::start();
    let id = match program.attach_to_if_index(target.ifindex, mode.into()) {
        Ok(id) => id,
        Err(error) => {
            let words = words(program, target.ifindex, &target.facts.interface, mode, log);
            return Err(refused(&target.facts, mode, &error, words));
        }
    };
    let link = program.take_link(id).map_err(|error| refused(&target.facts, mode, &error, None))?;
    // A netlink attachment could not be pinned: dropping it here detaches it again.
    let link = FdLink::try_from(link).map_err(|error| link_error(name, &error))?;
    let attachment = described(&link, target.ifindex, false, name)?;
    link.pin(&path)
        .map_err(|error| Error::Link { interface: name.clone(), source: io::Error::other(error) })?;
    Ok(attachment)
}

pub(super) fn replace(program: &mut Xdp, pinned: PinnedLink, name: &str) -> Result<FdLink, Error> {
    let link = XdpLink::try_from(FdLink::from(pinned)).map_err(|error| link_error(name, &error))?;
    let other =
        |error: ProgramError| Error::Link { interface: name.to_owned(), source: io::Error::other(error) };
    let id = program.attach_to_link(link).map_err(other)?;
    let link = program.take_link(id).map_err(other)?;
    FdLink::try_from(link).map_err(|error| link_error(name, &error))
}

fn described(link: &FdLink, ifindex: u32, replaced: bool, name: &str) -> Result<Attachment, Error> {
    let info = link.info().map_err(|error| link_error(name, &error))?;
    Ok(Attachment { ifindex, link_id: info.id(), program_id: info.program_id(), replaced })
}

pub(super) fn link_error(name: &str, error: &LinkError) -> Error {
    Error::Link { interface: name.to_owned(), source: io::Error::other(error.to_string()) }
}

/// What the kernel says besides the error number, which is all that a link gives: its answer to the same over netlink,
/// else its log.
pub(super) fn words(
    program: &Xdp,
    ifindex: u32,
    interface: &str,
    mode: Mode,
    log: Option<LogTail>,
) -> Option<String> {
    let asked = program.fd().ok().map(|fd| netlink::refusal(fd.as_fd(), ifindex, mode.into()));
    let answer = match asked? {
        Ok(answer) => answer,
        Err(error) => {
            tracing::debug!(interface, %error, "no words over netlink");
            None
        }
    };
    answer.or_else(|| log?.about(interface))
}

/// The refusal: the kernel's words out of the chain of errors, and those that were asked for.
pub(super) fn refused(facts: &Facts, mode: Mode, error: &ProgramError, asked: Option<String>) -> Error {
    let mut words = Vec::new();
    let mut errno = None;
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            errno = errno.or(io.raw_os_error());
        }
        words.push(error.to_string());
        next = error.source();
    }
    words.extend(asked.filter(|asked| !words.iter().any(|word| word.contains(asked))));
    words.dedup();
    Error::Refused(Box::new(Refusal::explain(facts, mode, words.join(": "), errno)))
}

/// Interfaces that have our program, as pinned links tell.
pub fn attached(pins: &Pins) -> Vec<Attachment> {
    let described = |ifindex: u32| {
        let link = PinnedLink::from_pin(pins.link(ifindex)).ok()?;
        described(&link.into(), ifindex, false, "").ok()
    };
    pins.links().into_iter().filter_map(described).collect()
}

/// Detaches from one interface; with the last one, all maps go too. True if nothing is left.
pub fn detach(pins: &Pins, ifindex: u32) -> Result<bool, Error> {
    let path = pins.link(ifindex);
    if path.exists() {
        std::fs::remove_file(&path).map_err(|source| Error::File { action: "removing", path, source })?;
    }
    let last = pins.links().is_empty();
    if last {
        pins.remove_all()?;
    } else if let Some(maps) = Maps::open(pins)? {
        clear_stages(pins, &maps, ifindex)?;
    }
    Ok(last)
}

/// Unloads the programs that the port of an interface has besides the attached one.
fn clear_stages(pins: &Pins, maps: &Maps, ifindex: u32) -> Result<(), Error> {
    if let Some(port) = maps.port_of(ifindex)? {
        stages::clear(pins, port)?;
    }
    Ok(())
}
