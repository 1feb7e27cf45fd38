//! Makes every probe of a config once: the pre-flight test.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use super::probing::{Lanes, Others, Probing};
use super::targets::{Ways, target, ways};
use super::{Candidate, Engine, Error, Instance, Machine, gate, next_hops};
use crate::health::fleet::{Fleet, Place};
use crate::health::job::Asked;
use crate::health::member::State;
use crate::health::probe::Failure;
use crate::health::task::{Event, Question, Target, Task, TaskId};
use crate::health::words;
use crate::model::{Model, Via};
use crate::netlink::{Resolutions, links, resolve};

/// How long unresolved next hops are waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// Probes made at a time.
const AT_A_TIME: usize = 200;

/// What a probe found.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Checked {
    /// The service's name.
    pub service: String,
    /// Its address, port and protocol.
    pub id: String,
    /// The backend's address.
    pub backend: IpAddr,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// `icmp`, `tcp`, `http`, `https`, `udp` or `agent`; `none` for a backend without checks.
    pub kind: String,
    /// `direct` or `service`.
    pub via: String,
    /// Whether it passed; unknown where it could not be made.
    pub passed: Option<bool>,
    /// How long it took, in microseconds.
    pub latency_us: Option<u64>,
    /// Why it did not pass, in words.
    pub reason: Option<String>,
}

type Results = BTreeMap<TaskId, Result<Duration, Failure>>;

/// Makes them with a running daemon's threads, through its data plane.
pub(super) async fn beside(
    lanes: &Lanes,
    model: &Model,
    numbers: &BTreeMap<Place, u32>,
    attached: &BTreeSet<u32>,
) -> Result<Vec<Checked>, Error> {
    let resolutions = resolve(next_hops(model), PATIENCE).await?;
    let links = links().await?;
    let known = Ways { numbers, resolutions: &resolutions, attached, links: &links };
    Ok(all(lanes, model, &known, None).await)
}

/// Makes them without a daemon. Where nothing is attached, the program is attached for as long as it takes, and takes no
/// traffic but the probes' replies; what is attached is used as it is.
pub async fn check_once(instance: &Instance, candidate: Candidate) -> Result<Vec<Checked>, Error> {
    let model = candidate.loaded.model.clone();
    let resolutions = resolve(next_hops(&model), PATIENCE).await?;
    let (events, _nobody_listens) = mpsc::unbounded_channel();
    let mut probing = Probing::start(AT_A_TIME, events.clone());
    let mut backends = model.services.iter().flat_map(|service| &service.backends);
    if !backends.any(|backend| backend.checks.iter().any(|check| check.via == Via::Service)) {
        let (numbers, attached) = (BTreeMap::new(), BTreeSet::new());
        let links = links().await?;
        let known = Ways { numbers: &numbers, resolutions: &resolutions, attached: &attached, links: &links };
        return Ok(all(probing.lanes(), &model, &known, None).await);
    }
    let interrupted = |kind| {
        signal(kind).map_err(|source| Error::File { action: "waiting for", path: "signals".into(), source })
    };
    let mut interrupt = interrupted(SignalKind::interrupt())?;
    let mut terminate = interrupted(SignalKind::terminate())?;
    let mut stage = Stage::set(instance, &candidate)?;
    let work = async {
        let (numbers, trouble) = match stage.open(&mut probing, &resolutions, events).await {
            Ok(numbers) => (numbers, None),
            Err(error @ Error::Gate(_)) => (BTreeMap::new(), Some(error.to_string())),
            Err(error) => return Err(error),
        };
        let attached = stage.engine.attached();
        let links = links().await?;
        let known = Ways { numbers: &numbers, resolutions: &resolutions, attached: &attached, links: &links };
        Ok(all(probing.lanes(), &model, &known, trouble.as_deref()).await)
    };
    // Interrupted or not, the stage is cleared when it goes.
    let checked = tokio::select! {
        checked = work => checked,
        _ = interrupt.recv() => Err(Error::Interrupted),
        _ = terminate.recv() => Err(Error::Interrupted),
    };
    gate::close().await;
    checked
}

/// The data plane that probes go through; one that was made for them goes with this value.
struct Stage {
    engine: Engine,
    own: Option<Instance>,
}

impl Stage {
    fn set(instance: &Instance, candidate: &Candidate) -> Result<Self, Error> {
        if instance.pins.is_live() {
            let engine = Engine::adopt(instance, candidate, instance.lock()?)?;
            return Ok(Self { engine, own: None });
        }
        instance.clear_aside();
        let own = instance.aside();
        let made = Engine::aside(&own, candidate);
        if made.is_err() {
            clear(&own);
        }
        Ok(Self { engine: made?, own: Some(own) })
    }

    /// Opens the way through the services; the backends' numbers.
    async fn open(
        &mut self,
        probing: &mut Probing,
        resolutions: &Resolutions,
        events: mpsc::UnboundedSender<Event>,
    ) -> Result<BTreeMap<Place, u32>, Error> {
        let unguarded =
            Probing::dig(AT_A_TIME, self.engine.probe_table()?, events).await.map_err(Error::Gate)?;
        let (links, gate) = gate::raise().await.map_err(Error::Gate)?;
        let machine = Machine { links: &links, resolutions };
        let numbers = if self.own.is_some() {
            self.engine.stage(machine)?
        } else {
            self.engine.follow(machine)?;
            self.engine.numbers()?
        };
        let (program, port) = self.engine.guard_gate(&gate)?;
        probing.open(unguarded, program, port);
        Ok(numbers)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(own) = &self.own {
            clear(own);
        }
    }
}

fn clear(own: &Instance) {
    own.pins.discard();
    own.forget();
}

/// Makes all probes of a model once.
async fn all(lanes: &Lanes, model: &Model, known: &Ways<'_>, trouble: Option<&str>) -> Vec<Checked> {
    let mut fleet = Fleet::default();
    fleet.set_model(model, |_| State::Unknown, Instant::now());
    let tasks = fleet.tasks(|question, asked| target(question, asked, known, lanes.gate(), trouble));
    lanes.lend_addresses(&tasks, Others::Stay).await;
    let mut results = Results::new();
    for some in tasks.chunks(AT_A_TIME) {
        let waiting: Vec<_> = some
            .iter()
            .map(|task| {
                let (reply, result) = oneshot::channel();
                lanes.once(task.clone(), reply);
                (task.id, result)
            })
            .collect();
        for (id, result) in waiting {
            if let Ok(result) = result.await {
                results.insert(id, result);
            }
        }
    }
    let compared = compare(lanes, &fleet, &tasks, &results).await;
    rows(&fleet, model, &tasks, &results, &compared)
}

/// How the own addresses of those do that did not answer through their service: that narrows down the cause.
async fn compare(lanes: &Lanes, fleet: &Fleet, tasks: &[Task], results: &Results) -> Results {
    let mut compared = Results::new();
    let failed = tasks.iter().filter_map(|task| {
        let (question, asked) = fleet.asked(task.id)?;
        let failure = results.get(&task.id)?.as_ref().err()?;
        super::targets::comparison(task.id, question, asked, failure)
    });
    for task in failed {
        let (reply, result) = oneshot::channel();
        let id = task.id;
        lanes.once(task, reply);
        if let Ok(result) = result.await {
            compared.insert(id, result);
        }
    }
    compared
}

fn rows(fleet: &Fleet, model: &Model, tasks: &[Task], results: &Results, compared: &Results) -> Vec<Checked> {
    let ways = ways(model);
    let mut rows = Vec::new();
    for service in &model.services {
        for backend in &service.backends {
            let place = (service.id, backend.address);
            let row = |kind: &str, via: &str| Checked {
                service: service.name.clone(),
                id: service.id.to_string(),
                backend: backend.address,
                name: backend.name.clone(),
                kind: kind.to_owned(),
                via: via.to_owned(),
                passed: None,
                latency_us: None,
                reason: None,
            };
            let ids = fleet.tasks_at(place);
            if ids.is_empty() {
                rows.push(Checked { reason: Some("no check is configured".to_owned()), ..row("none", "-") });
            }
            for id in ids {
                let Some(task) = tasks.iter().find(|task| task.id == id) else { continue };
                let (kind, via) = match &task.question {
                    Question::Check(check) if check.via == Via::Service => (check.kind.name(), "service"),
                    Question::Check(check) => (check.kind.name(), "direct"),
                    Question::Agent(_) => ("agent", "direct"),
                };
                let way = ways.get(&place).copied().unwrap_or(words::Way::L2);
                let asked = fleet.asked(id).map(|(_, asked)| asked);
                let direct = compared.get(&id);
                rows.push(judge(row(kind, via), task, results.get(&id), way, asked, direct));
            }
        }
    }
    rows
}

fn judge(
    row: Checked,
    task: &Task,
    result: Option<&Result<Duration, Failure>>,
    way: words::Way,
    asked: Option<Asked>,
    direct: Option<&Result<Duration, Failure>>,
) -> Checked {
    match result {
        Some(Ok(latency)) => {
            let latency_us = u64::try_from(latency.as_micros()).ok();
            Checked { passed: Some(true), latency_us, ..row }
        }
        Some(Err(Failure::Local(why))) => Checked { reason: Some(format!("not probed: {why}")), ..row },
        Some(Err(failure)) => {
            let reason = match (&task.target, asked) {
                (Target::Service(_), Some(Asked::Through(service, backend, _))) => {
                    let vip = service.address;
                    direct.map_or_else(
                        || words::through_service(way, vip, failure),
                        |direct| words::compared(way, vip, backend, failure, direct.as_ref().map(drop)),
                    )
                }
                _ => failure.to_string(),
            };
            Checked { passed: Some(false), reason: Some(reason), ..row }
        }
        None => Checked { reason: Some("not probed: interrupted".to_owned()), ..row },
    }
}
