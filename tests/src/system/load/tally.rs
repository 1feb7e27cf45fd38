//! What has become of a load's connections, and which of it counts. Pure but for the clock.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::{Value, json};

use super::seats::Seat;

/// From here on waiting for an answer is a stall.
const STALL: Duration = Duration::from_secs(1);
/// From here on a control connection's waiting is remembered, as the machine's.
pub(super) const NOTABLE: Duration = Duration::from_millis(50);
/// Clients that are held up for longer let flows die of silence: records are exact to a second, and the shortest idle time
/// is two.
const SILENCE: Duration = Duration::from_millis(1000);
/// How long after its return a backend's connections may still break: those that had not yet noticed.
const GRACE: Duration = Duration::from_secs(4);

/// What a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// TCP.
    Tcp,
    /// Datagrams, each a question or an answer.
    Udp,
    /// QUIC, a stream per question.
    Quic,
}

/// A connection that broke, or was answered by another backend than before, or did not come about.
#[derive(Debug, Clone)]
pub struct Fault {
    /// When its last question was asked, and when it was known, since the beginning.
    pub at: (Duration, Duration),
    /// Its kind.
    pub kind: Kind,
    /// Past the balancer.
    pub control: bool,
    /// Who had answered before.
    pub home: Option<u8>,
    /// What happened.
    pub what: String,
}

/// An answer that took long.
#[derive(Debug, Clone)]
pub struct Stall {
    /// When it was asked, and when answered, since the beginning.
    pub at: (Duration, Duration),
    /// The connection's kind.
    pub kind: Kind,
    /// Who had answered before, and answered now.
    pub home: (Option<u8>, u8),
    /// The longest wait on the control set at that time, or of the clients for their turn.
    pub control: Duration,
}

impl Stall {
    fn waited(at: (Duration, Duration)) -> Duration {
        at.1.saturating_sub(at.0)
    }

    /// A wait that the machine does not explain, of a connection that has had an answer before: one that has not may have
    /// been refused by a server that is busy. What was lost while it was busy is sent again after twice the time of the
    /// time before, so that a connection may wait twice as long as the machine was.
    fn counts(&self) -> bool {
        self.home.0.is_some() && Self::waited(self.at).saturating_sub(2 * self.control) > STALL
    }
}

/// A second of all connections.
#[derive(Debug, Default, Clone, Copy)]
struct Second {
    answers: u32,
    worst: Duration,
    control_worst: Duration,
    faults: u32,
}

/// A backend's connections may break from here to there.
#[derive(Debug, Clone, Copy)]
struct Excuse {
    backend: u8,
    from: Duration,
    /// When it had no slot any more: who connected before may have got it.
    moved: Option<Duration>,
    to: Option<Duration>,
}

/// The running account.
#[derive(Debug)]
pub(super) struct Tally {
    start: Instant,
    established_only: bool,
    faults: Vec<Fault>,
    slow: Vec<Stall>,
    control_slow: Vec<(Duration, Duration)>,
    held_up: Vec<(Duration, Duration)>,
    seconds: Vec<Second>,
    connections: BTreeMap<Kind, u64>,
    answers: BTreeMap<(Kind, u8), u64>,
    homes: BTreeMap<usize, (bool, u8)>,
    seated: BTreeSet<usize>,
    /// When each had had an answer.
    began: Option<Duration>,
    excuses: Vec<Excuse>,
    leaving: BTreeMap<u8, Instant>,
    notes: Vec<(Duration, String)>,
}

impl Tally {
    pub(super) fn new(start: Instant, established_only: bool) -> Self {
        Self {
            start,
            established_only,
            faults: Vec::new(),
            slow: Vec::new(),
            control_slow: Vec::new(),
            held_up: Vec::new(),
            seconds: Vec::new(),
            connections: BTreeMap::new(),
            answers: BTreeMap::new(),
            homes: BTreeMap::new(),
            seated: BTreeSet::new(),
            began: None,
            excuses: Vec::new(),
            leaving: BTreeMap::new(),
            notes: Vec::new(),
        }
    }

    fn since(&self, asked: Instant) -> (Duration, Duration) {
        (asked.saturating_duration_since(self.start), self.start.elapsed())
    }

    fn second(&mut self, at: Duration) -> &mut Second {
        let index = at.as_secs() as usize;
        if self.seconds.len() <= index {
            self.seconds.resize(index + 1, Second::default());
        }
        &mut self.seconds[index]
    }

    pub(super) fn answered(&mut self, seat: &Seat, asked: Instant, home: Option<u8>, backend: u8) {
        let at = self.since(asked);
        let waited = Stall::waited(at);
        let second = self.second(at.1);
        second.answers += 1;
        if seat.control {
            second.control_worst = second.control_worst.max(waited);
            if waited > NOTABLE {
                self.control_slow.push(at);
            }
        } else {
            second.worst = second.worst.max(waited);
            *self.answers.entry((seat.kind, backend)).or_default() += 1;
            if waited > STALL && self.began.is_some_and(|began| at.0 > began) {
                let (kind, home) = (seat.kind, (home, backend));
                self.slow.push(Stall { at, kind, home, control: Duration::ZERO });
            }
        }
        match home {
            None if !seat.control => *self.connections.entry(seat.kind).or_default() += 1,
            Some(before) if before != backend => {
                self.fault(seat, at, home, format!("moved to b{backend}"));
            }
            _ => {}
        }
        self.homes.insert(seat.number, (seat.control, backend));
        if self.began.is_none() {
            self.seated.insert(seat.number);
        }
    }

    pub(super) fn broke(&mut self, seat: &Seat, asked: Instant, home: Option<u8>, what: &str) {
        self.homes.remove(&seat.number);
        self.fault(seat, self.since(asked), home, what.to_owned());
    }

    pub(super) fn refused(&mut self, seat: &Seat, asked: Instant, what: &str) {
        self.fault(seat, self.since(asked), None, format!("not connected: {what}"));
    }

    fn fault(&mut self, seat: &Seat, at: (Duration, Duration), home: Option<u8>, what: String) {
        self.second(at.1).faults += 1;
        self.faults.push(Fault { at, kind: seat.kind, control: seat.control, home, what });
    }

    pub(super) fn left(&mut self, seat: &Seat) {
        self.homes.remove(&seat.number);
    }

    pub(super) fn leave(&mut self, backend: u8) {
        self.leaving.insert(backend, Instant::now());
    }

    /// Whether this connection is to be closed by its client.
    pub(super) fn shall_leave(&self, home: Option<u8>, connected: Instant) -> bool {
        home.and_then(|home| self.leaving.get(&home)).is_some_and(|since| connected < *since)
    }

    pub(super) fn dies(&mut self, backend: u8) {
        self.note(&format!("b{backend} dies"));
        self.excuses.push(Excuse { backend, from: self.start.elapsed(), moved: None, to: None });
    }

    pub(super) fn moved(&mut self, backend: u8) {
        self.note(&format!("b{backend} has no slot"));
        let now = self.start.elapsed();
        for excuse in self.excuses.iter_mut().filter(|excuse| excuse.backend == backend) {
            excuse.moved.get_or_insert(now);
        }
    }

    pub(super) fn lives(&mut self, backend: u8) {
        self.note(&format!("b{backend} lives"));
        let now = self.start.elapsed();
        for excuse in self.excuses.iter_mut().filter(|excuse| excuse.backend == backend) {
            excuse.to.get_or_insert(now + GRACE);
        }
    }

    pub(super) fn note(&mut self, what: &str) {
        let at = self.start.elapsed();
        println!("{:7.2} s: {what}", at.as_secs_f32());
        self.notes.push((at, what.to_owned()));
    }

    /// Seats that have had an answer, until all have.
    pub(super) fn seated(&self) -> usize {
        self.seated.len()
    }

    /// From now on it counts how long answers take.
    pub(super) fn begin(&mut self) {
        self.note("all connected");
        self.began = Some(self.start.elapsed());
    }

    /// The clients themselves were held up for so long.
    pub(super) fn held_up(&mut self, since: Instant) {
        let at = self.since(since);
        self.control_slow.push(at);
        self.held_up.push(at);
        let second = self.second(at.1);
        second.control_worst = second.control_worst.max(Stall::waited(at));
    }

    pub(super) fn on(&self, backend: u8) -> usize {
        self.homes.values().filter(|home| **home == (false, backend)).count()
    }

    /// Of one whose backend has never answered it is known only that it may have been a dying one's.
    fn excused(&self, home: Option<u8>, (asked, known): (Duration, Duration)) -> bool {
        if self.established_only && home.is_none() {
            return true;
        }
        let covers = |excuse: &Excuse| {
            let until = if home.is_some() { excuse.to } else { excuse.moved };
            home.is_none_or(|home| home == excuse.backend)
                && known >= excuse.from
                && until.is_none_or(|until| asked <= until)
        };
        self.excuses.iter().any(covers)
    }

    /// Whether the clients were held up for so long that the flow may have died of silence.
    fn silent(&self, (asked, known): (Duration, Duration)) -> bool {
        let long = self.held_up.iter().filter(|held| Stall::waited(**held) > SILENCE);
        long.into_iter().any(|held| asked <= held.1 + GRACE && known >= held.0)
    }

    /// Faults of connections whose backend lived, and that had not been silent for their idle time.
    pub(super) fn unexcused(&self) -> Vec<Fault> {
        let counts = |fault: &&Fault| !self.excused(fault.home, fault.at) && !self.silent(fault.at);
        self.faults.iter().filter(counts).cloned().collect()
    }

    pub(super) fn report(&self) -> Report {
        let slow = self.slow.iter().filter(|stall| !self.excused(stall.home.0, stall.at)).map(|stall| {
            let meanwhile = |at: &&(Duration, Duration)| at.0 <= stall.at.1 && at.1 >= stall.at.0;
            let control = self.control_slow.iter().filter(meanwhile).map(|at| Stall::waited(*at)).max();
            Stall { control: control.unwrap_or_default(), ..stall.clone() }
        });
        let (stalls, machine) = slow.partition(Stall::counts);
        Report {
            faults: self.unexcused(),
            excused: self.faults.len() - self.unexcused().len(),
            stalls,
            machine,
            seconds: self.seconds.clone(),
            connections: self.connections.clone(),
            answers: self.answers.clone(),
            notes: self.notes.clone(),
            length: self.start.elapsed(),
        }
    }
}

/// What came of a load.
#[derive(Debug, Clone)]
pub struct Report {
    /// Broken, moved and missing connections whose backend lived.
    pub faults: Vec<Fault>,
    /// Those whose backend did not, or whose client was held up for an idle time.
    pub excused: usize,
    /// Waits over a second that the control set did not have.
    pub stalls: Vec<Stall>,
    /// Waits over a second that it had as well.
    pub machine: Vec<Stall>,
    seconds: Vec<Second>,
    connections: BTreeMap<Kind, u64>,
    answers: BTreeMap<(Kind, u8), u64>,
    notes: Vec<(Duration, String)>,
    length: Duration,
}

impl Report {
    /// An error unless no connection broke, moved or stalled whose backend lived.
    pub fn expect_unbroken(&self) -> anyhow::Result<()> {
        println!("{self}");
        let Self { faults, stalls, .. } = self;
        ensure!(faults.is_empty(), "{} faults, the first: {:?}", faults.len(), faults.first());
        ensure!(stalls.is_empty(), "{} stalls, the first: {:?}", stalls.len(), stalls.first());
        Ok(())
    }

    /// Connections that had an answer, of this kind.
    pub fn connections(&self, kind: Kind) -> u64 {
        self.connections.get(&kind).copied().unwrap_or(0)
    }

    /// Answers of a backend, over connections of this kind.
    pub fn answers(&self, kind: Kind, backend: u8) -> u64 {
        self.answers.get(&(kind, backend)).copied().unwrap_or(0)
    }

    /// All of it for a machine.
    pub fn json(&self) -> Value {
        let millis = |time: Duration| time.as_millis() as u64;
        let answers: BTreeMap<String, u64> = self
            .answers
            .iter()
            .map(|((kind, backend), count)| (format!("{kind:?} b{backend}"), *count))
            .collect();
        let connections: BTreeMap<String, u64> =
            self.connections.iter().map(|(kind, count)| (format!("{kind:?}"), *count)).collect();
        let seconds = self.seconds.iter().map(|second| {
            json!([second.answers, millis(second.worst), millis(second.control_worst), second.faults])
        });
        let notes = self.notes.iter().map(|(at, what)| json!([millis(*at), what]));
        json!({
            "seconds": self.length.as_secs(),
            "faults": self.faults.len(),
            "faults_excused": self.excused,
            "stalls": self.stalls.len(),
            "slow_with_the_machine": self.machine.len(),
            "connections": connections,
            "answers": answers,
            "notes": notes.collect::<Vec<_>>(),
            "answers_worst_ms_control_worst_ms_faults_by_second": seconds.collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for fault in self.faults.iter().take(20) {
            writeln!(f, "{fault:?}")?;
        }
        for stall in self.stalls.iter().take(20) {
            writeln!(f, "{stall:?}")?;
        }
        write!(f, "{}", self.json())
    }
}
