//! What each backend of a service gets, from the state of all of them: start-up, backups, and the floor below which
//! failures are not believed. Knows nothing of checks or of how a backend came by its state; the answer depends on
//! nothing but the arguments.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::member::{Admin, State, Use};
use crate::model::{AllDown, FailurePolicy};

/// One backend as the service sees it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Input<K> {
    /// Its name for the floor's memory, such as its address; no two of a service share it.
    pub key: K,
    /// What is believed of it.
    pub state: State,
    /// What it may get by itself.
    pub use_: Use,
    /// Whether it is one of those that the service began with: unknown like all of them, it serves until its first
    /// probes say otherwise. One that came later waits for them.
    pub founding: bool,
    /// How the operator or its agent want it used.
    pub admin: Admin,
    /// 0: a primary; backups count up from 1, in the order in which they step in.
    pub group: u8,
    /// Configured weight; 0 takes no new flows.
    pub weight: u32,
    /// When it stopped being up; `None` unless down or held.
    pub down_since: Option<Instant>,
}

impl<K> Input<K> {
    /// Whether it may be given new flows as far as people and agents are concerned.
    fn is_candidate(&self) -> bool {
        let wanted = self.weight > 0 && self.admin == Admin::Ready;
        wanted && (self.has_failed() || matches!(self.use_, Use::Serving { .. }))
    }

    fn has_failed(&self) -> bool {
        matches!(self.state, State::Held | State::Down)
    }
}

/// What a service gives each of its backends.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Decision {
    /// In the order of the inputs.
    pub uses: Vec<Use>,
    /// What people should know.
    pub alarm: Option<Alarm>,
}

/// A service that no longer follows its checks, or that serves no one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Alarm {
    /// So many failed at once that it is not believed.
    MassFailure {
        /// Backends whose failure is not believed.
        failed: usize,
        /// These and the ones that are up.
        of: usize,
        /// How many of the failed serve on.
        kept: usize,
    },
    /// None is up.
    AllDown {
        /// How many serve nonetheless: those last known to work, and any that are held down.
        kept: usize,
    },
    /// No backend takes new flows.
    Rejecting,
}

/// Why failures are not believed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Cause {
    /// Too many at once.
    Mass,
    /// No one else is left.
    AllDown,
}

/// What is remembered from one decision to the next.
#[derive(Clone, Debug)]
pub struct Floor<K> {
    latched: BTreeSet<K>,
    cause: Option<Cause>,
    served: BTreeSet<K>,
    /// Whether any backend has ever been up: before that, one that fails is no loss.
    proven: bool,
}

impl<K> Default for Floor<K> {
    fn default() -> Self {
        Self { latched: BTreeSet::new(), cause: None, served: BTreeSet::new(), proven: false }
    }
}

impl<K: Ord + Clone> Floor<K> {
    /// Those whose failure is not believed at the moment, in order.
    pub fn latched(&self) -> impl Iterator<Item = &K> {
        self.latched.iter()
    }

    /// Lets go of those that recovered, left or are wanted otherwise, and of all once their cause is over.
    fn release(&mut self, policy: &FailurePolicy, scene: &Scene<K>) {
        self.proven |= scene.up > 0;
        self.latched.retain(|key| scene.failed.contains_key(key));
        let stays = match self.cause {
            Some(Cause::Mass) => exceeds(policy.max_failed, self.latched.len(), scene.up),
            Some(Cause::AllDown) => scene.up == 0 && policy.all_down == AllDown::LastKnown,
            None => false,
        };
        if !stays || self.latched.is_empty() {
            self.latched.clear();
            self.cause = None;
        }
    }

    /// Takes in those whose failure is not to be believed.
    fn latch(&mut self, policy: &FailurePolicy, scene: &Scene<K>) {
        if scene.unknown > 0 && !self.proven {
            return;
        }
        let doubted = if self.cause == Some(Cause::Mass) { self.latched.clone() } else { BTreeSet::new() };
        let failed = scene.recent.union(&doubted).count();
        // The last one failing alone is not many failing at once: `all_down` is the word for it.
        let several = scene.up > 0 || failed > 1;
        if several && exceeds(policy.max_failed, failed, scene.up) {
            self.latched.extend(scene.recent.iter().cloned());
            self.cause = Some(Cause::Mass);
        } else if scene.up == 0 && policy.all_down == AllDown::LastKnown {
            let last = if self.cause.is_none() { self.last_known(scene) } else { scene.recent.clone() };
            self.latched.extend(last);
            self.cause = self.cause.or((!self.latched.is_empty()).then_some(Cause::AllDown));
        }
    }

    /// Who is most likely to work although none is up: those that just failed, else those that served last, else (after
    /// a start) the primaries.
    fn last_known(&self, scene: &Scene<K>) -> BTreeSet<K> {
        let of = |keep: &dyn Fn(&K, u8) -> bool| {
            let kept = scene.failed.iter().filter(|(key, group)| keep(key, **group));
            kept.map(|(key, _)| key.clone()).collect::<BTreeSet<K>>()
        };
        if !scene.recent.is_empty() {
            return scene.recent.clone();
        }
        let served = of(&|key, _| self.served.contains(key));
        if !served.is_empty() || scene.unknown > 0 {
            return served;
        }
        let first = scene.failed.values().min();
        of(&|_, group| first == Some(&group))
    }
}

/// The candidates of one service at one moment.
struct Scene<K> {
    /// How many are up or on trial.
    up: usize,
    unknown: usize,
    /// Those that are down or held, with their groups.
    failed: BTreeMap<K, u8>,
    /// The failed that were up within the window.
    recent: BTreeSet<K>,
}

impl<K: Ord + Clone> Scene<K> {
    fn new(members: &[Input<K>], window: Duration, now: Instant) -> Self {
        let candidates = || members.iter().filter(|member| member.is_candidate());
        let failed = || candidates().filter(|member| member.has_failed());
        let recent = |member: &&Input<K>| {
            member.down_since.is_some_and(|since| now.saturating_duration_since(since) <= window)
        };
        Self {
            up: candidates().filter(|member| member.state.is_up()).count(),
            unknown: candidates().filter(|member| member.state == State::Unknown).count(),
            failed: failed().map(|member| (member.key.clone(), member.group)).collect(),
            recent: failed().filter(recent).map(|member| member.key.clone()).collect(),
        }
    }

    /// Whether it serves if its group is active. While none is up, the unknown may well work, and so may those that are
    /// held: holding down spares flows a move, and there is nowhere to move to.
    fn may_serve(&self, floor: &Floor<K>, member: &Input<K>) -> bool {
        member.is_candidate()
            && match member.state {
                State::Up | State::Trial => true,
                State::Unknown => self.up == 0 || member.founding,
                State::Held => self.up == 0 || floor.latched.contains(&member.key),
                State::Down => floor.latched.contains(&member.key),
            }
    }
}

/// Decides what each of `members` gets.
///
/// `window`, computed by the caller, is the longest time in which all checks see one event. To be called whenever a
/// member changes; the mere passing of time changes nothing.
pub fn decide<K: Ord + Clone>(
    policy: &FailurePolicy,
    floor: &mut Floor<K>,
    window: Duration,
    now: Instant,
    members: &[Input<K>],
) -> Decision {
    let scene = Scene::new(members, window, now);
    floor.release(policy, &scene);
    floor.latch(policy, &scene);
    let last_group = last_active(policy, floor, &scene, members);
    let uses: Vec<Use> = members.iter().map(|member| what(floor, &scene, last_group, member)).collect();
    let serving = || members.iter().zip(&uses).filter(|(_, use_)| use_.serves());
    let keys: BTreeSet<K> = serving().map(|(member, _)| member.key.clone()).collect();
    let alarm = alarm(policy, floor, &scene, &keys);
    if !keys.is_empty() {
        floor.served = keys;
    }
    Decision { uses, alarm }
}

/// Whether `failed` are more than `percent` of themselves and those that are up.
fn exceeds(percent: u8, failed: usize, up: usize) -> bool {
    failed * 100 > usize::from(percent) * (failed + up)
}

/// The highest group that is active: each is while those before it have fewer than `min_active` who may serve.
fn last_active<K: Ord + Clone>(
    policy: &FailurePolicy,
    floor: &Floor<K>,
    scene: &Scene<K>,
    members: &[Input<K>],
) -> u8 {
    let mut able = BTreeMap::<u8, usize>::new();
    for member in members.iter().filter(|member| scene.may_serve(floor, member)) {
        *able.entry(member.group).or_default() += 1;
    }
    let needed = usize::try_from(policy.min_active).unwrap_or(usize::MAX);
    let mut sum = 0;
    let enough = able.into_iter().find(|(_, count)| {
        sum += count;
        sum >= needed
    });
    enough.map_or(u8::MAX, |(group, _)| group)
}

fn what<K: Ord + Clone>(floor: &Floor<K>, scene: &Scene<K>, last_group: u8, member: &Input<K>) -> Use {
    match (scene.may_serve(floor, member), member.use_) {
        (true, _) if member.group > last_group => Use::Draining,
        (true, own @ Use::Serving { .. }) => own,
        (true, _) if floor.cause == Some(Cause::AllDown) && member.state == State::Down => Use::LastKnown,
        (true, _) => Use::Serving { percent: 100 },
        // Weight 0, or new and unknown beside proven ones.
        (false, Use::Serving { .. }) => Use::Draining,
        (false, own) => own,
    }
}

fn alarm<K: Ord>(
    policy: &FailurePolicy,
    floor: &Floor<K>,
    scene: &Scene<K>,
    serving: &BTreeSet<K>,
) -> Option<Alarm> {
    let starting = scene.unknown > 0 && !floor.proven;
    let mass = floor.cause == Some(Cause::Mass);
    if serving.is_empty() {
        Some(Alarm::Rejecting)
    } else if scene.up == 0 && !starting && !(mass && policy.all_down == AllDown::Reject) {
        Some(Alarm::AllDown { kept: serving.len() })
    } else if mass {
        let failed = floor.latched.len();
        let kept = floor.latched.intersection(serving).count();
        Some(Alarm::MassFailure { failed, of: failed + scene.up, kept })
    } else {
        None
    }
}

#[cfg(test)]
mod tests;
