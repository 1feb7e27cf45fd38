//! From what is to what shall be: [`plan`] compares the observed data plane with the desired one and says what to do,
//! in an order in which no packet ever sees a half-made state. Pure: it touches nothing.
//!
//! Laws: executing a plan makes the desired state; planning again gives nothing; after every single step
//! each service's ring names only backends that exist.

mod desired;
mod observed;
mod pool;
mod ports;
mod rings;
mod services;
mod step;
mod sweep;

pub use desired::{Desired, DesiredBackend, DesiredPort, DesiredService, Tunnel};
pub use observed::{Observed, Size};
pub use rings::Memo;
pub use step::{Plan, Step};
pub use sweep::{Changes, sweep};

use std::net::Ipv4Addr;

use crate::model::ServiceId;
use lb_common::abi::{ABI_VERSION, Control, VipEntry, VipKey};

/// Why a desired state cannot be had. Nothing has been changed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PlanError {
    /// A map is too small.
    #[error(
        "{what}: {needed} needed, room for {capacity}; raise limits.{limit}, then detach and attach again"
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
    /// No gap in the ring pool is large enough.
    #[error(
        "service {service}: no room for a ring of {size} slots in a pool of {capacity}; \
         raise limits.ring_slots, then detach and attach again"
    )]
    RingPoolFull {
        /// The service.
        service: ServiceId,
        /// Its ring's size in slots.
        size: u32,
        /// The pool's size in slots.
        capacity: u32,
    },
    /// A ring's size is fixed when its service is created.
    #[error(
        "service {service}: ring_size is {current} and cannot become {wanted} while it runs; \
         remove the service and apply, then add it again (its connections break)"
    )]
    RingResized {
        /// The service.
        service: ServiceId,
        /// Size of the ring it has.
        current: u32,
        /// Size asked for.
        wanted: u32,
    },
    /// More backends than slots.
    #[error(
        "service {service}: backend {backend} would get no slot of {size}; raise the service's ring_size"
    )]
    NoSlot {
        /// The service.
        service: ServiceId,
        /// The backend.
        backend: Ipv4Addr,
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

/// Plans the way from `observed` to `desired`; every obstacle at once if there is none. `memo` only saves time.
pub fn plan(observed: &Observed, desired: &Desired, memo: &mut Memo) -> Result<Plan, Vec<PlanError>> {
    let mut errors = Vec::new();
    let ports = ports::assign(observed, desired).map_err(|error| errors.push(error)).unwrap_or_default();
    let services = services::assign(observed, desired, &ports, memo, &mut errors);
    let control = control(observed, desired, &mut errors);
    let vips = vips(desired);
    if vips.len() as u64 > u64::from(observed.size.vips) {
        errors.push(PlanError::Full {
            what: "service addresses",
            needed: vips.len() as u64,
            capacity: observed.size.vips.into(),
            limit: "services",
        });
    }
    if !errors.is_empty() {
        return Err(errors);
    }

    let mut steps = Vec::new();
    steps.extend(ports.new.iter().map(|(number, entry)| Step::PutPort(*number, *entry)));
    // Who is to receive is there before any slot names it; who is not any more, only after the slots have moved.
    let (last, first): (Vec<_>, Vec<_>) = services.backends.iter().partition(|put| put.goes_down());
    steps.extend(first.iter().map(|put| put.step()));
    steps.extend(
        services.rings.iter().map(|(start, words)| Step::WriteSlots { start: *start, words: words.clone() }),
    );
    steps.extend(last.iter().map(|put| put.step()));
    if control != observed.control {
        steps.push(Step::PutControl(control));
    }
    steps.extend(services.entries.iter().map(|(key, entry)| Step::PutService(*key, *entry)));
    // First those that go, which no wanted service has: the map may have no room for both.
    steps
        .extend(observed.vips.keys().filter(|key| !vips.contains_key(*key)).map(|key| Step::DeleteVip(*key)));
    let changed = vips.iter().filter(|(key, entry)| observed.vips.get(*key) != Some(*entry));
    steps.extend(changed.map(|(key, entry)| Step::PutVip(*key, *entry)));
    steps.extend(services.gone.iter().map(|key| Step::DeleteService(*key)));
    steps.extend(services.retired.iter().map(|id| Step::RetireBackend(*id)));
    steps.extend(ports.gone.iter().map(|number| Step::DeletePort(*number)));
    Ok(Plan { steps })
}

fn control(observed: &Observed, desired: &Desired, errors: &mut Vec<PlanError>) -> Control {
    let hash_key = Control::key_from_bytes(desired.hash_key);
    if observed.control.abi_version != 0 && observed.control.hash_key != hash_key {
        errors.push(PlanError::HashKeyChanged);
    }
    let policy = desired.vips.values().any(|entry| entry.flags & VipEntry::DROP_OTHER_PORTS != 0);
    Control {
        abi_version: ABI_VERSION,
        flags: if policy { Control::VIP_POLICY } else { 0 },
        hash_key,
        generation: desired.generation,
    }
}

fn vips(desired: &Desired) -> std::collections::BTreeMap<VipKey, VipEntry> {
    desired.vips.iter().map(|(address, entry)| (VipKey::v4(address.octets()), *entry)).collect()
}
