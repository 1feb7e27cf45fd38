//! One run of one case: timed in the kernel, and compared with what the host engine makes of the same packet. A wrong
//! path must not be timed.

use lb_tests::bpf::Action;
use lb_userspace::dataplane::{Floor, RESTORABLE, Repeated, Stopwatch, Vary};

use crate::cases::Case;
use crate::stage::Stage;

/// Iterations before the clock starts: caches and branch predictors learn.
const WARM_UP: u32 = 1_000;
/// The shortest frame measured: what is restored at once, and not less than a wire carries.
const SHORTEST: usize = 64;

const VLAN_TAGS: [u16; 2] = [0x8100, 0x88a8];
const IPV6: u16 = 0x86dd;

/// A case, ready to run.
pub struct Subject {
    pub case: &'static Case,
    pub stage: usize,
    frame: Vec<u8>,
    restore: usize,
    vary: Vary,
    /// Iterations so far: a run goes on where the last one ended, so that a flow comes back after all others.
    done: u32,
}

impl Subject {
    pub fn new(case: &'static Case, stages: &mut [Stage]) -> Self {
        let stage =
            stages.iter().position(|stage| stage.scene == case.scene).expect("a stage for every case");
        let bench = &mut stages[stage].bench;
        let mut frame = (case.frame)();
        frame.resize(frame.len().max(SHORTEST), 0);
        let (_, output) = bench.both(&frame);
        let mut restore = overwritten(&frame, &output);
        assert!(restore <= RESTORABLE, "{}: {restore} bytes are overwritten", case.name);
        if restore > SHORTEST {
            frame.resize(frame.len().max(RESTORABLE), 0);
            restore = overwritten(&frame, &bench.both(&frame).1);
        }
        let vary = Vary { flows: case.flows, services: case.services, ..positions(&frame) };
        let mut subject = Self { case, stage, frame, restore, vary, done: 0 };
        // Every flow once, untimed: what is to be recorded is recorded, and what is to be resident is.
        subject.time(stages, case.flows.max(case.services));
        subject
    }

    /// Nanoseconds per packet.
    pub fn time(&mut self, stages: &mut [Stage], iterations: u32) -> f64 {
        let Stage { bench, stopwatch, .. } = &mut stages[self.stage];
        let repeated = Repeated {
            frame: &self.frame,
            restore: self.restore,
            vary: self.vary,
            first: self.done,
            warm_up: WARM_UP,
            iterations,
        };
        let outcome = stopwatch.run(&repeated).expect("the kernel runs the wrapper");
        let total = WARM_UP + iterations + 1;
        assert_eq!(outcome.iterations, total, "{}: iterations", self.case.name);
        self.done += total;
        let expected = bench.host(&self.nth(self.done - 1));
        let found = (Action::from_raw(outcome.action), outcome.output);
        assert!(found == expected, "{}:\nkernel {found:02x?}\n  host {expected:02x?}", self.case.name);
        assert_eq!(found.0, self.case.action, "{}: verdict", self.case.name);
        outcome.ns
    }

    /// The frame of iteration `n`.
    fn nth(&self, n: u32) -> Vec<u8> {
        let mut frame = self.frame.clone();
        let mut put = |at: u16, bytes: &[u8]| frame[at as usize..][..bytes.len()].copy_from_slice(bytes);
        if self.vary.flows > 1 {
            let flow = n % self.vary.flows;
            put(self.vary.address_at, &(self.vary.first_address + flow / 60_000).to_be_bytes());
            put(self.vary.port_at, &(1024 + (flow % 60_000) as u16).to_be_bytes());
        }
        if self.vary.services > 1 {
            put(self.vary.service_at, &(self.vary.first_service + n % self.vary.services).to_be_bytes());
        }
        frame
    }
}

/// Nanoseconds per packet of a floor.
pub fn floor(stopwatch: &mut Stopwatch, floor: Floor, frame: &[u8], iterations: u32) -> f64 {
    let mut frame = frame.to_vec();
    frame.resize(frame.len().max(SHORTEST), 0);
    let restore = if floor == Floor::Transmit { 0 } else { 14 };
    let vary = Vary::default();
    let repeated = Repeated { frame: &frame, restore, vary, first: 0, warm_up: WARM_UP, iterations };
    let outcome = stopwatch.run(&repeated).expect("the kernel runs the wrapper");
    assert_eq!(outcome.iterations, WARM_UP + iterations + 1, "{floor:?}: iterations");
    assert_eq!(Action::from_raw(outcome.action), Action::Transmit, "{floor:?}: verdict");
    assert!(outcome.output == floor_output(floor, &frame), "{floor:?}: {:02x?}", outcome.output);
    outcome.ns
}

/// What a floor makes of a frame, by an independent implementation.
fn floor_output(floor: Floor, frame: &[u8]) -> Vec<u8> {
    use lb_tests::packets::{relinked, tunnelled};
    let mac = |at: usize| -> [u8; 6] { frame[at..at + 6].try_into().expect("six bytes") };
    match floor {
        Floor::Transmit => frame.to_vec(),
        Floor::Swap => relinked(frame, (mac(0), mac(6))),
        Floor::Encapsulate => {
            let link = ([0x02, 0, 0, 0, 1, 1], [0x02, 0, 0, 0, 1, 2]);
            tunnelled(frame, link, [192, 0, 2, 1].into(), [198, 51, 100, 2].into())
        }
    }
}

/// How many of a frame's first bytes a program has overwritten or taken off, as its output shows.
fn overwritten(input: &[u8], output: &[u8]) -> usize {
    let kept = input.iter().rev().zip(output.iter().rev()).take_while(|(a, b)| a == b).count();
    input.len() - kept
}

/// Where addresses and source port are in a frame with any number of VLAN tags and no IPv6 extension headers.
fn positions(frame: &[u8]) -> Vary {
    let word = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    let long = |at: usize| u32::from_be_bytes(frame[at..at + 4].try_into().expect("four bytes"));
    let mut at = 12;
    while VLAN_TAGS.contains(&word(at)) {
        at += 4;
    }
    let ip = at + 2;
    let (source, destination, transport) = if word(at) == IPV6 {
        (ip + 20, ip + 36, ip + 40)
    } else {
        (ip + 12, ip + 16, ip + usize::from(frame[ip] & 0xf) * 4)
    };
    Vary {
        address_at: source as u16,
        first_address: long(source),
        port_at: transport as u16,
        service_at: destination as u16,
        first_service: long(destination),
        ..Vary::default()
    }
}
