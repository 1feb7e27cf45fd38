//! Numbers for interfaces.

use std::collections::BTreeMap;

use lb_common::abi::{NextHop, PortEntry};

use super::{Desired, DesiredHop, Observed, PlanError};

/// Who has which number.
#[derive(Default)]
pub(super) struct Ports {
    by_ifindex: BTreeMap<u32, (u16, PortEntry)>,
    /// To be set, because new or changed.
    pub(super) new: Vec<(u16, PortEntry)>,
    /// Not needed any more.
    pub(super) gone: Vec<u16>,
}

impl Ports {
    /// The word for a next hop; unknown where its interface has no port.
    pub(super) fn next_hop(&self, hop: Option<DesiredHop>) -> NextHop {
        let number = |hop: DesiredHop| Some(NextHop::new(hop.mac, self.by_ifindex.get(&hop.ifindex)?.0));
        hop.and_then(number).unwrap_or(NextHop::UNKNOWN)
    }

    /// MAC address and MTU of an interface.
    pub(super) fn way_out(&self, ifindex: u32) -> Option<([u8; 6], u32)> {
        self.by_ifindex.get(&ifindex).map(|(_, port)| (port.mac, port.mtu))
    }
}

/// Keeps the numbers that interfaces have, and gives new ones the lowest that are free.
pub(super) fn assign(observed: &Observed, desired: &Desired) -> Result<Ports, PlanError> {
    let mut ports = Ports::default();
    let mut free = (1..=observed.size.ports as u16).filter(|number| !observed.ports.contains_key(number));
    for port in &desired.ports {
        let entry = PortEntry { ifindex: port.ifindex, mtu: port.mtu, mac: port.mac, reserved: 0 };
        let present = observed.ports.iter().find(|(_, present)| present.ifindex == port.ifindex);
        let number = match present {
            Some((number, _)) => *number,
            None => free.next().ok_or(PlanError::Full {
                what: "interfaces",
                needed: desired.ports.len() as u64,
                capacity: observed.size.ports.into(),
                limit: "interfaces",
            })?,
        };
        if present.map(|(_, present)| present) != Some(&entry) {
            ports.new.push((number, entry));
        }
        ports.by_ifindex.insert(port.ifindex, (number, entry));
    }
    let kept = |number: &u16| {
        ports.by_ifindex.values().any(|(kept, _)| kept == number) || observed.attached.contains(number)
    };
    ports.gone = observed.ports.keys().filter(|number| !kept(number)).copied().collect();
    Ok(ports)
}
