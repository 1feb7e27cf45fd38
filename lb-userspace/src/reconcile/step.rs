//! A change of the data plane as a value.

use std::fmt;

use lb_common::abi::{
    BackendEntry, BackendId, Control, FlowKey, PortEntry, ServiceEntry, ServiceKey, Slot, VipEntry, VipKey,
    unmapped,
};

/// Steps, to be executed in order.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Plan {
    /// The steps.
    pub steps: Vec<Step>,
}

impl Plan {
    /// Makes this the next configuration after the one in force, unless it changes nothing; the number then in force.
    pub fn number(&mut self, in_force: &Control) -> u64 {
        if self.steps.is_empty() {
            return in_force.generation;
        }
        let generation = in_force.generation + 1;
        let planned = self.steps.iter_mut().find_map(|step| match step {
            Step::PutControl(control) => Some(control),
            _ => None,
        });
        match planned {
            Some(control) => control.generation = generation,
            None => self.steps.push(Step::PutControl(Control { generation, ..*in_force })),
        }
        generation
    }
}

/// One write.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// Sets a port.
    PutPort(u16, PortEntry),
    /// Removes a port that no backend uses any more.
    DeletePort(u16),
    /// Sets a backend, word by word.
    PutBackend {
        /// Its id.
        id: BackendId,
        /// Its entry.
        entry: BackendEntry,
        /// Whether the id was free: its counters start from zero.
        fresh: bool,
    },
    /// Marks a backend down: its flows move to their slots' current owners.
    RetireBackend(BackendId),
    /// Frees the id of a backend that nothing names any more.
    ForgetBackend(BackendId),
    /// Stores slots of the pool, one atomic word each; `None` leaves a slot as it is.
    WriteSlots {
        /// Index of the first.
        start: u32,
        /// The slots from there on.
        words: Vec<Option<Slot>>,
    },
    /// Sets the control block.
    PutControl(Control),
    /// Adds or replaces a service.
    PutService(ServiceKey, ServiceEntry),
    /// Removes a service.
    DeleteService(ServiceKey),
    /// Adds or replaces a service address.
    PutVip(VipKey, VipEntry),
    /// Removes a service address.
    DeleteVip(VipKey),
    /// Removes a recorded flow, if it is still the one that was last seen then (monotonic nanoseconds).
    DeleteFlow(FlowKey, u64),
}

struct Address([u8; 16]);

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match unmapped(self.0) {
            Some(v4) => std::net::Ipv4Addr::from(v4).fmt(f),
            None => std::net::Ipv6Addr::from(self.0).fmt(f),
        }
    }
}

struct Key(ServiceKey);

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = lb_common::abi::Protocol::from_number(self.0.protocol).map_or("?", |p| p.name());
        write!(f, "{}:{}/{protocol}", Address(self.0.address), u16::from_be_bytes(self.0.port))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PutPort(number, entry) => {
                write!(f, "+ port {number}: ifindex {}, mtu {}", entry.ifindex, entry.mtu)
            }
            Self::DeletePort(number) => write!(f, "- port {number}"),
            Self::PutBackend { id, entry, fresh } => {
                let sign = if *fresh { '+' } else { '~' };
                write!(
                    f,
                    "{sign} backend {} (id {}) of service id {}",
                    Address(entry.address),
                    id.get(),
                    entry.service
                )
            }
            Self::RetireBackend(id) => write!(f, "- backend id {}: its flows move", id.get()),
            Self::ForgetBackend(id) => write!(f, "- backend id {}: free again", id.get()),
            Self::WriteSlots { start, words } => {
                let changed = words.iter().flatten().count();
                write!(f, "~ {changed} of {} slots from {start}", words.len())
            }
            Self::PutControl(control) => write!(f, "~ control: generation {}", control.generation),
            Self::PutService(key, entry) => write!(f, "+ service {} (id {})", Key(*key), entry.id),
            Self::DeleteService(key) => write!(f, "- service {}", Key(*key)),
            Self::PutVip(key, _) => write!(f, "+ vip {}", Address(key.address)),
            Self::DeleteVip(key) => write!(f, "- vip {}", Address(key.address)),
            Self::DeleteFlow(key, _) => {
                write!(f, "- flow {}:{}", Address(key.source), u16::from_be_bytes(key.source_port))
            }
        }
    }
}
