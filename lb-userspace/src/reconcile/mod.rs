//! From what is to what shall be: [`plan`] compares the observed data plane with the desired one and says what to do,
//! in an order in which no packet ever sees a half-made state. Pure: it touches nothing.
//!
//! Laws: executing plans until none is due makes the desired state; planning again gives nothing; after every single
//! step each service's ring names only backends that exist, and no flow whose backend lives has lost it.

mod address;
mod backend;
mod bigger;
mod desired;
mod history;
mod keys;
mod layout;
mod lists;
mod loads;
mod needs;
mod observed;
mod policies;
mod pool;
mod ports;
mod record;
mod rings;
mod room;
mod services;
mod step;
mod sweep;

pub use address::{TrieKey, narrow, wide};
pub use desired::{Desired, DesiredBackend, DesiredHop, DesiredPort, DesiredService, DesiredTunnel};
pub use history::{History, Terms};
pub use keys::key_count;
pub use lists::AclEntries;
pub use loads::corrections;
pub use observed::{Flow, FlowSizes, Observed, Size};
pub use rings::Memo;
pub use step::{Plan, Step};
pub use sweep::{Census, Sweep};

use std::net::IpAddr;
use std::time::Duration;

use crate::model::ServiceId;
use keys::Keys;
use lb_common::abi::{ABI_VERSION, Control, VipEntry};
use room::Strictness;

/// Why a desired state cannot be had. Nothing has been changed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PlanError {
    /// A map is too small.
    #[error(
        "{what}: {needed} needed, room for {capacity}; raise limits.{limit} if it is set, and start the daemon again: the maps move to a new size without a gap"
    )]
    Full {
        /// What there are too many of.
        what: &'static str,
        /// How many the config needs.
        needed: u64,
        /// How many there is room for.
        capacity: u64,
        /// The config's key.
        limit: &'static str,
    },
    /// There is no room for so many, and no limit to raise.
    #[error("{what}: {needed} needed, and there is room for {capacity}")]
    TooMany {
        /// What there are too many of.
        what: &'static str,
        /// How many the config needs.
        needed: u64,
        /// How many there is room for.
        capacity: u64,
    },
    /// No gap in the ring pool is large enough.
    #[error(
        "service {service}: no room for a {what} of {size} slots in a pool of {capacity}; \
         raise limits.ring_slots if it is set, and start the daemon again: the pool moves to a new size without a gap"
    )]
    RingPoolFull {
        /// Its ring or its schedule.
        what: &'static str,
        /// The service.
        service: ServiceId,
        /// The size in slots.
        size: u32,
        /// The pool's size in slots.
        capacity: u32,
    },
    /// More backends than slots.
    #[error(
        "service {service}: backend {backend} would get no slot of {size}; raise the service's ring_size"
    )]
    NoSlot {
        /// The service.
        service: ServiceId,
        /// The backend.
        backend: IpAddr,
        /// Its ring's size in slots.
        size: u32,
    },
    /// Every flow would move.
    #[error(
        "the hash key (cluster.key_file) cannot change while the data plane runs: every connection would move; \
         detach and attach again"
    )]
    HashKeyChanged,
}

impl PlanError {
    /// What it means for a service that goes without, in words.
    pub fn without(&self) -> &'static str {
        match self {
            Self::RingPoolFull { what: "schedule", .. } => {
                "new flows of a service go by its ring, not by its algorithm"
            }
            Self::NoSlot { .. } => "a backend gets no new flows: there are more backends than slots",
            _ => "a service stays as it was",
        }
    }
}

/// How long flows of a slot are recorded before a planned change of its owner: a SYN that is repeated across the change
/// finds its flow (the first repetition is due after a second, RFC 6298 section 2).
pub const STEP_WAIT: Duration = Duration::from_secs(1);
const STEP_WAIT_NS: u64 = STEP_WAIT.as_nanos() as u64;

/// Plans the way from `observed` to `desired`, or its next part; every obstacle at once if there is none. `memo` only
/// saves time.
pub fn plan(
    observed: &Observed,
    desired: &Desired,
    memo: &mut Memo,
    history: &History,
) -> Result<Plan, Vec<PlanError>> {
    planned(observed, desired, (memo, history, Strictness::Whole))
}

/// The same for a config that is in force, of which only what backends get has changed: a service that cannot have what
/// it should have for that goes without, see [`Plan::lacking`], and keeps nobody else waiting.
pub fn follow(
    observed: &Observed,
    desired: &Desired,
    memo: &mut Memo,
    history: &History,
) -> Result<Plan, Vec<PlanError>> {
    planned(observed, desired, (memo, history, Strictness::AsFarAsCanBe))
}

fn planned(
    observed: &Observed,
    desired: &Desired,
    by: (&mut Memo, &History, Strictness),
) -> Result<Plan, Vec<PlanError>> {
    let mut errors = Vec::new();
    let ports = ports::assign(observed, desired).map_err(|error| errors.push(error)).unwrap_or_default();
    let mut services = services::assign(observed, desired, &ports, by, &mut errors);
    let keys = Keys::new(observed, desired, &services.entries, &mut errors);
    let control = control(observed, desired, &keys, &mut errors);
    services.check_room(&mut errors);
    if !errors.is_empty() {
        return Err(errors);
    }

    let mut steps = Vec::new();
    steps.extend(ports.new.iter().map(|(number, entry)| Step::PutPort(*number, *entry)));
    // Who is to receive is there before any slot names it; who is not any more, only after the slots have moved.
    let (last, first): (Vec<_>, Vec<_>) = services.backends.iter().partition(|put| put.goes_down());
    steps.extend(first.iter().map(|put| put.step()));
    let rings = std::mem::take(&mut services.rings);
    steps.extend(rings.into_iter().map(|(start, words)| Step::WriteSlots { start, words }));
    services.policies.steps(observed, &mut steps);
    steps.extend(last.iter().map(|put| put.step()));
    // What a service needs is there before anything names it, and goes when nothing does any more.
    services.needs(observed, &mut steps);
    let mut by_key = Vec::new();
    keys.steps(observed, &mut by_key);
    // Flags say where to look: there is nothing yet, or nothing any more, while they say too much.
    let flags = control.flags | observed.control.flags;
    // Keys may have been changing when the one before us ended.
    let epoch = observed.control.epoch;
    let changing = if by_key.is_empty() { epoch } else { Control::changing(epoch) };
    let between = Control { flags, epoch: changing, ..control };
    let control =
        if changing & 1 == 0 { control } else { Control { epoch: Control::changed(epoch), ..control } };
    if between != observed.control {
        steps.push(Step::PutControl(between));
    }
    steps.extend(by_key);
    services.leftovers(observed, &mut steps);
    steps.extend(services.retired.iter().map(|id| Step::RetireBackend(*id)));
    steps.extend(ports.gone.iter().map(|number| Step::DeletePort(*number)));
    if control != between {
        steps.push(Step::PutControl(control));
    }
    Ok(Plan { steps, due_ns: services.due_ns, terms: services.terms, lacking: services.lacking })
}

fn control(observed: &Observed, desired: &Desired, keys: &Keys, errors: &mut Vec<PlanError>) -> Control {
    let hash_key = Control::key_from_bytes(desired.hash_key);
    if observed.control.abi_version != 0 && observed.control.hash_key != hash_key {
        errors.push(PlanError::HashKeyChanged);
    }
    let policy = desired.vips.values().any(|entry| entry.flags & VipEntry::DROP_OTHER_PORTS != 0);
    let flag = |set: bool, flag: u32| if set { flag } else { 0 };
    Control {
        abi_version: ABI_VERSION,
        flags: flag(policy, Control::VIP_POLICY)
            | flag(keys.has_ranges(), Control::RANGES)
            | flag(keys.has_prefixes(), Control::PREFIXES),
        hash_key,
        generation: desired.generation,
        epoch: observed.control.epoch,
        sampling: observed.control.sampling,
    }
}

/// After how long a silence a service's flow is dead, in nanoseconds.
fn idle_ns(entry: &lb_common::abi::ServiceEntry) -> u64 {
    u64::from(entry.idle_ms) * 1_000_000
}
