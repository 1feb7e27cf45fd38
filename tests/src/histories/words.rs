//! Words of slots, put together as no rule of the engine would: for breaking rules.

use lb_common::abi::{BackendId, Slot};

/// A fresh slot of these owners.
pub fn fresh(current: BackendId, previous: BackendId) -> Slot {
    Slot(u64::from(current.get()) | u64::from(previous.get()) << 28 | 1 << 56)
}
