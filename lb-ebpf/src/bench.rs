//! What the benchmark's userspace asks of its wrapper program, and what it is told: the one value of map `TASK`.
//!
//! Shared by inclusion with `lb-userspace`, which cannot depend on this crate: nothing here may need the kernel side.

/// Words of [`Task::template`].
pub const TEMPLATE_WORDS: usize = 16;

/// First source port of varied flows; the address counts on where the ports begin again.
pub const FIRST_PORT: u16 = 1024;
/// Source ports per address.
pub const PORTS_PER_ADDRESS: u16 = 60_000;

/// The wrapper's only settings and state. Offsets are bytes from the frame's first; 0 leaves a field alone.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(C)]
pub struct Task {
    /// What the frame begins with, in memory order.
    pub template: [u64; TEMPLATE_WORDS],
    /// When the iteration after the warm-up began, monotonic clock in nanoseconds.
    pub started_ns: u64,
    /// When the last iteration began.
    pub ended_ns: u64,
    /// Length of the frame in bytes.
    pub frame_len: u32,
    /// Words of the template to write back before each iteration: 0, 2, 8 or 16.
    pub restore_words: u32,
    /// Iterations before the clock starts.
    pub warm_up: u32,
    /// All iterations; the clock stops when the last one begins.
    pub iterations: u32,
    /// Where the last four bytes of the source address are.
    pub address_at: u16,
    /// Where the source port is.
    pub port_at: u16,
    /// Where the last four bytes of the destination address are.
    pub service_at: u16,
    /// Zero.
    pub reserved: u16,
    /// Last four bytes of the first source address, in host order.
    pub first_address: u32,
    /// Flows that take turns.
    pub flows: u32,
    /// Last four bytes of the first destination address, in host order.
    pub first_service: u32,
    /// Destination addresses that take turns.
    pub services: u32,
    /// Iterations so far.
    pub done: u32,
    /// The next iteration's flow.
    pub flow: u32,
    /// Last four bytes of its source address.
    pub address: u32,
    /// Its source port.
    pub port: u32,
    /// The next iteration's destination address, counted from the first.
    pub service: u32,
    /// Zero.
    pub padding: u32,
}
