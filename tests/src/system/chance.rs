//! Chance that can be had again: its seed is printed, and taken from `LB_TEST_SEED`.

use std::cell::RefCell;
use std::ops::Range;

/// Random numbers.
#[derive(Debug)]
pub struct Chance(RefCell<fastrand::Rng>);

impl Default for Chance {
    fn default() -> Self {
        Self::new()
    }
}

impl Chance {
    /// Another seed each time, unless one is given.
    pub fn new() -> Self {
        let given = std::env::var("LB_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| fastrand::u64(..));
        println!("LB_TEST_SEED={seed}");
        Self(RefCell::new(fastrand::Rng::with_seed(seed)))
    }

    /// A number of this range.
    pub fn pick(&self, range: Range<u16>) -> u16 {
        self.0.borrow_mut().u16(range)
    }
}
