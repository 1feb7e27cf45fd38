//! A ring slot: one u64, replaced by one atomic store.

use super::BackendId;

/// Width of a backend id within a slot.
const ID_BITS: u32 = 28;
const ID_MASK: u64 = (1 << ID_BITS) - 1;
/// The state of a fresh slot.
const FRESH: u64 = 1 << (2 * ID_BITS);

/// Current owner (bits 0–27), previous owner (28–55), state (56–57). Zero is a slot that nobody owns.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(transparent)]
pub struct Slot(pub u64);

/// How far a slot's last change of owner has settled.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SlotState {
    /// Every live flow in the slot is on the current owner: no flow table is consulted.
    Settled,
    /// The owner changed lately: unknown flows may be older than the change and belong to the previous owner.
    Fresh,
    /// An idle time has passed since the change: every live older flow has been seen and recorded.
    Late,
}

impl Slot {
    /// A slot that has only ever had this owner.
    pub const fn settled(current: BackendId) -> Self {
        Self(current.get() as u64 | (current.get() as u64) << ID_BITS)
    }

    /// A slot of this owner in which flows may live elsewhere that nobody but the flow tables knows of.
    pub const fn unsettled(current: BackendId) -> Self {
        Self(Self::settled(current).0 | FRESH)
    }

    /// Backend that takes new flows.
    #[inline(always)]
    pub const fn current(self) -> BackendId {
        BackendId::truncated(self.0 & ID_MASK)
    }

    /// Backend that had the slot before its first unsettled change.
    #[inline(always)]
    pub const fn previous(self) -> BackendId {
        BackendId::truncated((self.0 >> ID_BITS) & ID_MASK)
    }

    /// State; the unused fourth value reads as late, the state that trusts the slot least.
    #[inline(always)]
    pub const fn state(self) -> SlotState {
        match self.0 >> (2 * ID_BITS) & 3 {
            0 => SlotState::Settled,
            1 => SlotState::Fresh,
            _ => SlotState::Late,
        }
    }

    /// The slot after its ownership moves to `owner`.
    ///
    /// A settled slot becomes fresh and remembers its owner as previous. An unsettled one keeps its *oldest* previous
    /// and stays unsettled even where both owners become equal again: flows recorded in between are elsewhere.
    #[must_use]
    pub const fn moved_to(self, owner: BackendId) -> Self {
        // One that lost its owner only for want of another is not new: it remembers whose it was.
        let new = self.0 == 0;
        if new {
            return Self::settled(owner);
        }
        if self.current().get() == owner.get() {
            return self;
        }
        let previous = match self.state() {
            SlotState::Settled => self.current(),
            SlotState::Fresh | SlotState::Late => self.previous(),
        };
        Self(owner.get() as u64 | (previous.get() as u64) << ID_BITS | FRESH)
    }

    /// The slot before a planned change: its owner stays for now, and from here on its flows are recorded, so that a
    /// SYN that is repeated across the change finds its flow. One that nobody owned has no flows.
    #[must_use]
    pub const fn marked(self) -> Self {
        match self.state() {
            SlotState::Settled if self.0 != 0 => Self::unsettled(self.current()),
            _ => self,
        }
    }

    /// The slot when an idle time has passed since its last change.
    #[must_use]
    pub const fn late(self) -> Self {
        match self.state() {
            SlotState::Settled => self,
            SlotState::Fresh | SlotState::Late => Self(self.0 & !(3 << (2 * ID_BITS)) | 2 << (2 * ID_BITS)),
        }
    }

    /// The slot without `gone` as its previous owner: a backend that is down never receives, so unknown flows go to
    /// the current owner either way, and the id can be used again.
    #[must_use]
    pub const fn forgetting(self, gone: BackendId) -> Self {
        if self.previous().get() != gone.get() || self.current().get() == gone.get() {
            return self;
        }
        Self(self.0 & !(ID_MASK << ID_BITS) | (self.current().get() as u64) << ID_BITS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(n: u32) -> BackendId {
        BackendId::new(n).unwrap()
    }

    #[test]
    fn an_unowned_slot_settles_on_its_first_owner() {
        assert_eq!(Slot::default().moved_to(id(7)), Slot::settled(id(7)));
    }

    #[test]
    fn the_oldest_previous_owner_is_kept() {
        let slot = Slot::settled(id(1)).moved_to(id(2)).moved_to(id(3));
        assert_eq!((slot.current(), slot.previous(), slot.state()), (id(3), id(1), SlotState::Fresh));
    }

    #[test]
    fn coming_back_to_the_previous_owner_stays_unsettled() {
        let slot = Slot::settled(id(1)).moved_to(id(2)).moved_to(id(1));
        assert_eq!((slot.current(), slot.previous(), slot.state()), (id(1), id(1), SlotState::Fresh));
    }

    #[test]
    fn time_makes_a_fresh_slot_late_and_another_change_fresh_again() {
        assert_eq!(Slot::settled(id(1)).late(), Slot::settled(id(1)));
        let slot = Slot::settled(id(1)).moved_to(id(2)).late();
        assert_eq!((slot.current(), slot.previous(), slot.state()), (id(2), id(1), SlotState::Late));
        let slot = slot.moved_to(id(3));
        assert_eq!((slot.current(), slot.previous(), slot.state()), (id(3), id(1), SlotState::Fresh));
    }

    #[test]
    fn a_mark_changes_no_owner_and_the_change_behind_it_remembers_the_same_one() {
        let slot = Slot::settled(id(1)).marked();
        assert_eq!((slot.current(), slot.previous(), slot.state()), (id(1), id(1), SlotState::Fresh));
        assert_eq!(slot.moved_to(id(2)), Slot::settled(id(1)).moved_to(id(2)));
        for unsettled in [slot, slot.late(), slot.moved_to(id(2)), slot.moved_to(id(2)).late()] {
            assert_eq!(unsettled.marked(), unsettled, "older flows are remembered already");
        }
        assert_eq!(Slot::default().marked(), Slot::default(), "nobody has flows there");
    }

    #[test]
    fn a_forgotten_previous_owner_is_replaced_by_the_current_one() {
        let slot = Slot::settled(id(1)).moved_to(id(2)).forgetting(id(1));
        assert_eq!((slot.current(), slot.previous(), slot.state()), (id(2), id(2), SlotState::Fresh));
    }

    proptest! {
        #[test]
        fn fields_do_not_overlap(a in 1u32..1 << 28, b in 1u32..1 << 28) {
            let slot = Slot::settled(id(a)).moved_to(id(b));
            prop_assert_eq!(slot.current(), id(b));
            prop_assert_eq!(slot.previous(), id(a));
            prop_assert_eq!(slot.state(), if a == b { SlotState::Settled } else { SlotState::Fresh });
        }
    }
}
