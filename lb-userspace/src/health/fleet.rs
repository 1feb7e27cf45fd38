//! All backends of all services: which probes speak for which of them, what becomes of the results, and what has
//! changed. Pure: probes are made elsewhere, and time is handed in.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::check::Standing;
use super::decide::{Alarm, Floor, Input, decide};
use super::job::{Asked, Job, SLACK, asked, said, window_of};
use super::member::{Agent, Member, Override, State, Use};
use super::probe::AgentReport;
use super::response::Response;
use super::slow_start::SlowStart;
use super::task::{Last, Question, Target, Task, TaskId};
use super::tell::Transition;
use crate::model::{Algorithm, Backend, FailurePolicy, HealthPolicy, Model, Service, ServiceId};

/// Names a backend of a service.
pub type Place = (ServiceId, IpAddr);

/// What every backend gets.
pub type Uses = BTreeMap<Place, Use>;

/// Everything that is watched.
#[derive(Debug, Default)]
pub struct Fleet {
    services: BTreeMap<ServiceId, Watched>,
    jobs: BTreeMap<TaskId, Job>,
    ids: HashMap<(Question, Asked), TaskId>,
    next: u32,
    overrides: BTreeMap<(String, IpAddr), Override>,
}

/// A service.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) name: String,
    pub(super) pool: String,
    failure: FailurePolicy,
    window: Duration,
    pub(super) floor: Floor<IpAddr>,
    pub(super) alarm: Option<Alarm>,
    slow_start: Duration,
    /// Where shares follow latencies.
    response: Option<Response>,
    pub(super) members: BTreeMap<IpAddr, Watch>,
}

/// A backend of a service.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) name: Option<String>,
    pub(super) group: u8,
    pub(super) weight: u16,
    health: HealthPolicy,
    pub(super) member: Member,
    /// The tasks of its checks, in the config's order.
    pub(super) checks: Vec<TaskId>,
    pub(super) agent: Option<TaskId>,
    told: State,
    pub(super) gets: Use,
    founding: bool,
    slow: SlowStart,
    /// It has been up.
    proven: bool,
}

/// What a decision changed.
#[derive(Debug, Default)]
pub struct Decided {
    /// What every backend gets.
    pub uses: Uses,
    /// Changes of state.
    pub transitions: Vec<Transition>,
    /// Services, by name, whose alarm began, changed or ended.
    pub alarms: Vec<(String, Option<Alarm>)>,
}

impl Fleet {
    /// Watches what a model asks for. Backends that were watched before keep their state where their checks are the
    /// same; `initial` says what is known of the others.
    pub fn set_model(&mut self, model: &Model, initial: impl Fn(Place) -> State, now: Instant) {
        let mut before = std::mem::take(&mut self.services);
        for job in self.jobs.values_mut() {
            job.members.clear();
        }
        for service in &model.services {
            let old = before.remove(&service.id);
            let watched = self.watch(service, old, &initial, now);
            self.services.insert(service.id, watched);
        }
        self.jobs.retain(|_, job| !job.members.is_empty());
        let jobs = &self.jobs;
        self.ids.retain(|_, id| jobs.contains_key(id));
    }

    fn watch(
        &mut self,
        service: &Service,
        old: Option<Watched>,
        initial: &impl Fn(Place) -> State,
        now: Instant,
    ) -> Watched {
        let founding = old.is_none();
        let (floor, alarm, response, mut before) =
            old.map_or_else(Default::default, |old| (old.floor, old.alarm, old.response, old.members));
        let mut window = SLACK;
        let mut members = BTreeMap::new();
        for backend in &service.backends {
            window = backend.checks.iter().map(window_of).fold(window, Duration::max);
            let place = (service.id, backend.address);
            let old = before.remove(&backend.address);
            let slow = old.as_ref().map(|old| old.slow);
            let slow = slow.unwrap_or(if founding { SlowStart::warm() } else { SlowStart::cold() });
            let watch = self.watch_one(service, backend, old, &|| initial(place), now);
            members.insert(backend.address, Watch { founding: watch.founding || founding, slow, ..watch });
        }
        let follows = service.flows.algorithm == Algorithm::LeastResponseTime;
        let mut response: Option<Response> = follows.then(|| response.unwrap_or_default());
        if let Some(response) = &mut response {
            response.keep(service.flows.idle.established, |address| members.contains_key(&address));
        }
        let (name, pool) = (service.name.clone(), service.pool.clone());
        let slow_start = service.drain.slow_start;
        Watched { name, pool, failure: service.failure, window, floor, alarm, slow_start, response, members }
    }

    fn watch_one(
        &mut self,
        service: &Service,
        backend: &Backend,
        old: Option<Watch>,
        initial: &dyn Fn() -> State,
        now: Instant,
    ) -> Watch {
        let place = (service.id, backend.address);
        let mut checks = Vec::new();
        for (index, check) in backend.checks.iter().enumerate() {
            let question = Question::Check(Arc::new(check.clone()));
            checks.push(self.job(question, asked(service.id, backend, check), (place, index)));
        }
        let agent = service.agent.as_ref().map(|agent| {
            let asked = Asked::Direct(backend.address, agent.port);
            self.job(Question::Agent(agent.clone()), asked, (place, checks.len()))
        });
        let said = agent.and_then(|agent| self.jobs.get(&agent)).map(|job| job.said);
        let same = |old: &Watch| (&old.checks, old.agent, old.health) == (&checks, agent, service.health);
        let mut watch = match old {
            Some(old) if same(&old) => old,
            old => {
                let known = old.map_or_else(initial, |old| old.member.state());
                let mut member = Member::new(service.health, checks.len(), said, known, now);
                for (index, check) in checks.iter().enumerate() {
                    let standing = self.jobs.get(check).map_or(Standing::Unknown, |job| job.standing);
                    member.check(now, index, standing);
                }
                let told = member.state();
                let gets = Use::Serving { percent: 100 };
                let (name, group, weight, health) = (None, 0, 0, service.health);
                Watch {
                    name,
                    group,
                    weight,
                    health,
                    member,
                    checks,
                    agent,
                    told,
                    gets,
                    founding: false,
                    slow: SlowStart::warm(),
                    proven: told.is_up(),
                }
            }
        };
        watch.member.override_(now, self.overrides.get(&(service.pool.clone(), backend.address)).copied());
        Watch {
            name: backend.name.clone(),
            group: backend.group,
            weight: backend.effective_weight(),
            ..watch
        }
    }

    fn job(&mut self, question: Question, asked: Asked, member: (Place, usize)) -> TaskId {
        let key = (question, asked);
        let id = self.ids.get(&key).copied().unwrap_or_else(|| {
            let id = TaskId(self.next);
            self.next = self.next.wrapping_add(1);
            self.ids.insert(key.clone(), id);
            id
        });
        let (question, asked) = key;
        let (standing, said) = (Standing::Unknown, Agent::default());
        let fresh = || Job { question, asked, standing, why: None, said, members: Vec::new() };
        self.jobs.entry(id).or_insert_with(fresh).members.push(member);
        id
    }

    /// All tasks; `target` says how each is reached now.
    pub fn tasks(&self, target: impl Fn(&Question, &Asked) -> Target) -> Vec<Task> {
        let task = |(id, job): (&TaskId, &Job)| Task {
            id: *id,
            question: job.question.clone(),
            target: target(&job.question, &job.asked),
            standing: self.remembered(job),
        };
        self.jobs.iter().map(task).collect()
    }

    /// What a check is taken to say before it has spoken: what its backend is known to be.
    fn remembered(&self, job: &Job) -> Standing {
        let first = job.members.first().and_then(|(place, _)| self.member(*place));
        match (job.standing, first.map(|watch| watch.member.state())) {
            (Standing::Unknown, Some(State::Up | State::Trial)) => Standing::Passing,
            (Standing::Unknown, Some(State::Down | State::Held)) => Standing::Failing,
            (standing, _) => standing,
        }
    }

    pub(super) fn member(&self, (service, backend): Place) -> Option<&Watch> {
        self.services.get(&service)?.members.get(&backend)
    }

    pub(super) fn services(&self) -> impl Iterator<Item = (&ServiceId, &Watched)> {
        self.services.iter()
    }

    pub(super) fn job_of(&self, id: TaskId) -> Option<&Job> {
        self.jobs.get(&id)
    }

    /// Whether any service has a backend with this address.
    pub fn has(&self, address: IpAddr) -> bool {
        self.services.values().any(|service| service.members.contains_key(&address))
    }

    /// Backends that are down or held.
    pub fn down(&self) -> impl Iterator<Item = Place> {
        let fails = |watch: &Watch| matches!(watch.member.state(), State::Down | State::Held);
        self.services.iter().flat_map(move |(id, service)| {
            service.members.iter().filter(move |(_, w)| fails(w)).map(move |(address, _)| (*id, *address))
        })
    }

    /// Who is asked by a task.
    pub fn asked(&self, id: TaskId) -> Option<(&Question, Asked)> {
        self.jobs.get(&id).map(|job| (&job.question, job.asked))
    }

    /// Tasks that speak for a backend, in the config's order.
    pub fn tasks_at(&self, place: Place) -> Vec<TaskId> {
        let watch = self.member(place);
        watch.map_or_else(Vec::new, |watch| watch.checks.iter().chain(&watch.agent).copied().collect())
    }

    /// Tasks that ask this backend, whichever way.
    pub fn tasks_of(&self, address: IpAddr) -> Vec<TaskId> {
        let asks = |job: &&Job| job.members.iter().any(|((_, backend), _)| *backend == address);
        let check = |job: &Job| matches!(job.question, Question::Check(_));
        let ours = self.jobs.iter().filter(|(_, job)| check(job) && asks(job));
        ours.map(|(id, _)| *id).collect()
    }

    /// A check's standing has changed, with the reason where it fails.
    pub fn standing(&mut self, id: TaskId, standing: Standing, why: Option<String>, now: Instant) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.standing = standing;
        job.why = why;
        for ((service, backend), index) in &job.members {
            if let Some(watch) = self.services.get_mut(service).and_then(|s| s.members.get_mut(backend)) {
                watch.member.check(now, *index, standing);
            }
        }
    }

    /// More is known of why a check fails.
    pub fn explain(&mut self, id: TaskId, why: String) {
        if let Some(job) = self.jobs.get_mut(&id).filter(|job| job.why.is_some()) {
            job.why = Some(why);
        }
    }

    /// An agent has spoken.
    pub fn agent(&mut self, id: TaskId, report: &AgentReport, now: Instant) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.said = said(job.said, report);
        job.why = report.reason.as_ref().map(|reason| format!("agent: {reason}"));
        for ((service, backend), _) in &job.members {
            if let Some(watch) = self.services.get_mut(service).and_then(|s| s.members.get_mut(backend)) {
                watch.member.agent(now, job.said);
            }
        }
    }

    /// Replaces the operator's words, by pool and backend.
    pub fn set_overrides(&mut self, overrides: BTreeMap<(String, IpAddr), Override>, now: Instant) {
        self.overrides = overrides;
        for service in self.services.values_mut() {
            for (address, watch) in &mut service.members {
                let word = self.overrides.get(&(service.pool.clone(), *address)).copied();
                watch.member.override_(now, word);
            }
        }
    }

    /// When something changes by itself.
    pub fn next_timer(&self) -> Option<Instant> {
        let members = self.services.values().flat_map(|service| {
            let time = service.slow_start;
            let timers = move |w: &Watch| w.member.next_timer().into_iter().chain(w.slow.next_step(time));
            service.members.values().flat_map(timers)
        });
        members.min()
    }

    /// Whether anybody wants to know how long probes take.
    pub fn wants_latencies(&self) -> bool {
        self.services.values().any(|service| service.response.is_some())
    }

    /// Takes the probes' last results. Of several checks of a backend the slowest counts.
    pub fn latencies(&mut self, last: &BTreeMap<TaskId, Last>) {
        for service in self.services.values_mut() {
            let Some(response) = &mut service.response else { continue };
            for (address, watch) in &service.members {
                let results = watch.checks.iter().filter_map(|id| last.get(id));
                let good = results.filter(|last| last.failure.is_none());
                if let Some(slowest) = good.max_by_key(|last| last.latency) {
                    response.sample(*address, slowest.latency, slowest.at);
                }
            }
        }
    }

    /// What every backend gets now, and what has changed since the last call.
    pub fn decide(&mut self, now: Instant) -> Decided {
        let mut decided = Decided::default();
        for (id, service) in &mut self.services {
            for watch in service.members.values_mut() {
                watch.member.tick(now);
                watch.proven |= watch.member.state().is_up();
            }
            let inputs: Vec<Input<IpAddr>> = service.members.iter().map(input).collect();
            let decision = decide(&service.failure, &mut service.floor, service.window, now, &inputs);
            if decision.alarm != service.alarm {
                service.alarm = decision.alarm;
                decided.alarms.push((service.name.clone(), decision.alarm));
            }
            let serving = service.members.keys().zip(&decision.uses).filter(|(_, gets)| gets.serves());
            let serving: BTreeSet<IpAddr> = serving.map(|(address, _)| *address).collect();
            if let Some(response) = &mut service.response {
                response.step(now, |address| serving.contains(&address));
            }
            for ((address, watch), gets) in service.members.iter_mut().zip(decision.uses) {
                let slow = watch.slow.percent(service.slow_start, gets.serves(), now);
                // A trial is a start already, which goes before.
                let slow = if watch.member.state() == State::Trial { 100 } else { slow };
                let response = service.response.as_ref().map_or(100, |response| response.percent(*address));
                let gets = gets.scaled(slow).scaled(response);
                watch.gets = gets;
                decided.uses.insert((*id, *address), gets);
                let (from, to) = (watch.told, watch.member.state());
                if from != to {
                    watch.told = to;
                    let why = if to == State::Down { why(&self.jobs, watch) } else { None };
                    let (service, name) = (service.name.clone(), watch.name.clone());
                    let transition = Transition { service, id: *id, backend: *address, name, from, to, why };
                    decided.transitions.push(transition);
                }
            }
        }
        decided
    }
}

/// Why a backend is down: what its first failing check says, or its agent.
fn why(jobs: &BTreeMap<TaskId, Job>, watch: &Watch) -> Option<String> {
    watch.checks.iter().chain(&watch.agent).find_map(|id| jobs.get(id)?.why.clone())
}

fn input((address, watch): (&IpAddr, &Watch)) -> Input<IpAddr> {
    Input {
        key: *address,
        state: watch.member.state(),
        use_: watch.member.use_(),
        founding: watch.founding,
        admin: watch.member.admin(),
        group: watch.group,
        weight: watch.weight.into(),
        // One that never worked is no loss that could be disbelieved.
        down_since: watch.member.down_since().filter(|_| watch.proven),
    }
}

#[cfg(test)]
mod tests;
