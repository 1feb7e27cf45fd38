//! What can happen, and how often it does.

/// The finalizer of SplitMix64 over a counter (Steele, Lea, Flood, OOPSLA 2014): enough for histories, and the same
/// everywhere.
#[derive(Clone, Debug)]
pub struct Rng(pub u64);

impl Rng {
    /// The next 64 bits.
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let word = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.word() % end.max(1)
    }
}

/// One thing that happens; a second passes after each. Whoever is meant by a number is found by it modulo how many
/// there are, so that every history makes sense, also one of which parts have been taken away.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action {
    /// Nothing.
    Wait,
    /// A flow begins; how it behaves from then on follows from the number.
    Open(u64),
    /// A flow ends in order.
    Close(u16),
    /// A client says that it has said everything, and listens on.
    HalfClose(u16),
    /// A client resets its flow.
    Reset(u16),
    /// A client is gone without a word.
    Vanish(u16),
    /// A client that has ended a flow begins another from the same port.
    Reuse(u16),
    /// Somebody else sends an RST in a flow's name.
    SpoofReset(u16),
    /// Somebody else sends a FIN in a flow's name.
    SpoofFin(u16),
    /// Somebody else sends a SYN in a flow's name.
    SpoofHello(u16),
    /// A backend gets another weight; if it was not there or was draining, it is added with it.
    Weigh(u8, u8),
    /// A backend drains.
    Drain(u8),
    /// A backend leaves, if nobody is left on it; otherwise it drains.
    Remove(u8),
    /// A backend leaves at once, and its flows with it.
    Drop(u8),
    /// A backend fails.
    Fail(u8),
    /// A backend is there again.
    Recover(u8),
    /// All rings get another size.
    Resize(u8),
    /// Slots go by the client's address or the whole flow, and all flows are recorded or not.
    Settings(u8),
    /// Backends are reached by other outer headers, or by none.
    Tunnel(u8),
    /// The daemon is killed, and another one is there at once.
    Restart,
    /// The daemon is killed, and the next one comes so many seconds later.
    Absence(u8),
    /// At the next change the daemon is killed after so many steps, and another one is there at once.
    KillAfter(u8),
}

impl Action {
    /// One by chance, as often as is usual: mostly clients come and go.
    pub fn random(word: u64) -> Self {
        let mut rng = Rng(word);
        let (what, which, other) = (rng.below(1000), rng.word() as u16, rng.word() as u8);
        let backend = which as u8;
        match what {
            0..300 => Self::Open(rng.word()),
            300..430 => Self::Close(which),
            430..460 => Self::HalfClose(which),
            460..490 => Self::Reset(which),
            490..520 => Self::Vanish(which),
            520..540 => Self::Reuse(which),
            540..550 => Self::SpoofReset(which),
            550..555 => Self::SpoofFin(which),
            555..565 => Self::SpoofHello(which),
            565..573 => Self::Weigh(backend, other),
            573..577 => Self::Drain(backend),
            577..580 => Self::Remove(backend),
            580..581 => Self::Drop(backend),
            581..584 => Self::Fail(backend),
            584..588 => Self::Recover(backend),
            588..590 => Self::Restart,
            590..591 => Self::Absence(other),
            591..595 => Self::KillAfter(other),
            595..596 => Self::Resize(other),
            596..597 => Self::Settings(other),
            597..598 => Self::Tunnel(other),
            _ => Self::Wait,
        }
    }

    /// A whole history.
    pub fn history(seed: u64, len: usize) -> Vec<Self> {
        let mut rng = Rng(seed);
        (0..len).map(|_| Self::random(rng.word())).collect()
    }
}
