//! The embedded BPF objects.

use std::path::PathBuf;
use std::time::Duration;

use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions, TestRunResult, Xdp};
use aya::{Ebpf, EbpfLoader, VerifierLogLevel};
use lb_common::abi::names::*;

use super::{Error, Pins, capacity, stages};
use crate::reconcile::Size;

static BALANCER: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/balancer"));
pub(super) static DECAP: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/decap"));

/// Loads the balancer's object for the interface with number `port`, on pinned maps: those that exist are used as they
/// are, those that do not are created with these sizes.
pub(super) fn balancer(pins: &Pins, size: &Size, port: u16) -> Result<Ebpf, Error> {
    let mut loader = EbpfLoader::new();
    let paths: Vec<(&str, PathBuf)> = BALANCER_MAPS.iter().map(|name| (*name, pins.map(name))).collect();
    for (name, path) in &paths {
        loader.map_pin_path(name, path.as_path());
    }
    for (name, entries) in max_entries(size) {
        loader.map_max_entries(name, entries);
    }
    loader.override_global(INGRESS_PORT, &port, true);
    loader.load(BALANCER).map_err(Error::load)
}

fn max_entries(size: &Size) -> [(&'static str, u32); 28] {
    use lb_common::abi::REASON_SLOTS;
    [
        (SERVICES, size.keys),
        (VIPS, size.vips),
        (RINGS, size.ring_slots),
        (BACKENDS, size.backends + 1),
        (PORTS, size.ports + 1),
        (EGRESS, size.ports + 1),
        (TCP_HALF_OPEN, size.tcp_flows.half_open),
        (TCP_ESTABLISHED, size.tcp_flows.established),
        (TCP_OLD, size.tcp_flows.old),
        (UDP_HALF_OPEN, size.udp_flows.half_open),
        (UDP_ESTABLISHED, size.udp_flows.established),
        (UDP_OLD, size.udp_flows.old),
        (POLICIES, size.services),
        (TURNS, size.services),
        (LOADS, size.backends + 1),
        (AFFINITY, size.affinity),
        (BACKEND_COUNTERS, size.backends + 1),
        (SERVICE_DROPS, size.services * REASON_SLOTS),
        (PREFIXES, Size::PREFIXES),
        (RANGES, Size::RANGES),
        (ACL, Size::ACL),
        (RATES, size.services),
        (SERVICE_BUCKETS, size.services * 2),
        (SOURCE_BUCKETS, capacity::SOURCE_BUCKETS),
        (FRAGMENTS, capacity::FRAGMENTS),
        (QUIC_IDS, Size::QUIC_IDS),
        (STAGES, 2 * (size.ports + 1)),
        (SAMPLES, capacity::SAMPLES),
    ]
}

/// The XDP program `name` of an object, loaded.
pub(super) fn program<'a>(object: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Xdp, Error> {
    let program = loaded(object, name)?;
    program.load().map_err(|source| Error::Program { program: name, source })?;
    Ok(program)
}

/// The same, of one that has been loaded.
pub(super) fn loaded<'a>(object: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Xdp, Error> {
    let program = object.program_mut(name).ok_or(Error::Missing(name))?;
    program.try_into().map_err(|source| Error::Program { program: name, source })
}

/// What the verifier says of a program.
#[derive(Clone, Debug)]
pub struct ProgramUse {
    /// The program's name.
    pub program: &'static str,
    /// Instructions the verifier walked through; its limit is a million.
    pub verified_instructions: u32,
    /// Bytes of machine code.
    pub jitted_bytes: u32,
}

/// The programs and the ELF objects they are in, for looking at what the compiler made of them.
pub fn objects() -> [(&'static str, &'static [u8]); 6] {
    [
        (BALANCER_PROGRAM, BALANCER),
        (SLOW_PROGRAM, BALANCER),
        (SAMPLED_PROGRAM, BALANCER),
        (PROBE_PROGRAM, BALANCER),
        (DECAP_PROGRAM, DECAP),
        (CLAMP_PROGRAM, DECAP),
    ]
}

/// Loads every program without attaching any, on maps of minimal size that vanish again.
pub fn verify() -> Result<Vec<ProgramUse>, Error> {
    objects().into_iter().map(|(name, object)| verify_one(object, name)).collect()
}

fn verify_one(object: &'static [u8], name: &'static str) -> Result<ProgramUse, Error> {
    let mut loader = EbpfLoader::new();
    loader.verifier_log_level(VerifierLogLevel::STATS);
    let mut object = loader.load(object).map_err(Error::load)?;
    let refused = |source| Error::Program { program: name, source };
    let info = if name == CLAMP_PROGRAM {
        let program = object.program_mut(name).ok_or(Error::Missing(name))?;
        let program: &mut SchedClassifier = program.try_into().map_err(refused)?;
        program.load().map_err(refused)?;
        program.info()
    } else {
        program(&mut object, name)?.info()
    };
    let info = info.map_err(refused)?;
    Ok(ProgramUse {
        program: name,
        verified_instructions: info.verified_instruction_count().unwrap_or_default(),
        jitted_bytes: info.size_jitted(),
    })
}

/// A loaded program to run packets through, without an interface (`BPF_PROG_TEST_RUN`).
pub struct TestProgram {
    object: Ebpf,
    name: &'static str,
}

impl TestProgram {
    /// The balancer as it would run on the interface with number `port` of a pinned data plane.
    pub fn balancer(pins: &Pins, size: &Size, port: u16) -> Result<Self, Error> {
        let mut object = balancer(pins, size, port)?;
        stages::set(pins, &mut object, port)?;
        program(&mut object, BALANCER_PROGRAM)?;
        Ok(Self { object, name: BALANCER_PROGRAM })
    }

    /// The probes' program as it would run on the gate, the interface with number `port` of a pinned data plane.
    pub fn probe(pins: &Pins, size: &Size, port: u16) -> Result<Self, Error> {
        let mut object = balancer(pins, size, port)?;
        program(&mut object, PROBE_PROGRAM)?;
        Ok(Self { object, name: PROBE_PROGRAM })
    }

    pub(super) fn new(object: Ebpf, name: &'static str) -> Self {
        Self { object, name }
    }

    /// Runs one frame (at least 14 bytes) through the program: the XDP action and the frame afterwards.
    pub fn run(&mut self, frame: &[u8]) -> Result<(u32, Vec<u8>), Error> {
        let mut output = vec![0; frame.len() + 256];
        let result = self.test_run(TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut output),
            ..Default::default()
        })?;
        output.truncate(result.data_size_out as usize);
        Ok((result.return_value, output))
    }

    /// Runs one frame `repeat` times: the last XDP action, and the mean time of a run. The kernel does not restore the
    /// frame in between: each run sees what the one before has made of it.
    pub fn time(&mut self, frame: &[u8], repeat: u32) -> Result<(u32, Duration), Error> {
        let options = TestRunOptions { data_in: Some(frame), repeat, ..Default::default() };
        let result = self.test_run(options)?;
        Ok((result.return_value, result.duration))
    }

    fn test_run(&mut self, options: TestRunOptions<'_>) -> Result<TestRunResult, Error> {
        let name = self.name;
        self.program()?.test_run(options).map_err(|source| Error::Program { program: name, source })
    }

    /// The program itself.
    pub(super) fn program(&mut self) -> Result<&mut Xdp, Error> {
        let name = self.name;
        let program = self.object.program_mut(name).ok_or(Error::Missing(name))?;
        program.try_into().map_err(|source| Error::Program { program: name, source })
    }
}
