//! The rare packets: questions for MAC addresses, ICMP, fragments, IPv6 extension headers, and what is too big.
//!
//! A stage of its own (in the kernel a program of its own, reached by a tail call), so that the common case carries
//! neither its instructions nor its stack. Functions here that are not inlined keep to that stack of 512 bytes.

use super::admission::admit;
use super::forward::forward;
use super::lookup::{drops_others, service};
use super::parse::{Ip, State, ports, read_ip, skip_extensions, untag};
use super::process::{malformed, not_a_service, refuse, refused, settle};
use super::serve::{look, place};
use super::work::Sending;
use super::{Frame, Tables, Verdict, Work, arp, icmp, ndp, too_big};
use crate::abi::{BackendId, BackendState, Control, Protocol, Reason, VerdictKind};
use crate::wire::{ethernet, icmp as wire, ipv6, ndp::SOLICITATION};

/// How long the record of a first fragment serves the others, in nanoseconds: as long as Linux waits for them
/// (`IP_FRAG_TIME`, include/net/ip.h).
pub const FRAGMENT_LIFE_NS: u64 = 30_000_000_000;

/// What is done with a verdict. A method that can be inlined at every place where a verdict is known: where they are
/// merged before, the verifier sees one variant's payload in the others, where it may be a pointer.
pub trait Finish {
    /// What comes of it.
    type Output;
    /// Does it.
    fn finish(self, verdict: Verdict) -> Self::Output;
}

/// Decides about a frame that [`process`](super::process) has left to it.
#[inline(always)]
pub fn slow<F: Frame, T: Tables, E: Finish>(frame: &mut F, tables: &T, work: &mut Work, end: E) -> E::Output {
    let (Some(own), Some(control)) = (tables.port(tables.ingress()), tables.control()) else {
        return end.finish(settle(tables, Reason::NotIp).into());
    };
    let Some(link) = frame.read(0).map(ethernet::Header::parse) else {
        return end.finish(settle(tables, Reason::NotIp).into());
    };
    work.own = ethernet::copied(own.mac);
    work.link = link;
    let (start, ether_type) = untag(frame, &link);
    let work = work.written();
    if ether_type == ethernet::ARP {
        return end.finish(settle(tables, arp::answer(frame, tables, control, work, start)).into());
    }
    read_ip(frame, start, ether_type, &mut work.packet.ip);
    let work = work.written();
    if work.packet.ip.state == State::Whole && work.packet.ip.is_v6 {
        skip_extensions(frame, &mut work.packet.ip);
    }
    let work = work.written();
    work.order.sending = Sending::Known;
    if let Some(kind) = decide(frame, tables, control, work) {
        return end.finish(kind.into());
    }
    match send(frame, tables, work.written()) {
        Ok(verdict) => end.finish(verdict),
        Err(Reason::TooBig) if work.order.sending != Sending::Error => {
            end.finish(tell(frame, tables, work).into())
        }
        Err(reason) => end.finish(refused(tables, work.order.service, reason).into()),
    }
}

/// The verdict about a packet; none yet where `order` says to which backend it goes.
#[inline(always)]
fn decide<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    control: &Control,
    work: &mut Work,
) -> Option<VerdictKind> {
    let ip = &work.packet.ip;
    let is_icmp = ip.protocol == if ip.is_v6 { ipv6::ICMP } else { wire::PROTOCOL };
    match ip.state {
        State::Whole if is_icmp => icmp_packet(frame, tables, control, work),
        // Questions to everybody are ICMP; anything else is for one station.
        _ if !ethernet::same(work.link.destination, work.own) => Some(settle(tables, Reason::OtherMac)),
        State::First if is_icmp => Some(fragment_of_nobody(tables, control, ip)),
        State::Whole | State::First => match Protocol::from_number(ip.protocol) {
            Some(protocol) => match ports(frame, ip, protocol) {
                Some(ports) => {
                    work.packet.ports = ports;
                    balance(frame, tables, control, work)
                }
                None => Some(settle(tables, malformed(tables, control, ip))),
            },
            None => Some(settle(tables, Reason::OtherProtocol)),
        },
        State::Later => later_fragment(tables, control, work),
        State::NotIp | State::Truncated | State::Malformed | State::LongHeaders => {
            Some(settle(tables, refuse(tables, control, ip)))
        }
    }
}

#[inline(always)]
fn icmp_packet<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    control: &Control,
    work: &mut Work,
) -> Option<VerdictKind> {
    let ip = &work.packet.ip;
    let head = frame.read(ip.payload).map(wire::Head::parse);
    let Some(head) = head.filter(|_| ip.payload_len() >= wire::LEN as u32) else {
        return Some(settle(tables, Reason::OtherProtocol));
    };
    if ip.is_v6 && head.kind == SOLICITATION {
        return Some(settle(tables, ndp::answer(frame, tables, control, work)));
    }
    if !ethernet::same(work.link.destination, work.own) {
        return Some(settle(tables, Reason::OtherMac));
    }
    let (echo, error) = match ip.is_v6 {
        true => (wire::V6_ECHO, head.is_error_v6()),
        false => (wire::ECHO, head.is_error()),
    };
    if head.kind == echo {
        return Some(settle(tables, icmp::echo(frame, tables, control, work)));
    }
    if error {
        return icmp::error(frame, tables, control, work);
    }
    Some(settle(tables, Reason::OtherProtocol))
}

#[inline(always)]
fn balance<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    control: &Control,
    work: &mut Work,
) -> Option<VerdictKind> {
    let work = work.written();
    let packet = &work.packet;
    let Some(service) = service(tables, control, packet) else {
        return Some(settle(tables, not_a_service(tables, control, packet)));
    };
    let seen = look(frame, packet, service);
    // What is too big has been admitted before it was left to this stage, and is not to pay twice.
    let plain = packet.ip.state == State::Whole && packet.ip.is_plain();
    let admitted =
        if service.guarded() && !plain { admit(tables, service, packet, seen.kind) } else { Ok(()) };
    match admitted.and_then(|()| place(tables, control, (packet, &mut work.asked), service, seen)) {
        Ok(placed) => {
            work.order.hash = placed.hash;
            work.order.service = service.id;
            work.order.backend = placed.choice.id;
            if placed.choice.new_flow {
                work.order.sending = Sending::New;
            }
            None
        }
        Err(reason) => Some(refused(tables, service.id, reason)),
    }
}

/// A fragment without ports goes where the first one of its packet went.
#[inline(always)]
fn later_fragment<T: Tables>(tables: &T, control: &Control, work: &mut Work) -> Option<VerdictKind> {
    let ip = &work.packet.ip;
    let Some(record) = tables.fragment(&ip.fragment_key()) else {
        return Some(fragment_of_nobody(tables, control, ip));
    };
    let young = tables.now_ns().wrapping_sub(record.seen_ns) < FRAGMENT_LIFE_NS;
    let backend = BackendId::new(record.backend).filter(|id| {
        let keeps = |state| BackendState::from_raw(state).keeps_flows();
        young
            && tables.backend(*id).is_some_and(|entry| entry.service == record.service && keeps(entry.state))
    });
    let Some(backend) = backend else {
        return Some(fragment_of_nobody(tables, control, ip));
    };
    work.order.hash = record.hash;
    work.order.service = record.service;
    work.order.backend = backend;
    None
}

#[inline(always)]
fn fragment_of_nobody<T: Tables>(tables: &T, control: &Control, ip: &Ip) -> VerdictKind {
    match drops_others(tables, control, &ip.destination) {
        true => settle(tables, Reason::Fragment),
        false => settle(tables, Reason::NotAService),
    }
}

#[inline(never)]
fn send<F: Frame, T: Tables>(frame: &mut F, tables: &T, work: &Work) -> Result<Verdict, Reason> {
    let (ip, order) = (&work.packet.ip, &work.order);
    let backend = tables.backend(order.backend).ok_or(Reason::NoBackend)?;
    let verdict = forward(frame, tables, ip, backend, order.hash)?;
    match order.sending {
        Sending::Error => tables.count(Reason::IcmpForwarded),
        Sending::Known => tables.count_forward(order.backend, ip.total_len, 0),
        Sending::New => tables.count_forward(order.backend, ip.total_len, 1),
    }
    Ok(verdict)
}

/// Tells the sender of what does not fit.
#[inline(always)]
fn tell<F: Frame, T: Tables>(frame: &mut F, tables: &T, work: &Work) -> VerdictKind {
    // One after the other: each needs much of the stack.
    let told = match too_big::is_due(tables, work) {
        true => too_big::answer(frame, tables, work),
        false => Err(Reason::TooBig),
    };
    match told {
        Ok(()) => settle(tables, Reason::TooBigAnswered),
        Err(reason) => refused(tables, work.order.service, reason),
    }
}
