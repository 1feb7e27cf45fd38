//! One backend of one service: from its checks, its agent and the operator's word to what it may get by itself. Knows
//! nothing of the service's other backends, and nothing of probes; time is handed in.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::check::Standing;
use crate::model::{HealthPolicy, Require};

/// More failures than this are not told apart: the hold-down is at its longest by then.
const MOST_FLAPS: usize = 64;

/// What is believed of a backend.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum State {
    /// Too few of its checks have spoken.
    Unknown,
    /// It works.
    Up,
    /// It works again, and gets a part of its share until it has proven itself.
    Trial,
    /// Its checks pass, but it failed too often of late: it stays out until a moment.
    Held,
    /// It does not work.
    Down,
}

impl State {
    /// Whether its checks let it serve.
    pub fn is_up(self) -> bool {
        matches!(self, Self::Up | Self::Trial)
    }
}

/// The operator's word, which beats the agent's; without it a backend is enabled.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Override {
    /// No new flows.
    Drain,
    /// No flows.
    Disable,
}

/// How a backend is to be used, whatever its checks say.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Admin {
    /// As its checks allow.
    #[default]
    Ready,
    /// No new flows.
    Drain,
    /// No flows.
    Maint,
}

/// What the agent says of the backend's health.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Operational {
    /// Nothing: the checks alone decide.
    #[default]
    Unsaid,
    /// It works, if the checks agree.
    Up,
    /// Down, stopped or failed, whatever the checks say.
    Down,
}

/// All that the agent has said, each word being in force until another of its sort.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Agent {
    /// Share of the configured weight, in percent; 0 drains.
    pub weight_percent: u32,
    /// Health.
    pub up: Operational,
    /// Use.
    pub admin: Admin,
}

impl Default for Agent {
    fn default() -> Self {
        Self { weight_percent: 100, up: Operational::Unsaid, admin: Admin::Ready }
    }
}

/// What a backend gets.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Use {
    /// Flows, old and new.
    Serving {
        /// Share of its configured weight, in percent; at least 1.
        percent: u32,
    },
    /// As if it served with its whole weight, though it is down: all are, and it was among the last that worked.
    LastKnown,
    /// The flows it has.
    Draining,
    /// None: its flows move.
    Out,
}

impl Use {
    /// Whether it gets new flows.
    pub fn serves(self) -> bool {
        matches!(self, Self::Serving { .. } | Self::LastKnown)
    }

    /// With this share of what it would get, in percent, but not without any.
    #[must_use]
    pub fn scaled(self, by: u32) -> Self {
        match self {
            Self::Serving { percent } => {
                let percent = (u64::from(percent) * u64::from(by) + 50) / 100;
                Self::Serving { percent: u32::try_from(percent.max(1)).unwrap_or(u32::MAX) }
            }
            Self::LastKnown | Self::Draining | Self::Out => self,
        }
    }
}

/// What all checks mean together.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Verdict {
    Passing,
    Failing,
    Undecided,
}

/// One backend of one service.
#[derive(Clone, Debug)]
pub struct Member {
    policy: HealthPolicy,
    checks: Vec<Standing>,
    agent: Agent,
    /// What a check that has said nothing yet is taken to say.
    silence: Standing,
    operator: Option<Override>,
    state: State,
    since: Instant,
    /// End of a trial or a hold-down.
    until: Option<Instant>,
    /// When it last stopped serving; kept while held, so that a trial counts the hold-down as time away.
    down_since: Option<Instant>,
    flaps: VecDeque<Instant>,
}

impl Member {
    /// Starts with `initial`, known from before a restart: up, down or unknown (on trial counts as up, held as down).
    ///
    /// `agent` is `None` where it has none, else all it has said so far. A check or agent that says nothing yet agrees
    /// with `initial`; without anything that could speak, a backend is up.
    pub fn new(
        policy: HealthPolicy,
        checks: usize,
        agent: Option<Agent>,
        initial: State,
        now: Instant,
    ) -> Self {
        let (state, silence) = match initial {
            _ if checks == 0 && agent.is_none() => (State::Up, Standing::Passing),
            State::Unknown => (State::Unknown, Standing::Unknown),
            State::Up | State::Trial => (State::Up, Standing::Passing),
            State::Held | State::Down => (State::Down, Standing::Failing),
        };
        let lone = agent.filter(|said| checks == 0 && said.up == Operational::Unsaid);
        let mut said = agent.unwrap_or_default();
        if lone.is_some() && state == State::Down {
            said.up = Operational::Down;
        }
        let mut member = Self {
            policy,
            checks: vec![Standing::Unknown; checks],
            agent: said,
            silence,
            operator: None,
            state,
            since: now,
            until: None,
            down_since: (state == State::Down).then_some(now),
            flaps: VecDeque::new(),
        };
        member.settle(now);
        member
    }

    /// The standing of check `index` (in the order of the config) has changed.
    pub fn check(&mut self, now: Instant, index: usize, standing: Standing) {
        if let Some(check) = self.checks.get_mut(index) {
            *check = standing;
        }
        self.settle(now);
    }

    /// The agent has spoken; `said` is all that is in force now.
    pub fn agent(&mut self, now: Instant, said: Agent) {
        self.agent = said;
        self.settle(now);
    }

    /// The operator has spoken; `None` takes the last word back.
    pub fn override_(&mut self, now: Instant, word: Option<Override>) {
        self.operator = word;
        self.settle(now);
    }

    /// Lets timers expire.
    pub fn tick(&mut self, now: Instant) {
        self.settle(now);
    }

    /// When to call [`Self::tick`] next, if nothing else happens.
    pub fn next_timer(&self) -> Option<Instant> {
        self.until
    }

    /// What is believed of it.
    pub fn state(&self) -> State {
        self.state
    }

    /// When the state was entered.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// End of a trial or a hold-down.
    pub fn until(&self) -> Option<Instant> {
        self.until
    }

    /// When it stopped being up; `None` unless down or held.
    pub fn down_since(&self) -> Option<Instant> {
        self.down_since
    }

    /// How often it failed within the policy's window; counts to 64.
    pub fn flaps(&self, now: Instant) -> usize {
        self.flaps.iter().filter(|at| now.saturating_duration_since(**at) < self.policy.flap_window).count()
    }

    /// How it is to be used by the operator's word, else the agent's.
    pub fn admin(&self) -> Admin {
        match (self.operator, self.agent.admin) {
            (Some(Override::Disable), _) | (None, Admin::Maint) => Admin::Maint,
            (Some(Override::Drain), _) | (None, Admin::Drain) => Admin::Drain,
            (None, Admin::Ready) if self.agent.weight_percent == 0 => Admin::Drain,
            (None, Admin::Ready) => Admin::Ready,
        }
    }

    /// What it may get by itself. Whether the unknown serve is for the service to say.
    pub fn use_(&self) -> Use {
        match (self.admin(), self.state) {
            (Admin::Maint, _) | (_, State::Down | State::Held) => Use::Out,
            (Admin::Drain, _) => Use::Draining,
            (Admin::Ready, State::Trial) => self.serving(self.policy.trial_share.into()),
            (Admin::Ready, State::Up | State::Unknown) => self.serving(100),
        }
    }

    fn serving(&self, share: u64) -> Use {
        let percent = (u64::from(self.agent.weight_percent) * share + 50) / 100;
        Use::Serving { percent: u32::try_from(percent.max(1)).unwrap_or(u32::MAX) }
    }

    fn verdict(&self) -> Verdict {
        if self.agent.up == Operational::Down {
            return Verdict::Failing;
        }
        let said = |standing: &Standing| match *standing {
            Standing::Unknown => self.silence,
            spoken => spoken,
        };
        let every = |wanted| self.checks.iter().map(said).all(|standing| standing == wanted);
        let any = |wanted| self.checks.iter().map(said).any(|standing| standing == wanted);
        match self.policy.require {
            _ if self.checks.is_empty() => Verdict::Passing,
            Require::All if any(Standing::Failing) => Verdict::Failing,
            Require::All if every(Standing::Passing) => Verdict::Passing,
            Require::Any if any(Standing::Passing) => Verdict::Passing,
            Require::Any if every(Standing::Failing) => Verdict::Failing,
            Require::All | Require::Any => Verdict::Undecided,
        }
    }

    /// Moves to the state that the verdict and the time ask for.
    fn settle(&mut self, now: Instant) {
        let expired = self.until.is_some_and(|until| now >= until);
        match (self.state, self.verdict()) {
            (State::Unknown, Verdict::Passing) => self.enter(now, State::Up, None),
            (State::Up | State::Trial, Verdict::Failing) => {
                self.flaps.push_back(now);
                if self.flaps.len() > MOST_FLAPS {
                    self.flaps.pop_front();
                }
                self.enter(now, State::Down, None);
            }
            (State::Unknown | State::Held, Verdict::Failing) => self.enter(now, State::Down, None),
            (State::Down, Verdict::Passing) => match self.hold_down(now) {
                Duration::ZERO => self.rise(now),
                hold => self.enter(now, State::Held, Some(now + hold)),
            },
            // Expires also while undecided: a timer that stays in the past would wake its owner for ever.
            (State::Held, Verdict::Passing | Verdict::Undecided) if expired => self.rise(now),
            (State::Trial, Verdict::Passing | Verdict::Undecided) if expired => {
                self.enter(now, State::Up, None);
            }
            _ => {}
        }
    }

    fn hold_down(&self, now: Instant) -> Duration {
        let Some(doublings) = self.flaps(now).checked_sub(2) else { return Duration::ZERO };
        let factor = u32::try_from(doublings).ok().and_then(|by| 1u32.checked_shl(by)).unwrap_or(u32::MAX);
        self.policy.hold_down.saturating_mul(factor).min(self.policy.max_hold_down)
    }

    /// Back to work: on trial if it was away for long.
    fn rise(&mut self, now: Instant) {
        let away = self.down_since.map(|since| now.saturating_duration_since(since));
        let long = away.is_some_and(|away| away >= self.policy.trial_after);
        if long && !self.policy.trial_time.is_zero() {
            self.enter(now, State::Trial, Some(now + self.policy.trial_time));
        } else {
            self.enter(now, State::Up, None);
        }
    }

    fn enter(&mut self, now: Instant, state: State, until: Option<Instant>) {
        self.since = if state == self.state { self.since } else { now };
        self.state = state;
        self.until = until;
        self.down_since = match state {
            State::Unknown | State::Up | State::Trial => None,
            State::Held | State::Down => self.down_since.or(Some(now)),
        };
    }
}

#[cfg(test)]
mod tests;
