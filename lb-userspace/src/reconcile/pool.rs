//! Room in the ring pool.

/// The pool's occupied ranges.
pub(super) struct Pool {
    capacity: u32,
    /// (start, size), sorted by start, disjoint.
    taken: Vec<(u32, u32)>,
}

impl Pool {
    pub(super) fn new(capacity: u32, taken: impl IntoIterator<Item = (u32, u32)>) -> Self {
        let mut taken: Vec<_> = taken.into_iter().collect();
        taken.sort_unstable();
        Self { capacity, taken }
    }

    /// Whether there would be a gap of `size` slots if a range that is taken were not.
    pub(super) fn has_room_without(&self, range: (u32, u32), size: u32) -> bool {
        let others = self.taken.iter().copied().filter(|taken| *taken != range);
        Self::new(self.capacity, others).take(size).is_some()
    }

    /// Takes the first gap of `size` slots; its start.
    pub(super) fn take(&mut self, size: u32) -> Option<u32> {
        let mut start = 0u32;
        let mut position = 0;
        for (index, (taken, length)) in self.taken.iter().enumerate() {
            if taken.saturating_sub(start) >= size {
                break;
            }
            start = taken + length;
            position = index + 1;
        }
        if self.capacity.checked_sub(start)? < size {
            return None;
        }
        self.taken.insert(position, (start, size));
        Some(start)
    }
}

#[cfg(test)]
mod tests {
    use super::Pool;

    #[test]
    fn gaps_are_filled_first() {
        let mut pool = Pool::new(100, [(60, 10), (0, 20)]);
        assert_eq!(pool.take(40), Some(20));
        assert_eq!(pool.take(31), None);
        assert_eq!(pool.take(30), Some(70));
        assert_eq!(pool.take(1), None);
    }

    #[test]
    fn a_range_that_goes_makes_room() {
        let pool = Pool::new(100, [(0, 20), (40, 30), (90, 10)]);
        assert!(!pool.has_room_without((0, 20), 41));
        assert!(pool.has_room_without((40, 30), 70));
        assert!(!pool.has_room_without((40, 30), 71));
        assert!(pool.has_room_without((7, 7), 20), "one that is not there");
    }

    #[test]
    fn an_empty_pool_starts_at_zero() {
        assert_eq!(Pool::new(10, []).take(10), Some(0));
        assert_eq!(Pool::new(9, []).take(10), None);
    }
}
