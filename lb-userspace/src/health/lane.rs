//! A thread that makes probes: when each is due is the schedule's business, what its result means the check's; here
//! they are started, awaited and told. Must not know what a standing is good for.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};

use super::check::{CheckState, Outcome as Passed, Standing};
use super::probe::{self, AgentReport, Dial, Failure, Prober};
use super::schedule::{Schedule, Urgency};
use super::task::{Event, Last, Question, SourcePorts, Target, Task, TaskId};
use crate::model::{CheckKind, Timing};

/// How soon, at the earliest, a probe that could not be made is tried again.
const HINDERED: Duration = Duration::from_millis(500);

/// What a lane is told.
#[derive(Debug)]
pub enum Command {
    /// These are all tasks from now on; those that were there go on as they are.
    Tasks(Vec<Task>),
    /// Probe these now.
    Hurry(Vec<TaskId>),
    /// Probe these now, and one failure decides.
    Suspect(Vec<TaskId>),
    /// Say how they are.
    Report(oneshot::Sender<BTreeMap<TaskId, Last>>),
    /// Make this probe once.
    Once(Task, oneshot::Sender<Result<Duration, Failure>>),
}

/// Where a lane's commands go. It ends when the last of these is gone.
pub type Commands = mpsc::UnboundedSender<Command>;

/// The lane's own side.
pub struct Lane<P> {
    ports: P,
    commands: mpsc::UnboundedReceiver<Command>,
    events: mpsc::UnboundedSender<Event>,
    schedule: Schedule<TaskId>,
    entries: BTreeMap<TaskId, Entry>,
    probers: HashMap<CheckKind, Arc<dyn Prober + Send + Sync>>,
    running: FuturesUnordered<Running>,
    epochs: u64,
}

struct Entry {
    task: Task,
    state: CheckState,
    last: Option<Last>,
    /// Something else spoke against it then: one failure of a probe begun since decides.
    suspected: Option<Instant>,
    /// What its agent said last.
    said: Option<AgentReport>,
    /// Tells its probes from those of an earlier task of the same name.
    epoch: u64,
}

type Running = Pin<Box<dyn Future<Output = Done>>>;

/// A probe that has ended.
struct Done {
    purpose: Purpose,
    started: Instant,
    latency: Duration,
    port: Option<u16>,
    answer: Answer,
}

enum Purpose {
    Task(TaskId, u64),
    Once(oneshot::Sender<Result<Duration, Failure>>),
}

enum Answer {
    Check(Result<(), Failure>),
    Agent(Result<AgentReport, Failure>),
}

impl<P: SourcePorts> Lane<P> {
    /// A lane with at most `in_flight` probes under way at a time.
    pub fn new(
        ports: P,
        in_flight: usize,
        commands: mpsc::UnboundedReceiver<Command>,
        events: mpsc::UnboundedSender<Event>,
    ) -> Self {
        Self {
            ports,
            commands,
            events,
            schedule: Schedule::new(in_flight),
            entries: BTreeMap::new(),
            probers: HashMap::new(),
            running: FuturesUnordered::new(),
            epochs: 0,
        }
    }

    /// Probes until nobody holds the lane's [`Commands`] any more.
    pub async fn run(mut self) {
        let mut sleep = Box::pin(tokio::time::sleep(Duration::ZERO));
        loop {
            let now = Instant::now();
            for id in self.schedule.due(now) {
                self.start(id, now);
            }
            let wakeup = self.schedule.next_wakeup(Instant::now());
            if let Some(at) = wakeup {
                sleep.as_mut().reset(at.into());
            }
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => self.obey(command),
                    None => return,
                },
                Some(done) = self.running.next(), if !self.running.is_empty() => self.finish(done),
                () = &mut sleep, if wakeup.is_some() => {}
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Tasks(tasks) => self.take(tasks),
            Command::Hurry(tasks) => self.hurry(&tasks),
            Command::Suspect(tasks) => {
                for id in &tasks {
                    if let Some(entry) = self.entries.get_mut(id) {
                        entry.suspected = Some(Instant::now());
                    }
                }
                self.hurry(&tasks);
            }
            Command::Report(reply) => {
                let last = |(id, entry): (&TaskId, &Entry)| Some((*id, entry.last.clone()?));
                let _nobody_waits = reply.send(self.entries.iter().filter_map(last).collect());
            }
            Command::Once(task, reply) => self.probe(&task, Purpose::Once(reply)),
        }
    }

    fn hurry(&mut self, tasks: &[TaskId]) {
        let now = Instant::now();
        for id in tasks.iter().filter(|id| self.entries.contains_key(id)) {
            self.schedule.hurry(*id, now);
        }
    }

    fn take(&mut self, tasks: Vec<Task>) {
        let now = Instant::now();
        let mut before = std::mem::take(&mut self.entries);
        for task in tasks {
            let entry = match before.remove(&task.id) {
                Some(entry) if entry.task.question == task.question => {
                    let hindered = entry.last.as_ref().is_some_and(|last| last.hindrance.is_some());
                    if hindered && entry.task.target != task.target {
                        self.schedule.hurry(task.id, now);
                    }
                    Entry { task, ..entry }
                }
                known => {
                    if known.is_some() {
                        self.schedule.remove(task.id);
                    }
                    self.schedule.insert(task.id, now, timing(&task.question).interval);
                    let state = CheckState::new(timing(&task.question), task.standing);
                    // One that nothing is known of may be serving already: its first probe decides either way.
                    let suspected = (task.standing == Standing::Unknown).then_some(now);
                    self.epochs += 1;
                    Entry { task, state, last: None, suspected, said: None, epoch: self.epochs }
                }
            };
            self.entries.insert(entry.task.id, entry);
        }
        for gone in before.keys() {
            self.schedule.remove(*gone);
        }
        let wanted: std::collections::HashSet<&CheckKind> =
            self.entries.values().filter_map(|entry| kind(&entry.task.question)).collect();
        self.probers.retain(|kind, _| wanted.contains(kind));
    }

    fn start(&mut self, id: TaskId, now: Instant) {
        if let Some((task, epoch)) = self.entries.get(&id).map(|entry| (entry.task.clone(), entry.epoch)) {
            self.probe(&task, Purpose::Task(id, epoch));
        } else {
            self.schedule.reschedule(id, now, Urgency::Paced);
        }
    }

    fn probe(&mut self, task: &Task, purpose: Purpose) {
        let started = Instant::now();
        let (dial, port) = match self.dial(task) {
            Ok(dial) => dial,
            Err(failure) => {
                let answer = match task.question {
                    Question::Check(_) => Answer::Check(Err(failure)),
                    Question::Agent(_) => Answer::Agent(Err(failure)),
                };
                let done = Done { purpose, started, latency: Duration::ZERO, port: None, answer };
                return self.running.push(Box::pin(std::future::ready(done)));
            }
        };
        match &task.question {
            Question::Check(check) => match self.prober(&check.kind) {
                Ok(prober) => {
                    let timeout = check.timing.timeout;
                    self.running.push(Box::pin(async move {
                        let outcome = probe::run(&*prober, &dial, timeout).await;
                        let answer = Answer::Check(outcome.result);
                        Done { purpose, started, latency: outcome.latency, port, answer }
                    }));
                }
                Err(failure) => {
                    let answer = Answer::Check(Err(failure));
                    let done = Done { purpose, started, latency: Duration::ZERO, port, answer };
                    self.running.push(Box::pin(std::future::ready(done)));
                }
            },
            Question::Agent(agent) => {
                let agent = agent.clone();
                self.running.push(Box::pin(async move {
                    let report = probe::ask(&dial, agent.send.as_deref(), agent.timeout).await;
                    let answer = Answer::Agent(report);
                    Done { purpose, started, latency: started.elapsed(), port, answer }
                }));
            }
        }
    }

    fn prober(&mut self, kind: &CheckKind) -> Result<Arc<dyn Prober + Send + Sync>, Failure> {
        if let Some(prober) = self.probers.get(kind) {
            return Ok(Arc::clone(prober));
        }
        let prober = probe::prober(kind).map_err(|error| Failure::Local(error.to_string()))?;
        self.probers.insert(kind.clone(), Arc::clone(&prober));
        Ok(prober)
    }

    /// How to get to a task's target, with the source port taken for it.
    fn dial(&mut self, task: &Task) -> Result<(Dial, Option<u16>), Failure> {
        let check = match &task.question {
            Question::Check(check) => Some(&**check),
            Question::Agent(_) => None,
        };
        match &task.target {
            Target::Direct { address, port } => {
                let dial = Dial {
                    target: (*address, *port).into(),
                    source: check.and_then(|check| check.source),
                    source_port: None,
                    interface: check.and_then(|check| check.interface.clone()),
                };
                Ok((dial, None))
            }
            Target::Service(through) => {
                let all_taken = || Failure::Local("every source port of probes is in use".to_owned());
                let port = self.ports.take(through).ok_or_else(all_taken)?;
                let target = (through.address, through.port).into();
                let dial =
                    Dial { target, source: Some(through.node), source_port: Some(port), interface: None };
                Ok((dial, Some(port)))
            }
            Target::Unreachable(why) => Err(Failure::NoWay(why.clone())),
            Target::Impossible(why) => Err(Failure::Local(why.clone())),
        }
    }

    fn finish(&mut self, done: Done) {
        if let Some(port) = done.port {
            self.ports.give_back(port);
        }
        let (id, epoch) = match done.purpose {
            Purpose::Task(id, epoch) => (id, epoch),
            Purpose::Once(reply) => {
                let result = match done.answer {
                    Answer::Check(result) => result,
                    Answer::Agent(result) => result.map(drop),
                };
                let _nobody_waits = reply.send(result.map(|()| done.latency));
                return;
            }
        };
        let now = Instant::now();
        // A task that is gone has left the schedule as well.
        let Some(entry) = self.entries.get_mut(&id).filter(|entry| entry.epoch == epoch) else { return };
        let failure = match &done.answer {
            Answer::Check(result) => result.as_ref().err(),
            Answer::Agent(result) => result.as_ref().err(),
        };
        if let Some(Failure::Local(why)) = failure {
            // Our own trouble says nothing of the backend.
            let never = Last { at: now, latency: Duration::ZERO, failure: None, streak: 0, hindrance: None };
            entry.last.get_or_insert(never).hindrance = Some(why.clone());
            let pause = HINDERED.max(timing(&entry.task.question).interval);
            return self.schedule.reschedule(id, now + pause, Urgency::Paced);
        }
        let failure = failure.cloned();
        let before = entry.last.as_ref().and_then(|last| last.failure.as_ref());
        let other = failure.clone().filter(|now| before.is_some_and(|before| before.label() != now.label()));
        let passed = if failure.is_none() { Passed::Passed } else { Passed::Failed };
        if entry.suspected.is_some_and(|at| done.started >= at) {
            entry.suspected = None;
            entry.state.suspect();
        }
        let first = entry.state.streak().is_none();
        let changed = entry.state.record(now, passed);
        // What was known from before a restart is confirmed.
        let changed =
            changed.or_else(|| (first && !entry.state.is_deciding()).then(|| entry.state.standing()));
        let streak = entry.state.streak().map_or(0, |(_, streak)| streak);
        let last = Last { at: now, latency: done.latency, failure, streak, hindrance: None };
        entry.last = Some(last.clone());
        let urgency = if entry.state.is_deciding() { Urgency::Urgent } else { Urgency::Paced };
        self.schedule.reschedule(id, entry.state.next(done.started, now, fastrand::f64()), urgency);
        let event = match done.answer {
            Answer::Check(_) => match changed {
                Some(standing) => Some(Event::Standing(id, standing, last)),
                None => other.map(|failure| Event::Reason(id, failure)),
            },
            Answer::Agent(report) => {
                let news = report.ok().filter(|report| entry.said.as_ref() != Some(report));
                entry.said = news.clone().or(entry.said.take());
                news.map(|report| Event::Agent(id, report))
            }
        };
        if let Some(event) = event {
            let _daemon_ends = self.events.send(event);
        }
    }
}

fn kind(question: &Question) -> Option<&CheckKind> {
    match question {
        Question::Check(check) => Some(&check.kind),
        Question::Agent(_) => None,
    }
}

/// An agent is asked at its interval, whether it answers or not.
fn timing(question: &Question) -> Timing {
    match question {
        Question::Check(check) => check.timing,
        Question::Agent(agent) => Timing {
            interval: agent.interval,
            fast_interval: agent.interval,
            timeout: agent.timeout,
            healthy_threshold: 1,
            unhealthy_threshold: 1,
            max_interval: agent.interval,
        },
    }
}
