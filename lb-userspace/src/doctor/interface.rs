//! What about an interface keeps packets from it, or loses them: a pure function of what is known about it.

use std::time::Duration;

use super::{Diagnosis, Finding, Remedy, Severity};
use crate::dataplane::Foreign;
use crate::netlink::{Link, Statistics, XdpMode};

/// Errors and drops below this share of all packets are nothing to worry about.
const TOLERABLE: f64 = 1e-6;

/// Whose XDP program is on an interface.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Occupant {
    /// Nobody's.
    None,
    /// This data plane's, in this mode.
    Ours(XdpMode),
    /// Another one, with the processes that hold it, in words.
    Other(Foreign, Vec<String>),
}

/// What is known about an interface that carries service traffic, or shall.
#[derive(Clone, Debug)]
pub struct Interface {
    /// Itself.
    pub link: Link,
    /// Name of the bridge, bond or VRF it belongs to.
    pub master: Option<String>,
    /// Name of the interface under it, if it is a VLAN.
    pub parent: Option<String>,
    /// Whose program is on it.
    pub occupant: Occupant,
    /// What it counted while it was watched.
    pub counted: Statistics,
    /// What it has counted since it was made.
    pub total: Statistics,
    /// How long it was watched.
    pub span: Duration,
}

impl Interface {
    /// What is to be said about it.
    pub fn findings(&self) -> Vec<Diagnosis> {
        let mut found = vec![self.kind(), self.state()];
        found.extend(self.program());
        found.extend(self.losses());
        found
    }

    fn place(&self) -> &str {
        &self.link.name
    }

    fn kind(&self) -> Diagnosis {
        let name = self.place();
        if self.link.mac.is_none() {
            return Finding::new("LB210", Severity::Problem, name, "has no Ethernet address")
                .why("packets are sent by rewriting Ethernet headers; loopback and tunnels have none")
                .fix("name the Ethernet interface that the traffic comes in by")
                .into();
        }
        if let Some(parent) = &self.parent {
            let what = format!("is a VLAN device of {parent}");
            return Finding::new("LB219", Severity::Warning, name, what)
                .why("VLAN devices have no native XDP, and see packets after the stack has handled them")
                .fix(format!("attach to {parent}: tags are read and written there (`vlan:` of backends)"))
                .into();
        }
        if let Some(master) = &self.master {
            return Finding::new("LB219", Severity::Warning, name, format!("is a port of {master}"))
                .why(format!(
                    "packets that lb does not take go to {master}; next hops are not asked for here"
                ))
                .fix("see that backends are reached through an interface with an address of its own")
                .into();
        }
        let kind = self.link.kind.as_deref().unwrap_or("Ethernet");
        let queues = (self.link.rx_queues, self.link.tx_queues);
        let what = format!(
            "{kind}, MTU {}, up to {} receive and {} transmit queues",
            self.link.mtu, queues.0, queues.1
        );
        Finding::ok("LB210", name, what).into()
    }

    fn state(&self) -> Diagnosis {
        let name = self.place();
        match (self.link.up, self.link.lower_up) {
            (true, true) => Finding::ok("LB211", name, "up, with carrier").into(),
            (true, false) => Finding::new("LB211", Severity::Problem, name, "has no carrier")
                .why("nothing comes in or goes out")
                .fix("cable, optics, or the other end (`ip link` there); a veth's peer must be up")
                .into(),
            (false, _) => {
                let finding = Finding::new("LB211", Severity::Problem, name, "is down")
                    .why("nothing comes in or goes out");
                let remedy = Remedy::BringUp { ifindex: self.link.ifindex, name: name.to_owned() };
                Diagnosis::mended_by(finding, remedy)
            }
        }
    }

    fn program(&self) -> Option<Diagnosis> {
        let name = self.place();
        match &self.occupant {
            Occupant::None => None,
            Occupant::Ours(XdpMode::Generic) => Some(
                Finding::new("LB218", Severity::Warning, name, "lb runs in generic mode")
                    .why("each packet gets a socket buffer first, which makes it several times as slow")
                    .fix("the other findings may say why; `lb detach`, mend it, `lb attach` (mode: native tells the refusal)")
                    .into(),
            ),
            Occupant::Ours(_) => Some(Finding::ok("LB212", name, "lb runs natively").into()),
            Occupant::Other(foreign, holders) => Some(self.foreign(foreign, holders)),
        }
    }

    fn foreign(&self, foreign: &Foreign, holders: &[String]) -> Diagnosis {
        let name = self.place();
        let called = foreign.name.as_deref().filter(|name| !name.is_empty()).unwrap_or("without a name");
        let tag = foreign.tag.as_deref().map_or(String::new(), |tag| format!(", tag {tag}"));
        let mut what = format!("has another XDP program: id {}, {called}{tag}", foreign.program);
        if !holders.is_empty() {
            what += &format!("; held by {}", holders.join(", "));
        }
        let pins: Vec<String> = foreign.pins.iter().map(|pin| pin.display().to_string()).collect();
        if !pins.is_empty() {
            what += &format!("; pinned as {}", pins.join(", "));
        }
        let fix = match (foreign.links.first(), pins.first()) {
            (None, _) => {
                format!("end what attached it; by hand: ip link set dev {name} xdp off (xdpgeneric off)")
            }
            (Some(_), Some(pin)) => format!("end what attached it; by hand: rm {pin}"),
            (Some(link), None) => {
                format!("end what holds link {link}; by hand: bpftool link detach id {link}")
            }
        };
        Finding::new("LB212", Severity::Problem, name, what)
            .why("an interface takes one XDP program; lb does not put another one's away")
            .fix(fix)
            .into()
    }

    fn losses(&self) -> Vec<Diagnosis> {
        let name = self.place();
        let (counted, total) = (&self.counted, &self.total);
        let seconds = self.span.as_secs_f64().max(0.001);
        let received = counted.rx_packets + counted.rx_missed + counted.rx_dropped;
        let kinds = [
            (
                counted.rx_missed,
                total.rx_missed,
                received,
                "missed: the receive ring was full",
                "a CPU does not keep up: spread over more queues, longer rings (`ethtool -G`)",
            ),
            (
                counted.rx_crc_errors,
                total.rx_crc_errors,
                received,
                "with a wrong checksum",
                "cable, optics or the switch's port",
            ),
            (
                counted.rx_errors.saturating_sub(counted.rx_crc_errors),
                total.rx_errors,
                received,
                "received with errors",
                "`ethtool -S` has what kind",
            ),
            (
                counted.rx_dropped,
                total.rx_dropped,
                received,
                "dropped on receipt",
                "often protocols nobody listens for; some drivers count here what XDP drops (`lb counters`)",
            ),
            (
                counted.tx_errors,
                total.tx_errors,
                counted.tx_packets + counted.tx_errors,
                "not sent for errors",
                "`ethtool -S` has what kind",
            ),
            (
                counted.tx_dropped,
                total.tx_dropped,
                counted.tx_packets + counted.tx_dropped,
                "dropped on sending",
                "longer rings, a queue for each CPU",
            ),
        ];
        let mut found: Vec<Diagnosis> = Vec::new();
        for (lost, since, of, how, fix) in kinds {
            let share = lost as f64 / of.max(1) as f64;
            if lost > 0 && share > TOLERABLE {
                let rate = lost as f64 / seconds;
                let what =
                    format!("{rate:.0} packets/s {how} ({:.2} %; {since} since it was made)", share * 100.0);
                let finding = Finding::new("LB217", Severity::Warning, name, what);
                found.push(finding.why("clients see timeouts and retransmissions").fix(fix).into());
            }
        }
        if found.is_empty() {
            let rate = counted.rx_packets as f64 / seconds;
            found.push(
                Finding::ok("LB217", name, format!("no losses in {seconds:.0} s at {rate:.0} packets/s"))
                    .into(),
            );
        }
        found
    }
}

#[cfg(test)]
mod tests;
