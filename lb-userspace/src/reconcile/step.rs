//! A change of the data plane as a value.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use lb_common::abi::{
    BackendEntry, BackendId, Control, FlowKey, FlowTable, LoadEntry, PolicyEntry, PortEntry, PrefixEntry,
    PrefixKey, Protocol, QuicKey, RangeKey, RateEntry, ServiceEntry, ServiceKey, Slot, VipEntry, VipKey,
};

use super::{AclEntries, PlanError, Terms, TrieKey, narrow, record};

/// Steps, to be executed in order.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Plan {
    /// The steps.
    pub steps: Vec<Step>,
    /// When to plan again, by the monotonic clock in nanoseconds: something waits for its second step then.
    pub due_ns: Option<u64>,
    /// What holds for services from then on, by service id; for [`History::note`](super::History::note).
    pub terms: BTreeMap<u32, Terms>,
    /// What services go without; only of plans that follow.
    pub lacking: Vec<PlanError>,
}

impl Plan {
    /// Makes this the next configuration after the one in force, unless it changes nothing; the number then in force.
    pub fn number(&mut self, in_force: &Control) -> u64 {
        if self.steps.is_empty() {
            return in_force.generation;
        }
        let generation = in_force.generation + 1;
        let mut planned = false;
        for step in &mut self.steps {
            if let Step::PutControl(control) = step {
                control.generation = generation;
                planned = true;
            }
        }
        if !planned {
            self.steps.push(Step::PutControl(Control { generation, ..*in_force }));
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
    /// Writes a schedule into a range of the pool that nobody uses.
    WriteSchedule {
        /// Index of its first slot.
        start: u32,
        /// Whose turn it is, slot by slot.
        turns: Vec<BackendId>,
    },
    /// Sets how the service with this id picks backends for new flows: where its schedule is by one store.
    PutPolicy(u32, PolicyEntry),
    /// Sets a backend's weight, as policies that compare loads have it.
    PutWeight(BackendId, u64),
    /// Sets its load as well.
    PutLoad(BackendId, LoadEntry),
    /// Sets the control block.
    PutControl(Control),
    /// Takes a service id that was free: its counters start from zero.
    TakeServiceId(u32),
    /// Sets the limits of the service with this id.
    PutRates(u32, RateEntry),
    /// Adds the entries of a source list.
    PutAcl {
        /// Its number.
        list: u32,
        /// All of its entries.
        entries: AclEntries,
    },
    /// Removes all source lists but these.
    KeepAcl(BTreeSet<u32>),
    /// Has a QUIC server id name a backend.
    PutQuic(QuicKey, BackendId),
    /// Has it name none.
    DeleteQuic(QuicKey),
    /// Has a service take a port of an address, or of what stands for a prefix.
    PutService(ServiceKey, ServiceEntry),
    /// Has no service take it.
    DeleteService(ServiceKey),
    /// Has a service take a block of ports, or records what it takes.
    PutRange(TrieKey<RangeKey>, ServiceEntry),
    /// Has no service take it.
    DeleteRange(TrieKey<RangeKey>),
    /// Adds or replaces a prefix of service addresses.
    PutPrefix(TrieKey<PrefixKey>, PrefixEntry),
    /// Removes a prefix.
    DeletePrefix(TrieKey<PrefixKey>),
    /// Adds or replaces a service address.
    PutVip(VipKey, VipEntry),
    /// Removes a service address.
    DeleteVip(VipKey),
    /// Removes a recorded flow, if it is still the one that was last seen then (monotonic nanoseconds).
    DeleteFlow(FlowTable, FlowKey, u64),
}

/// An address, or what stands for a prefix, with what follows.
struct At<T>([u8; 16], T);

impl<T: fmt::Display> fmt::Display for At<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0, narrow(self.0)) {
            ([0xff, 0, .., a, b, c, d], _) => write!(f, "prefix {}", u32::from_be_bytes([a, b, c, d]))?,
            (_, IpAddr::V4(v4)) => v4.fmt(f)?,
            (_, IpAddr::V6(v6)) => write!(f, "[{v6}]")?,
        }
        write!(f, ":{}", self.1)
    }
}

/// A key of a service, as people name one.
struct Key(ServiceKey);

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = u16::from_be_bytes(self.0.port);
        write!(f, "{}/{}", At(self.0.address, port), protocol(self.0.protocol))
    }
}

fn protocol(number: u8) -> &'static str {
    Protocol::from_number(number).map_or("?", |protocol| protocol.name())
}

/// A block of ports, or a record.
struct Block(TrieKey<RangeKey>);

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(service) = record::service(&self.0) {
            return write!(f, "{service} (record)");
        }
        let TrieKey { data, bits } = self.0;
        let first = u16::from_be_bytes(data.port);
        let last = first | u16::MAX.checked_shr(bits.saturating_sub(RangeKey::PORT_AT)).unwrap_or(0);
        write!(f, "{}/{}", At(data.address, format_args!("{first}-{last}")), protocol(data.protocol))
    }
}

/// A prefix in the family's own bits.
struct Range(TrieKey<PrefixKey>);

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = self.0.bits.saturating_sub(PrefixKey::ADDRESS_AT);
        let address = narrow(self.0.data.address);
        let bits = if address.is_ipv4() { bits.saturating_sub(96) } else { bits };
        write!(f, "{address}/{bits}")
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
                    narrow(entry.address),
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
            Self::WriteSchedule { start, turns } => {
                write!(f, "+ schedule of {} turns at {start}", turns.len())
            }
            Self::PutPolicy(id, entry) if *entry == PolicyEntry::default() => {
                write!(f, "- policy of service id {id}")
            }
            Self::PutPolicy(id, _) => write!(f, "~ policy of service id {id}"),
            Self::PutWeight(id, weight) => write!(f, "~ weight of backend id {}: {weight}", id.get()),
            Self::PutLoad(id, entry) => {
                write!(f, "+ load of backend id {}: {}, weight {}", id.get(), entry.load, entry.weight)
            }
            Self::PutControl(control) => write!(f, "~ control: generation {}", control.generation),
            Self::PutService(key, entry) => write!(f, "+ service {} (id {})", Key(*key), entry.id),
            Self::DeleteService(key) => write!(f, "- service {}", Key(*key)),
            Self::TakeServiceId(id) => write!(f, "+ service id {id}"),
            Self::PutRates(id, _) => write!(f, "~ limits of service id {id}"),
            Self::PutAcl { list, entries } => {
                write!(f, "+ source list {list:08x}: {} entries", entries.len())
            }
            Self::KeepAcl(lists) => write!(f, "- source lists but {} that are in use", lists.len()),
            Self::PutQuic(key, id) => {
                write!(
                    f,
                    "+ QUIC server id {:#x} of service id {}: backend id {}",
                    key.server,
                    key.service,
                    id.get()
                )
            }
            Self::DeleteQuic(key) => {
                write!(f, "- QUIC server id {:#x} of service id {}", key.server, key.service)
            }
            Self::PutRange(key, entry) => write!(f, "+ service {} (id {})", Block(*key), entry.id),
            Self::DeleteRange(key) => write!(f, "- service {}", Block(*key)),
            Self::PutPrefix(key, entry) => write!(f, "+ prefix {}: {}", entry.number, Range(*key)),
            Self::DeletePrefix(key) => write!(f, "- prefix {}", Range(*key)),
            Self::PutVip(key, _) => write!(f, "+ vip {}", narrow(key.address)),
            Self::DeleteVip(key) => write!(f, "- vip {}", narrow(key.address)),
            Self::DeleteFlow(_, key, _) => {
                write!(f, "- flow {}", At(key.source, u16::from_be_bytes(key.source_port)))
            }
        }
    }
}
