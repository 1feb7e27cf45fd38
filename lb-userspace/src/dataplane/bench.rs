//! Runs packets through a program many times over, each time as if it were the first, and says how long that takes.
//!
//! For benchmarks and floods: what a packet should cost, or do, is for the caller to say.

use aya::maps::{Array, MapData, ProgramArray};
use aya::programs::{ProgramFd, TestRun as _, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader, Pod};
use lb_common::abi::names::BALANCER_PROGRAM;

use self::layout::{FIRST_PORT, TEMPLATE_WORDS, Task};
use super::{Error, TestProgram, object};

#[path = "../../../lb-ebpf/src/bench.rs"]
mod layout;

static BENCH: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/bench"));

const PROGRAM: &str = "lb_bench";
const TASK: &str = "TASK";
const TARGET: &str = "TARGET";

/// How much of a frame can be restored between two runs, in bytes.
pub const RESTORABLE: usize = TEMPLATE_WORDS * 8;
/// Bytes that an output may be longer than its input.
const GROWTH: usize = 256;

// SAFETY: integers without padding, as the order of the fields shows.
unsafe impl Pod for Task {}

/// The least that a program can do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Floor {
    /// The verdict alone.
    Transmit,
    /// Ethernet, IPv4 and TCP read, MAC addresses swapped.
    Swap,
    /// IPv4 in IPv4 to a constant destination, nothing looked up.
    Encapsulate,
}

impl Floor {
    fn program(self) -> &'static str {
        match self {
            Self::Transmit => "lb_floor_tx",
            Self::Swap => "lb_floor_swap",
            Self::Encapsulate => "lb_floor_encap",
        }
    }
}

/// What differs between the packets of one run. Offsets are bytes from the frame's first. Checksums stay as they are.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Vary {
    /// Flows that take turns: source ports count up from 1024, 60,000 per address, then the address does. 0 and 1
    /// leave addresses and ports alone.
    pub flows: u32,
    /// Where the last four bytes of the source address are.
    pub address_at: u16,
    /// Last four bytes of the first source address, in host order.
    pub first_address: u32,
    /// Where the source port is.
    pub port_at: u16,
    /// Destination addresses that take turns; 0 and 1 leave them alone.
    pub services: u32,
    /// Where the last four bytes of the destination address are.
    pub service_at: u16,
    /// Last four bytes of the first destination address, in host order.
    pub first_service: u32,
}

/// One packet, many times.
#[derive(Clone, Copy, Debug)]
pub struct Repeated<'a> {
    /// The frame; at least as long as what is restored of it.
    pub frame: &'a [u8],
    /// How many bytes at its beginning the program overwrites; at most [`RESTORABLE`].
    pub restore: usize,
    /// What changes from iteration to iteration.
    pub vary: Vary,
    /// Number of the first iteration: where to begin among the flows and the destination addresses.
    pub first: u32,
    /// Iterations before the clock starts.
    pub warm_up: u32,
    /// Iterations that are timed, and one: the last one's beginning ends the time.
    pub iterations: u32,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Mean time of a timed iteration, wrapper included, in nanoseconds.
    pub ns: f64,
    /// All iterations that were made.
    pub iterations: u32,
    /// XDP action of the last one.
    pub action: u32,
    /// Frame after the last one.
    pub output: Vec<u8>,
}

/// The wrapper before one program.
pub struct Stopwatch {
    object: Ebpf,
    task: Array<MapData, Task>,
    // The kernel empties the array when nobody in userspace has it open.
    _target: ProgramArray<MapData>,
}

impl Stopwatch {
    /// Before a floor.
    pub fn floor(floor: Floor) -> Result<Self, Error> {
        let mut object = EbpfLoader::new().load(BENCH).map_err(Error::load)?;
        let program = object::program(&mut object, floor.program())?;
        let fd = duplicate(program, floor.program())?;
        Self::before(object, &fd)
    }

    /// Before the balancer of a pinned data plane.
    pub fn balancer(target: &mut TestProgram) -> Result<Self, Error> {
        let object = EbpfLoader::new().load(BENCH).map_err(Error::load)?;
        let fd = duplicate(target.program()?, BALANCER_PROGRAM)?;
        Self::before(object, &fd)
    }

    fn before(mut object: Ebpf, fd: &ProgramFd) -> Result<Self, Error> {
        let target = object.take_map(TARGET).ok_or(Error::Missing(TARGET))?;
        let mut target = ProgramArray::try_from(target).map_err(Error::map(TARGET))?;
        target.set(0, fd, 0).map_err(Error::map(TARGET))?;
        let task = object.take_map(TASK).ok_or(Error::Missing(TASK))?;
        let task = Array::try_from(task).map_err(Error::map(TASK))?;
        object::program(&mut object, PROGRAM)?;
        Ok(Self { object, task, _target: target })
    }

    /// Runs it all in one system call, on the CPU that the calling thread is on.
    pub fn run(&mut self, repeated: &Repeated<'_>) -> Result<Outcome, Error> {
        let repeat = repeated.warm_up + repeated.iterations + 1;
        self.task.set(0, task(repeated, repeat), 0).map_err(Error::map(TASK))?;
        let mut output = vec![0; repeated.frame.len() + GROWTH];
        let options = TestRunOptions {
            data_in: Some(repeated.frame),
            data_out: Some(&mut output),
            repeat,
            ..Default::default()
        };
        let refused = |source| Error::Program { program: PROGRAM, source };
        let program = self.object.program_mut(PROGRAM).ok_or(Error::Missing(PROGRAM))?;
        let program: &mut Xdp = program.try_into().map_err(refused)?;
        let result = program.test_run(options).map_err(refused)?;
        output.truncate(result.data_size_out as usize);
        let done = self.task.get(&0, 0).map_err(Error::map(TASK))?;
        Ok(Outcome {
            ns: done.ended_ns.saturating_sub(done.started_ns) as f64 / f64::from(repeated.iterations),
            iterations: done.done,
            action: result.return_value,
            output,
        })
    }
}

fn duplicate(program: &Xdp, name: &'static str) -> Result<ProgramFd, Error> {
    let fd = program.fd().map_err(|source| Error::Program { program: name, source })?;
    fd.try_clone().map_err(|source| Error::Program { program: name, source: source.into() })
}

fn task(repeated: &Repeated<'_>, iterations: u32) -> Task {
    let Repeated { frame, restore, vary, first, warm_up, .. } = *repeated;
    let flow = first % vary.flows.max(1);
    let per_address = u32::from(layout::PORTS_PER_ADDRESS);
    let mut template = [0; TEMPLATE_WORDS];
    for (word, bytes) in template.iter_mut().zip(frame.chunks_exact(8)) {
        *word = u64::from_ne_bytes(bytes.try_into().unwrap_or_default());
    }
    Task {
        template,
        frame_len: frame.len() as u32,
        restore_words: restore.div_ceil(8) as u32,
        warm_up,
        iterations,
        address_at: vary.address_at,
        port_at: vary.port_at,
        service_at: vary.service_at,
        first_address: vary.first_address,
        flows: vary.flows,
        first_service: vary.first_service,
        services: vary.services,
        flow,
        address: vary.first_address + flow / per_address,
        port: u32::from(FIRST_PORT) + flow % per_address,
        service: first % vary.services.max(1),
        ..Task::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_task_starts_where_the_first_flow_is() {
        let vary = Vary { flows: 1_000_000, first_address: 100, services: 7, ..Vary::default() };
        let repeated =
            Repeated { frame: &[1; 16], restore: 14, vary, first: 2_120_003, warm_up: 1, iterations: 5 };
        let task = task(&repeated, 7);
        assert_eq!((task.flow, task.address, task.port), (120_003, 102, 1027));
        assert_eq!(task.service, 2_120_003 % 7);
        assert_eq!((task.restore_words, task.template[1], task.template[2]), (2, 0x0101_0101_0101_0101, 0));
    }
}
