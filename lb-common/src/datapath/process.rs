//! The balancer's decision about one frame of the common kind, from first byte to verdict. What is not of that kind is
//! left to [`slow`](super::slow).

use super::lookup::{drops_others, service};
use super::parse::{Ip, Packet, State, is_known, ports, read_ip, untag};
use super::serve::serve;
use super::work::Asked;
use super::{Frame, Tables, Work, probe};
use crate::abi::{Control, Protocol, Reason, VerdictKind};
use crate::wire::ethernet;

/// What happens to a frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// The host's network stack gets it, untouched.
    Pass,
    /// Gone, and counted.
    Drop,
    /// Out where it came in.
    Transmit,
    /// Out through the port with this number.
    Redirect(u16),
    /// Untouched and uncounted so far: [`slow`](super::slow) decides.
    Slow,
    /// Untouched and uncounted so far: packets are sampled, and [`sampled`] decides.
    Sampled,
}

/// Decides about one frame, rewrites it if it is to be sent, and counts what it did.
#[inline(always)]
pub fn process<F: Frame, T: Tables>(frame: &mut F, tables: &T, work: &mut Work) -> Verdict {
    match tables.control() {
        // In a stage of its own, so that sampling costs nothing while it is off.
        Some(control) if control.sampling != 0 => Verdict::Sampled,
        Some(control) => decide(frame, tables, control, work),
        None => settle(tables, Reason::NotIp).into(),
    }
}

/// What [`process`] does while packets are not sampled.
#[inline(always)]
pub fn sampled<F: Frame, T: Tables>(frame: &mut F, tables: &T, work: &mut Work) -> Verdict {
    match tables.control() {
        Some(control) => decide(frame, tables, control, work),
        None => settle(tables, Reason::NotIp).into(),
    }
}

#[inline(always)]
fn decide<F: Frame, T: Tables>(frame: &mut F, tables: &T, control: &Control, work: &mut Work) -> Verdict {
    let (Some(own), Some(link)) = (tables.port(tables.ingress()), frame.read(0).map(ethernet::Header::parse))
    else {
        return settle(tables, Reason::NotIp).into(); // nothing is configured yet, or nothing came
    };
    let (start, ether_type) = untag(frame, &link);
    if !ethernet::same(link.destination, own.mac) {
        return other_station(tables, &link, ether_type);
    }
    if ether_type == ethernet::ARP {
        return Verdict::Slow;
    }
    read_ip(frame, start, ether_type, &mut work.packet.ip);
    let Work { packet, asked, .. } = work.written();
    match (packet.ip.state, Protocol::from_number(packet.ip.protocol)) {
        (State::Whole, Some(protocol)) => match ports(frame, &packet.ip, protocol) {
            Some(ports) => {
                packet.ports = ports;
                balance(frame, tables, control, (packet, asked))
            }
            None => settle(tables, malformed(tables, control, &packet.ip)).into(),
        },
        (State::First | State::Later, _) => Verdict::Slow,
        (State::Whole, None) if is_known(&packet.ip) => Verdict::Slow,
        _ => settle(tables, refuse(tables, control, &packet.ip)).into(),
    }
}

/// Flooded frames are another balancer's business, or everybody's: of those only questions for MAC addresses are ours.
#[inline(always)]
fn other_station<T: Tables>(tables: &T, link: &ethernet::Header, ether_type: u16) -> Verdict {
    let question = match ether_type {
        ethernet::ARP => ethernet::same(link.destination, ethernet::BROADCAST),
        ethernet::IPV6 => ethernet::is_solicited_node(link.destination),
        _ => false,
    };
    if question { Verdict::Slow } else { settle(tables, Reason::OtherMac).into() }
}

#[inline(always)]
fn balance<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    control: &Control,
    (packet, asked): (&Packet, &mut Asked),
) -> Verdict {
    let Some(service) = service(tables, control, packet) else {
        return probe::reply(frame, tables, packet)
            .unwrap_or_else(|| settle(tables, not_a_service(tables, control, packet)).into());
    };
    match serve(frame, tables, control, (packet, asked), service) {
        Ok(verdict) => verdict,
        // Its sender is to be told.
        Err(Reason::TooBig) => Verdict::Slow,
        Err(reason) => refused(tables, service.id, reason).into(),
    }
}

impl From<VerdictKind> for Verdict {
    #[inline(always)]
    fn from(kind: VerdictKind) -> Self {
        match kind {
            VerdictKind::Pass => Self::Pass,
            VerdictKind::Drop => Self::Drop,
            VerdictKind::Transmit => Self::Transmit,
        }
    }
}

/// Drops a service's packet and counts it there.
#[inline(always)]
pub(super) fn refused<T: Tables>(tables: &T, service: u32, reason: Reason) -> VerdictKind {
    tables.count_drop(service, reason);
    VerdictKind::Drop
}

/// Counts a frame that belongs to no service; what its reason says is to be done.
#[inline(always)]
pub(super) fn settle<T: Tables>(tables: &T, reason: Reason) -> VerdictKind {
    tables.count(reason);
    reason.verdict()
}

/// A whole packet with ports that no service wants.
#[inline(always)]
pub(super) fn not_a_service<T: Tables>(tables: &T, control: &Control, packet: &Packet) -> Reason {
    match drops_others(tables, control, &packet.ip.destination) {
        true => Reason::OtherPort,
        false => Reason::NotAService,
    }
}

/// What is not a packet with ports passes, unless it is addressed to a service and could only do harm there.
#[inline(always)]
pub(super) fn refuse<T: Tables>(tables: &T, control: &Control, ip: &Ip) -> Reason {
    match ip.state {
        State::NotIp => Reason::NotIp,
        State::Truncated => Reason::MalformedElsewhere,
        State::Malformed => malformed(tables, control, ip),
        State::LongHeaders if drops_others(tables, control, &ip.destination) => Reason::LongHeaders,
        State::LongHeaders | State::Whole | State::First | State::Later => Reason::OtherProtocol,
    }
}

/// Lengths or fields that contradict each other.
#[inline(always)]
pub(super) fn malformed<T: Tables>(tables: &T, control: &Control, ip: &Ip) -> Reason {
    match drops_others(tables, control, &ip.destination) {
        true => Reason::Malformed,
        false => Reason::MalformedElsewhere,
    }
}
