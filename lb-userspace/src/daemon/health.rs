//! Where probes, decisions and the rest of the daemon meet: results in, what every backend gets out, and everybody told
//! who wants to know.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, broadcast, mpsc, oneshot};

use super::Word;
use super::probing::{Lanes, Probing, Unguarded};
use super::targets::{Ways, comparison, target};
use super::tell::Teller;
use crate::dataplane::{Gate, ProbeTable};
use crate::health::check::Standing;
use crate::health::fleet::{Decided, Fleet, Place};
use crate::health::hook::Hook;
use crate::health::job::Asked;
use crate::health::lane::Command;
use crate::health::member::{Override, State};
use crate::health::passive::{Complaint, Complaints, Heed, What};
use crate::health::probe::Failure;
use crate::health::task::{Event, Last, Task, TaskId};
use crate::health::view::ServiceHealth;
use crate::health::words;
use crate::model::{Check, Model, Via};
use crate::netlink::{GATE, Snapshot};

/// Comparisons with direct probes under way at a time.
const COMPARISONS: usize = 50;
/// Probes in flight at a time where the config does not say.
const IN_FLIGHT: u32 = 1000;
/// Pause after the socket for ICMP errors has failed.
const COMPLAINT_REST: Duration = Duration::from_secs(1);
/// For so long it explains a failure.
const COMPLAINT_MEMORY: Duration = Duration::from_secs(30);

/// The last results of probes.
type Results = BTreeMap<TaskId, Last>;

/// Health checking, as the daemon has it.
pub(super) struct Health {
    fleet: Fleet,
    probing: Probing,
    in_flight: usize,
    /// Why there is no way through the services, if there is none.
    trouble: Option<String>,
    /// The tasks as they were handed out last.
    assigned: Vec<Task>,
    events: mpsc::UnboundedReceiver<Event>,
    /// For threads to come.
    events_to: mpsc::UnboundedSender<Event>,
    comparisons: mpsc::UnboundedReceiver<Comparison>,
    comparisons_to: mpsc::UnboundedSender<Comparison>,
    comparing: Arc<Semaphore>,
    latencies: mpsc::UnboundedReceiver<Results>,
    latencies_to: mpsc::UnboundedSender<Results>,
    complaints: Option<Complaints>,
    heed: Heed,
    complained: BTreeMap<IpAddr, (Instant, u8)>,
    teller: Teller,
}

/// Something to look at.
pub(super) enum Signal {
    Event(Event),
    Comparison(Comparison),
    Complaint(Complaint),
    Latencies(Results),
    /// A summary of transitions is due, or a timer has run out.
    Time,
}

/// How a backend's own address did after a probe through the service failed.
pub(super) struct Comparison {
    task: TaskId,
    failure: Failure,
    direct: Result<Duration, Failure>,
}

impl Health {
    /// Starts the thread for direct probes.
    pub(super) fn start(model: &Model) -> Self {
        let in_flight = model.limits.probes.unwrap_or(IN_FLIGHT) as usize;
        let (events_to, events) = mpsc::unbounded_channel();
        let (comparisons_to, comparisons) = mpsc::unbounded_channel();
        let (latencies_to, latencies) = mpsc::unbounded_channel();
        let unheard = |error: &std::io::Error| tracing::warn!(%error, "ICMP errors are not heard");
        Self {
            fleet: Fleet::default(),
            probing: Probing::start(in_flight, events_to.clone()),
            in_flight,
            trouble: None,
            assigned: Vec::new(),
            events,
            events_to,
            comparisons,
            comparisons_to,
            comparing: Arc::new(Semaphore::new(COMPARISONS)),
            latencies,
            latencies_to,
            complaints: Complaints::open().inspect_err(unheard).ok(),
            heed: Heed::default(),
            complained: BTreeMap::new(),
            teller: Teller::new(Hook::start()),
        }
    }

    /// Watches what a model asks for; `initial` says what is known of backends that were not watched before.
    pub(super) fn set_model(&mut self, model: &Model, initial: impl Fn(Place) -> State) {
        self.fleet.set_model(model, initial, Instant::now());
        self.teller.on_change(&model.on_change);
    }

    /// Whether probes through services are wanted and there is no way for them yet.
    pub(super) fn wants_gate(&self, model: &Model) -> bool {
        let through = |check: &Check| check.via == Via::Service;
        let wanted = model.services.iter().flat_map(|s| &s.backends).any(|b| b.checks.iter().any(through));
        wanted && self.probing.gate().is_none()
    }

    /// Whether the way through the services is gone, or was switched off; then it is given up.
    pub(super) fn has_lost_gate(&mut self, links: &Snapshot) -> bool {
        let lost = self.probing.gate().is_some() && !links.by_name(GATE).is_some_and(|gate| gate.up);
        if lost {
            self.probing.close();
        }
        lost
    }

    /// Makes the namespace behind the gate.
    pub(super) async fn dig(&self, table: ProbeTable) -> Result<Unguarded, String> {
        Probing::dig(self.in_flight, table, self.events_to.clone()).await
    }

    /// There is a way through the services now, or there is none and why.
    pub(super) fn open(&mut self, opened: Result<(Unguarded, Gate, u16), String>) {
        match opened {
            Ok((through, gate, port)) => {
                self.probing.open(through, gate, port);
                self.trouble = None;
            }
            Err(why) => {
                tracing::error!(why, "no probes through services (via: service)");
                self.trouble = Some(why);
            }
        }
    }

    /// Hands out the tasks, if any has changed.
    pub(super) async fn assign(&mut self, ways: &Ways<'_>) {
        let (gate, trouble) = (self.probing.gate(), self.trouble.as_deref());
        let tasks = self.fleet.tasks(|question, asked| target(question, asked, ways, gate, trouble));
        let same = |(old, new): (&Task, &Task)| (old.id, &old.target) == (new.id, &new.target);
        if tasks.len() != self.assigned.len() || !self.assigned.iter().zip(&tasks).all(same) {
            self.probing.lanes().assign(tasks.clone()).await;
            self.assigned = tasks;
        }
    }

    /// Waits for something to look at.
    pub(super) async fn next(&mut self) -> Signal {
        let timer = self.fleet.next_timer().into_iter().chain(self.teller.next_timer()).min();
        let complaint = async {
            match &self.complaints {
                // Whatever is not heeded must not even wake the daemon: anybody can send it.
                Some(complaints) => loop {
                    match complaints.next().await {
                        Ok(complaint)
                            if self.heed.takes(&complaint, |a| self.fleet.has(a), Instant::now()) =>
                        {
                            break complaint;
                        }
                        Ok(_) => {}
                        Err(error) => {
                            tracing::debug!(%error, "reading ICMP");
                            tokio::time::sleep(COMPLAINT_REST).await;
                        }
                    }
                },
                None => std::future::pending().await,
            }
        };
        let time = async {
            match timer {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(event) = self.events.recv() => Signal::Event(event),
            Some(comparison) = self.comparisons.recv() => Signal::Comparison(comparison),
            complaint = complaint => Signal::Complaint(complaint),
            Some(results) = self.latencies.recv() => Signal::Latencies(results),
            () = time => Signal::Time,
        }
    }

    /// Takes a signal and all events that have come with it.
    pub(super) fn absorb(&mut self, signal: Signal, ways: &BTreeMap<Place, words::Way>) {
        match signal {
            Signal::Event(event) => self.event(event, ways),
            Signal::Comparison(comparison) => self.compare(&comparison, ways),
            Signal::Complaint(complaint) => self.complaint(complaint),
            Signal::Latencies(results) => self.fleet.latencies(&results),
            Signal::Time => {}
        }
        while let Ok(event) = self.events.try_recv() {
            self.event(event, ways);
        }
    }

    fn event(&mut self, event: Event, ways: &BTreeMap<Place, words::Way>) {
        let now = Instant::now();
        match event {
            Event::Standing(id, standing, last) => {
                let why = last.failure.as_ref().filter(|_| standing == Standing::Failing);
                let why = why.map(|failure| self.words(id, failure, ways));
                self.fleet.standing(id, standing, why, now);
                if standing == Standing::Failing {
                    self.ask_directly(id, last);
                }
            }
            Event::Reason(id, failure) => {
                let why = self.words(id, &failure, ways);
                self.fleet.explain(id, why);
            }
            Event::Agent(id, report) => self.fleet.agent(id, &report, now),
        }
    }

    /// A failure in words, with what ICMP has said lately.
    fn words(&self, id: TaskId, failure: &Failure, ways: &BTreeMap<Place, words::Way>) -> String {
        let Some((_, Asked::Through(service, backend, _))) = self.fleet.asked(id) else {
            return failure.to_string();
        };
        let way = ways.get(&(service, backend)).copied().unwrap_or(words::Way::L2);
        let first = words::through_service(way, service.address, failure);
        match self.complaint_about(backend, way) {
            Some(code) => words::refused_by_icmp(&first, backend, code),
            None => first,
        }
    }

    /// The code of what ICMP has said of a backend's tunnel lately.
    fn complaint_about(&self, backend: IpAddr, way: words::Way) -> Option<u8> {
        let (at, code) = self.complained.get(&backend)?;
        (matches!(way, words::Way::Tunnel(_)) && at.elapsed() < COMPLAINT_MEMORY).then_some(*code)
    }

    /// After a failure through the service: does the backend's own address do better? That narrows down the cause.
    fn ask_directly(&self, id: TaskId, last: Last) {
        let Some((question, asked)) = self.fleet.asked(id) else { return };
        let Some(failure) = last.failure else { return };
        let Some(task) = comparison(id, question, asked, &failure) else { return };
        // Where many fail at once, some examples will do.
        let Ok(permit) = Arc::clone(&self.comparing).try_acquire_owned() else { return };
        let (reply, answer) = oneshot::channel();
        self.probing.lanes().once(task, reply);
        let comparisons = self.comparisons_to.clone();
        tokio::spawn(async move {
            if let Ok(direct) = answer.await {
                let _daemon_ends = comparisons.send(Comparison { task: id, failure, direct });
            }
            drop(permit);
        });
    }

    fn compare(&mut self, comparison: &Comparison, ways: &BTreeMap<Place, words::Way>) {
        let Some((_, Asked::Through(service, backend, _))) = self.fleet.asked(comparison.task) else {
            return;
        };
        let way = ways.get(&(service, backend)).copied().unwrap_or(words::Way::L2);
        // What ICMP says is more to the point.
        if self.complaint_about(backend, way).is_some() {
            return;
        }
        let (vip, own): (IpAddr, IpAddr) = (service.address, backend);
        let direct = comparison.direct.as_ref().map(drop);
        let why = words::compared(way, vip, own, &comparison.failure, direct);
        tracing::info!(service = %service, %backend, why, "backend's failure looked into");
        self.fleet.explain(comparison.task, why);
    }

    fn complaint(&mut self, complaint: Complaint) {
        let Complaint { backend, what: What::Unreachable(code) } = complaint else { return };
        let tasks = self.fleet.tasks_of(backend);
        tracing::debug!(%backend, code, "ICMP error about a tunnel packet");
        self.complained.insert(backend, (Instant::now(), code));
        self.probing.lanes().all(|| Command::Hurry(tasks.clone()));
    }

    /// Has backends probed at once that have lost their link or neighbour; one failure decides.
    pub(super) fn suspect(&self, backends: &[IpAddr]) {
        let tasks: Vec<TaskId> = backends.iter().flat_map(|backend| self.fleet.tasks_of(*backend)).collect();
        if !tasks.is_empty() {
            self.probing.lanes().all(|| Command::Suspect(tasks.clone()));
        }
    }

    /// Tells of the operator's word about a backend.
    pub(super) fn tell_operator(&self, backend: &str, word: Word, reason: Option<&str>) {
        self.teller.operator(backend, word, reason);
    }

    /// What every backend gets now; tells of what has changed.
    pub(super) fn decide(&mut self) -> Decided {
        let now = Instant::now();
        let decided = self.fleet.decide(now);
        self.teller.tell(&decided, now);
        decided
    }

    /// Backends that are not believed to work.
    pub(super) fn down(&self) -> BTreeSet<Place> {
        self.fleet.down().collect()
    }

    /// Replaces the operator's words.
    pub(super) fn set_overrides(&mut self, overrides: BTreeMap<(String, IpAddr), Override>) {
        self.fleet.set_overrides(overrides, Instant::now());
    }

    /// What is known of every backend, as soon as the threads have said how their tasks are.
    pub(super) async fn view(&self) -> Vec<ServiceHealth> {
        let mut last = BTreeMap::new();
        for report in self.reports() {
            last.extend(report.await.unwrap_or_default());
        }
        self.fleet.view(&last, Instant::now())
    }

    /// Has the threads say how long probes take, beside everything else, if any service goes by that.
    pub(super) fn ask_latencies(&self) {
        if !self.fleet.wants_latencies() {
            return;
        }
        let (reports, to) = (self.reports(), self.latencies_to.clone());
        tokio::spawn(async move {
            let mut results = Results::new();
            for report in reports {
                results.extend(report.await.unwrap_or_default());
            }
            let _daemon_ends = to.send(results);
        });
    }

    fn reports(&self) -> Vec<oneshot::Receiver<BTreeMap<TaskId, Last>>> {
        let mut reports = Vec::new();
        self.probing.lanes().all(|| {
            let (reply, report) = oneshot::channel();
            reports.push(report);
            Command::Report(reply)
        });
        reports
    }

    /// Where single probes can be asked for.
    pub(super) fn lanes(&self) -> Lanes {
        self.probing.lanes().clone()
    }

    /// Hears of every change from now on, a line of JSON each.
    pub(super) fn subscribe(&self) -> broadcast::Receiver<String> {
        self.teller.subscribe()
    }
}
