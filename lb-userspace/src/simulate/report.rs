//! What became of a packet, as JSON and in words. Says what the engine noted; decides nothing.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use lb_common::abi::{
    AclVerdict, BackendEntry, BackendId, BackendState, Egress, Method, NextHop, Reason, ServiceEntry, Slot,
    SlotState, Tag, unmapped,
};
use lb_common::datapath::Verdict;
use serde::Serialize;

use super::flow_words::flow_words;
use super::language::{Link, Mac, describe_on, ip_bytes};
use super::trace::{Found, Noted};

/// What people call the things that tables have numbers for.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// By id of the service: its name, and its address, port and protocol.
    pub services: BTreeMap<u32, (String, String)>,
    /// By number of the backend: its name, if it has one.
    pub backends: BTreeMap<u32, Option<String>>,
    /// By number of the backend: its address.
    pub addresses: BTreeMap<u32, IpAddr>,
    /// By number of the port: the interface.
    pub ports: BTreeMap<u16, String>,
    /// What stands in for what is not known of this machine, by address of the backend.
    pub stand_ins: BTreeMap<IpAddr, Vec<String>>,
}

/// A packet's fate.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Number of the packet, from 0.
    pub index: usize,
    /// `tx`, `redirect`, `pass` or `drop`.
    pub verdict: &'static str,
    /// Label of the reason; `forwarded` for what a backend gets.
    pub reason: &'static str,
    /// The service's name.
    pub service: Option<String>,
    /// Its address, port and protocol.
    pub service_id: Option<String>,
    /// The backend's address.
    pub backend: Option<IpAddr>,
    /// Its name, if it has one.
    pub backend_name: Option<String>,
    /// What decided: `kernel` (the BPF program) or `host` (the same engine in this process).
    pub engine: &'static str,
    /// The packet as it came, in one line.
    pub packet: String,
    /// The packet as it leaves, in one line.
    pub output: Option<String>,
    /// The interface that it leaves by.
    pub interface: Option<String>,
    /// The flow's slot.
    pub slot: Option<SlotReport>,
    /// What is done to the packet.
    pub action: Option<String>,
    /// Whether it fits the way to the backend.
    pub mtu: Option<MtuReport>,
    /// All of it in words.
    pub explanation: Vec<String>,
    /// What stood in for what is not known.
    pub stand_ins: Vec<String>,
    /// What is wrong with this report, if anything is.
    pub warning: Option<String>,
}

/// A slot.
#[derive(Clone, Debug, Serialize)]
pub struct SlotReport {
    /// Its number within the service's ring.
    pub index: u32,
    /// Slots of the ring.
    pub of: u32,
    /// `settled`, `fresh` or `late`.
    pub state: &'static str,
    /// Number of the backend that takes new flows; 0: none.
    pub current: u32,
    /// Number of the backend that had it before.
    pub previous: u32,
}

/// A comparison of lengths.
#[derive(Clone, Debug, Serialize)]
pub struct MtuReport {
    /// Bytes of the IP packet as it came.
    pub packet: u32,
    /// Bytes of the headers in front of it.
    pub overhead: u32,
    /// Largest packet that leaves there, in bytes.
    pub mtu: u32,
    /// Whether it fits.
    pub fits: bool,
}

/// What a report is made of.
pub struct Facts<'a> {
    /// Number of the packet.
    pub index: usize,
    /// What decided.
    pub engine: &'static str,
    /// The verdict.
    pub verdict: Verdict,
    /// The frame as it came.
    pub before: &'a [u8],
    /// The frame afterwards.
    pub after: &'a [u8],
    /// What the engine looked up.
    pub noted: &'a Noted,
    /// The link that is not worth a word.
    pub link: &'a Link,
    /// Number of the port on which it came in.
    pub ingress: u16,
}

fn verdict_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Transmit => "tx",
        Verdict::Redirect(_) => "redirect",
        Verdict::Pass => "pass",
        Verdict::Drop | Verdict::Slow | Verdict::Sampled => "drop",
    }
}

/// An address from its 16-byte form.
pub fn address(bytes: [u8; 16]) -> IpAddr {
    unmapped(bytes).map_or_else(|| Ipv6Addr::from(bytes).into(), IpAddr::from)
}

impl Report {
    /// Puts it together.
    pub fn new(facts: &Facts<'_>, names: &Names) -> Self {
        let Facts { noted, verdict, .. } = *facts;
        let service_id = noted.service.map(|(entry, _)| entry.id).or(noted.dropped_for);
        let service = service_id.map(|id| {
            let unknown = || (format!("id {id}"), format!("id {id}"));
            names.services.get(&id).cloned().unwrap_or_else(unknown)
        });
        // One that would have been passed on is named also where it was not.
        let backend = noted.backend().filter(|_| service.is_some());
        let address = backend.map(|(_, entry)| address(entry.address));
        let sent = matches!(verdict, Verdict::Transmit | Verdict::Redirect(_));
        let port = match verdict {
            Verdict::Redirect(port) => Some(port),
            _ => sent.then_some(facts.ingress),
        };
        let interface = port.and_then(|port| names.ports.get(&port).cloned());
        let mut report = Self {
            index: facts.index,
            verdict: verdict_word(verdict),
            reason: noted.reason.map_or("forwarded", Reason::name),
            service: service.as_ref().map(|(name, _)| name.clone()),
            service_id: service.map(|(_, id)| id),
            backend: address,
            backend_name: backend.and_then(|(id, _)| names.backends.get(&id.get()).cloned().flatten()),
            engine: facts.engine,
            packet: describe_on(facts.before, facts.link),
            output: sent.then(|| describe_on(facts.after, facts.link)),
            interface,
            slot: slot(noted),
            action: backend.filter(|_| noted.forwarded.is_some()).map(|(_, entry)| action(&entry)),
            mtu: backend.and_then(|(_, entry)| mtu(&entry, facts)),
            explanation: Vec::new(),
            stand_ins: address.and_then(|a| names.stand_ins.get(&a).cloned()).unwrap_or_default(),
            warning: None,
        };
        report.explanation = report.words(facts, names, backend);
        report
    }

    fn words(
        &self,
        facts: &Facts<'_>,
        names: &Names,
        backend: Option<(BackendId, BackendEntry)>,
    ) -> Vec<String> {
        let noted = facts.noted;
        let mut lines = Vec::new();
        if let (Some(name), Some(id)) = (&self.service, &self.service_id) {
            let how = match noted.service {
                Some((_, Found::InARange)) => ", by its range of ports",
                Some((_, Found::Exactly)) | None => "",
            };
            lines.push(format!("service: {name} {id}{how}"));
        }
        lines.extend(admission(noted));
        if let Some(slot) = &self.slot {
            lines.push(slot_words(slot, names));
        }
        lines.extend(flow_words(noted, names));
        if let Some((id, entry)) = backend {
            lines.push(format!(
                "backend: {}{}, {}",
                address(entry.address),
                called(names, id),
                state(&entry)
            ));
        }
        lines.extend(self.action.iter().map(|action| format!("action: {action}")));
        lines.extend(self.mtu.iter().map(mtu_words));
        lines.extend(self.interface.iter().map(|interface| match facts.verdict {
            Verdict::Redirect(_) => format!("leaves by: {interface}, redirected"),
            _ => format!("leaves by: {interface}, where it came in"),
        }));
        lines.push(match noted.reason {
            Some(reason) => format!("reason: {} - {}", reason.name(), reason.explanation()),
            None => "reason: forwarded - Sent to its backend, and counted there.".to_owned(),
        });
        lines
    }

    /// In a few words: `tx forwarded, service web 203.0.113.10:80/tcp, backend 192.0.2.21`.
    pub fn summary(&self) -> String {
        let mut text = format!("{} {}", self.verdict, self.reason);
        if let (Some(name), Some(id)) = (&self.service, &self.service_id) {
            text += &format!(", service {name} {id}");
        }
        text + &self.backend.map_or_else(String::new, |backend| format!(", backend {backend}"))
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = format!("#{} {}  {}\n", self.index, self.verdict, self.packet);
        for line in &self.explanation {
            text += &format!("    {line}\n");
        }
        for (name, line) in [("sent", &self.output), ("warning", &self.warning)] {
            text += &line.as_ref().map_or_else(String::new, |line| format!("    {name}: {line}\n"));
        }
        text
    }
}

fn called(names: &Names, id: BackendId) -> String {
    let name = names.backends.get(&id.get()).and_then(Option::as_ref);
    name.map_or_else(String::new, |name| format!(" ({name})"))
}

fn state(entry: &BackendEntry) -> &'static str {
    match BackendState::from_raw(entry.state) {
        BackendState::Absent => "which does not exist",
        BackendState::Up => "up",
        BackendState::Draining => "draining: it keeps the flows it has",
        BackendState::Retired => "retired: it has left the config",
        BackendState::Down => "down",
    }
}

fn slot(noted: &Noted) -> Option<SlotReport> {
    let ((index, word), (service, _)) = (noted.slot?, noted.service?);
    let ServiceEntry { ring_start, ring_size, .. } = service;
    Some(SlotReport {
        index: index.wrapping_sub(ring_start),
        of: ring_size,
        state: slot_state(word),
        current: word.current().get(),
        previous: word.previous().get(),
    })
}

fn slot_state(slot: Slot) -> &'static str {
    match slot.state() {
        SlotState::Settled => "settled",
        SlotState::Fresh => "fresh",
        SlotState::Late => "late",
    }
}

/// A backend by its address.
pub(super) fn whose(names: &Names, id: u32) -> String {
    names.addresses.get(&id).map_or_else(|| format!("backend id {id}"), IpAddr::to_string)
}

fn slot_words(slot: &SlotReport, names: &Names) -> String {
    let owner = if slot.current == 0 { "nobody".to_owned() } else { whose(names, slot.current) };
    let about = match slot.state {
        "settled" => format!("settled on {owner}: no flow table is asked"),
        state => {
            format!(
                "{state}, now {owner}'s, before {}'s: the flow tables are asked",
                whose(names, slot.previous)
            )
        }
    };
    format!("slot: {} of {}, {about}", slot.index, slot.of)
}

fn admission(noted: &Noted) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some((service, _)) = noted.service.filter(|(service, _)| service.flags & ServiceEntry::ACL != 0) {
        let only = service.flags & ServiceEntry::ACL_ONLY != 0;
        lines.push(match (noted.listed, only) {
            (Some(AclVerdict::Allow), _) => "source: on the allow list".to_owned(),
            (Some(AclVerdict::Deny), _) => "source: on the deny list".to_owned(),
            (None, true) => "source: on no list, and only the allow list is admitted".to_owned(),
            (None, false) => "source: on no list, so it is admitted".to_owned(),
        });
    }
    if noted.limited {
        let over = matches!(
            noted.reason,
            Some(
                Reason::SourceFlowLimit | Reason::SourcePacketLimit | Reason::FlowLimit | Reason::PacketLimit
            )
        );
        lines.push(format!("rate limits: {}", if over { "exceeded" } else { "kept" }));
    }
    lines
}

fn outer(entry: &BackendEntry) -> bool {
    entry.flags & BackendEntry::OUTER_V6 != 0
}

fn action(entry: &BackendEntry) -> String {
    let hop = NextHop(entry.next_hop);
    let tag = match entry.tag() {
        Tag::Kept => String::new(),
        Tag::Vlan(id) => format!(", VLAN tag {id}"),
    };
    let how = match Method::from_raw(entry.method) {
        None => return "none: the backend's entry has no method".to_owned(),
        Some(Method::L2) => "l2: only the MAC addresses are rewritten".to_owned(),
        Some(method) => {
            let name = match method {
                Method::Ipip => "ipip".to_owned(),
                Method::Gre => "gre".to_owned(),
                Method::GueHeader => {
                    format!("gue variant 0 to port {}", u16::from_be_bytes(entry.encap_port))
                }
                Method::GueDirect | Method::L2 => {
                    format!("gue variant 1 to port {}", u16::from_be_bytes(entry.encap_port))
                }
            };
            let source = match entry.source_bits {
                0 => address(entry.outer_source).to_string(),
                bits => format!("{} with {bits} bits of the flow's hash", address(entry.outer_source)),
            };
            let (to, overhead) = (address(entry.address), method.overhead(outer(entry)));
            format!("{name}: encapsulated from {source} to {to}, {overhead} bytes of headers")
        }
    };
    format!("{how}{tag}; MAC {} > {}", Mac(Egress(entry.egress).mac()), Mac(hop.mac()))
}

fn mtu(entry: &BackendEntry, facts: &Facts<'_>) -> Option<MtuReport> {
    let method = Method::from_raw(entry.method)?;
    let packet = match facts.noted.forwarded {
        Some((_, bytes, _)) => bytes,
        None => u32::try_from(ip_bytes(facts.before)?).ok()?,
    };
    let (overhead, mtu) = (method.overhead(outer(entry)), Egress(entry.egress).mtu());
    // Nothing is known of a way that is not there.
    (mtu > 0).then_some(MtuReport { packet, overhead, mtu, fits: packet + overhead <= mtu })
}

fn mtu_words(mtu: &MtuReport) -> String {
    let MtuReport { packet, overhead, mtu, fits } = mtu;
    let sum = packet + overhead;
    let verdict = if *fits {
        "fits".to_owned()
    } else {
        format!("too big: {} would fit", mtu.saturating_sub(*overhead))
    };
    match overhead {
        0 => format!("mtu: {packet} bytes of {mtu}: {verdict}"),
        _ => format!("mtu: {packet} + {overhead} = {sum} bytes of {mtu}: {verdict}"),
    }
}
