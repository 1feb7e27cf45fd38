//! Whether settings are still what they were made, and the daemon's part in it: beside its loop, since a driver may take
//! its time.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::net::if_::if_nametoindex;
use serde::Serialize;
use tokio::task::{JoinHandle, spawn_blocking};

use super::record::Record;
use super::{apply, code};
use crate::daemon::Finding;
use crate::model::Interface;
use crate::nic;

/// How often settings are looked at.
const PERIOD: Duration = Duration::from_millis(750);

/// What became of a setting.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PartState {
    /// As wanted.
    Set,
    /// Somebody has changed it since.
    Drifted,
    /// It could not be had.
    Refused,
}

/// A setting of an interface, for people.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct SettingState {
    /// The setting's key, and the part behind a space where it has several.
    pub setting: String,
    /// What it shall be; `None` where that cannot be told.
    pub wanted: Option<String>,
    /// What it is.
    pub now: Option<String>,
    /// What it was before `lb` looked at it, and will be after `lb detach`.
    pub before: Option<String>,
    /// What became of it.
    pub state: PartState,
    /// Why it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// The settings of all interfaces that have any, as they are now.
pub fn states(path: &Path) -> Vec<(String, Vec<SettingState>)> {
    let record = Record::load(path);
    let of = |(name, tuned): (&String, &super::Tuned)| {
        let facts = nic::facts(name);
        let mut settings: Vec<SettingState> = Vec::new();
        for part in &tuned.parts {
            let Some(wanted) = &part.wanted else { continue };
            let now = wanted.now(&facts);
            let refused = tuned.refused.iter().find(|refused| refused.part == part.name);
            let state = match (&now, refused) {
                (Some(now), _) if now.is(wanted) => PartState::Set,
                (_, Some(_)) => PartState::Refused,
                (_, None) => PartState::Drifted,
            };
            settings.push(SettingState {
                setting: part.name.clone(),
                wanted: Some(wanted.to_string()),
                now: now.map(|now| now.to_string()),
                before: Some(part.before.to_string()),
                why: refused.filter(|_| state == PartState::Refused).map(|refused| refused.why.clone()),
                state,
            });
        }
        for refused in &tuned.refused {
            if tuned.parts.iter().all(|part| part.name != refused.part) {
                settings.push(SettingState {
                    setting: refused.setting.clone(),
                    wanted: None,
                    now: None,
                    before: None,
                    state: PartState::Refused,
                    why: Some(refused.why.clone()),
                });
            }
        }
        // As they are applied, not as they were first looked at.
        let place = |found: &SettingState| {
            let key = found.setting.split(' ').next();
            nic::Setting::ORDER.iter().position(|setting| Some(setting.key()) == key)
        };
        settings.sort_by_key(place);
        (name.clone(), settings)
    };
    // One that went away has taken its settings along.
    let there = |(name, tuned): &(&String, &super::Tuned)| {
        if_nametoindex(name.as_str()).is_ok_and(|ifindex| ifindex == tuned.ifindex)
    };
    record.interfaces.iter().filter(there).map(of).collect()
}

/// Applies and watches settings while the daemon runs.
pub(in crate::daemon) struct Tuner {
    path: PathBuf,
    /// What shall be applied next.
    wanted: Option<Vec<Interface>>,
    /// Indices of the interfaces that have the program.
    attached: BTreeSet<u32>,
    task: Option<Task>,
    looked: Instant,
    /// Drifts that have been told.
    told: BTreeSet<(String, String)>,
}

enum Task {
    Apply(JoinHandle<Vec<Finding>>),
    Look(JoinHandle<Vec<(String, Vec<SettingState>)>>),
}

impl Tuner {
    pub(in crate::daemon) fn new(path: &Path, attached: BTreeSet<u32>) -> Self {
        let (path, looked) = (path.to_owned(), Instant::now());
        Self { path, wanted: None, attached, task: None, looked, told: BTreeSet::new() }
    }

    /// Has these settings applied, beside the loop.
    pub(in crate::daemon) fn want(&mut self, interfaces: Vec<Interface>, attached: BTreeSet<u32>) {
        (self.wanted, self.attached) = (Some(interfaces), attached);
    }

    /// Whether any of these interfaces has not had its settings applied.
    pub(in crate::daemon) fn has_not_seen(&self, attached: &BTreeSet<u32>) -> bool {
        !attached.is_subset(&self.attached)
    }

    /// To be called regularly: takes up what is done, starts what is due.
    pub(in crate::daemon) async fn tick(&mut self) {
        match self.task.take() {
            Some(Task::Apply(task)) if task.is_finished() => {
                task.await.unwrap_or_default().iter().for_each(|finding| tracing::warn!("{finding}"));
            }
            Some(Task::Look(task)) if task.is_finished() => self.tell(task.await.unwrap_or_default()),
            running => self.task = running,
        }
        if self.task.is_some() {
            return;
        }
        let path = self.path.clone();
        if let Some(interfaces) = self.wanted.take() {
            let attached: Vec<u32> = self.attached.iter().copied().collect();
            self.task = Some(Task::Apply(spawn_blocking(move || apply(&path, &interfaces, &attached))));
        } else if self.looked.elapsed() >= PERIOD && self.path.exists() {
            self.looked = Instant::now();
            self.task = Some(Task::Look(spawn_blocking(move || states(&path))));
        }
    }

    /// Tells of drifts that have not been told, once each.
    fn tell(&mut self, found: Vec<(String, Vec<SettingState>)>) {
        let mut drifted = BTreeSet::new();
        for (interface, setting) in found.iter().flat_map(|(name, all)| all.iter().map(move |s| (name, s))) {
            if setting.state != PartState::Drifted {
                continue;
            }
            let drift = (interface.clone(), setting.setting.clone());
            if !self.told.contains(&drift) {
                let now = setting.now.as_deref().unwrap_or("gone");
                let wanted = setting.wanted.as_deref().unwrap_or_default();
                let message =
                    format!("{interface}: {} is {now}, not {wanted}: somebody has changed it", drift.1);
                let help = "set it in the config too; a reload of a changed config, or the next start, sets it again";
                tracing::warn!("{}", Finding::warning(code::DRIFTED, message, help));
            }
            drifted.insert(drift);
        }
        self.told = drifted;
    }
}
