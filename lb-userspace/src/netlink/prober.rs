//! Whom to ask for its Ethernet address, when, and how: a state machine without I/O; time is passed in, randomness is a seed.
//!
//! A hop whose address is known is asked by unicast (RFC 1122 section 2.3.2.1, RFC 4861 section 7.3.3), which disturbs
//! nobody else. One that stays silent is asked by broadcast (for IPv6: multicast), ever more rarely. All delays grow with the number of hops,
//! and a leaky bucket bounds the total.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::{Hop, Mac};

/// Between two requests to a hop that answers, while there are few hops.
const INTERVAL: Duration = Duration::from_millis(250);
/// Between any two requests on average: 800 a second.
const SPACING: Duration = Duration::from_micros(1250);
/// How far requests may run ahead of that average.
const BURST: u32 = 16;
/// How often the delay between broadcasts doubles: 250 ms, 500 ms, 1 s, 2 s.
const DOUBLINGS: u32 = 3;
/// What an answer taught is believed this long after the hop was last heard, while there are few hops. Long,
/// because sending to an address that went silent does no harm, and health checks notice sooner.
const MEMORY: Duration = Duration::from_secs(30);

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// These are the hops to look after from now on, each with the address to ask first, if one is known.
    Hops(BTreeMap<Hop, Option<Mac>>),
    /// The hop was told of.
    Heard(Hop, Told),
    /// Time passed.
    Tick,
}

/// What a packet says about the address of the hop that it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// It is at this address.
    Here(Mac),
    /// It is at this address, unless another is known: somebody speaks for it (RFC 4861 section 7.2.5, without the
    /// override flag).
    Perhaps(Mac),
    /// It is where it was asked.
    AsAsked,
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Send a request for the hop to this one station.
    Unicast(Hop, Mac),
    /// Send a request for the hop to all stations.
    Broadcast(Hop),
    /// The hop has this address, and did not before.
    Learnt(Hop, Mac),
    /// The hop has been silent for so long that nothing is known about it any more.
    Lost(Hop),
}

/// The state of all hops.
#[derive(Debug)]
pub struct Prober {
    probes: BTreeMap<Hop, Probe>,
    queue: BTreeSet<(Instant, Hop)>,
    /// The leaky bucket: when the requests sent so far would have been sent one by one.
    spent_until: Option<Instant>,
    random: u64,
}

#[derive(Debug)]
struct Probe {
    /// Where unicast requests go.
    mac: Option<Mac>,
    /// Whether an answer taught `mac`.
    learnt: bool,
    /// When the hop was last heard, or when asking began.
    heard: Instant,
    broadcasts: u32,
    due: Instant,
}

impl Prober {
    /// Without hops; the seed decides the jitter.
    pub fn new(seed: u64) -> Self {
        Self { probes: BTreeMap::new(), queue: BTreeSet::new(), spent_until: None, random: seed }
    }

    /// Takes an event and says what to do.
    pub fn handle(&mut self, now: Instant, event: Event) -> Vec<Command> {
        match event {
            Event::Hops(hops) => self.replace(now, &hops),
            Event::Heard(hop, told) => return self.heard(now, hop, told).into_iter().collect(),
            Event::Tick => {}
        }
        self.due(now)
    }

    /// When the next [`Event::Tick`] is useful; `None` without hops.
    pub fn wakeup(&self) -> Option<Instant> {
        let (due, _) = self.queue.first()?;
        let free = self.spent_until.and_then(|t| t.checked_sub(SPACING * BURST));
        Some(free.map_or(*due, |free| free.max(*due)))
    }

    /// The address that asking taught for the hop.
    pub fn learnt(&self, hop: Hop) -> Option<Mac> {
        self.probes.get(&hop).filter(|probe| probe.learnt).and_then(|probe| probe.mac)
    }

    fn replace(&mut self, now: Instant, hops: &BTreeMap<Hop, Option<Mac>>) {
        self.probes.retain(|hop, _| hops.contains_key(hop));
        self.queue.retain(|(_, hop)| hops.contains_key(hop));
        for (&hop, &mac) in hops {
            self.probes.entry(hop).or_insert_with(|| {
                self.queue.insert((now, hop));
                Probe { mac, learnt: false, heard: now, broadcasts: 0, due: now }
            });
        }
    }

    fn heard(&mut self, now: Instant, hop: Hop, told: Told) -> Option<Command> {
        let due = now + self.interval();
        let probe = self.probes.get_mut(&hop)?;
        let mac = match told {
            Told::Here(mac) => mac,
            // What contradicts does not confirm either.
            Told::Perhaps(mac) if probe.learnt && probe.mac != Some(mac) => return None,
            Told::Perhaps(mac) => mac,
            Told::AsAsked => probe.mac?,
        };
        self.queue.remove(&(probe.due, hop));
        self.queue.insert((due, hop));
        let known = probe.learnt && probe.mac == Some(mac);
        *probe = Probe { mac: Some(mac), learnt: true, heard: now, broadcasts: 0, due };
        (!known).then_some(Command::Learnt(hop, mac))
    }

    fn due(&mut self, now: Instant) -> Vec<Command> {
        let mut commands = Vec::new();
        while self.wakeup().is_some_and(|at| at <= now) {
            let Some((_, hop)) = self.queue.pop_first() else { break };
            self.spent_until = Some(self.spent_until.map_or(now, |t| t.max(now)) + SPACING);
            self.ask(now, hop, &mut commands);
        }
        commands
    }

    fn ask(&mut self, now: Instant, hop: Hop, commands: &mut Vec<Command>) {
        let interval = self.interval();
        // 400 ms at an interval of 250 ms: one lost answer, and a little patience with the next.
        let patience = interval * 8 / 5;
        let jitter = self.jitter();
        let Some(probe) = self.probes.get_mut(&hop) else { return };
        let silence = now.saturating_duration_since(probe.heard);
        if probe.learnt && silence > MEMORY.max(interval * (1 << DOUBLINGS)) {
            probe.learnt = false;
            probe.mac = None;
            commands.push(Command::Lost(hop));
        }
        probe.due = match probe.mac {
            Some(mac) if silence < patience => {
                commands.push(Command::Unicast(hop, mac));
                (now + interval).min(probe.heard + patience)
            }
            _ => {
                commands.push(Command::Broadcast(hop));
                let delay = interval * (1 << probe.broadcasts);
                probe.broadcasts = (probe.broadcasts + 1).min(DOUBLINGS);
                now + delay - delay.mul_f64(jitter)
            }
        };
        self.queue.insert((probe.due, hop));
    }

    fn interval(&self) -> Duration {
        INTERVAL.max(SPACING * u32::try_from(self.probes.len()).unwrap_or(u32::MAX))
    }

    /// A part of a delay, from 0 to 1/4 (splitmix64).
    fn jitter(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        f64::from(((z ^ (z >> 31)) >> 48) as u16) / f64::from(1u32 << 18)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const OLD: Mac = [2, 0, 0, 0, 0, 1];
    const NEW: Mac = [2, 0, 0, 0, 0, 2];

    fn hop(n: u32) -> Hop {
        Hop { ifindex: 2, via: Ipv4Addr::from_bits(0xc000_0200 + n).into() }
    }

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// Runs the prober over simulated time against stations that answer at once, each at its address.
    struct Segment {
        prober: Prober,
        stations: BTreeMap<Hop, Mac>,
        now: Instant,
        start: Instant,
        log: Vec<(Duration, Command)>,
    }

    impl Segment {
        fn new(hops: u32, seed: Option<Mac>) -> Self {
            let start = Instant::now();
            let mut segment = Self {
                prober: Prober::new(1),
                stations: BTreeMap::new(),
                now: start,
                start,
                log: Vec::new(),
            };
            segment.feed(Event::Hops((0..hops).map(|n| (hop(n), seed)).collect()));
            segment
        }

        fn feed(&mut self, event: Event) {
            for command in self.prober.handle(self.now, event) {
                self.log.push((self.now - self.start, command));
                let answer = match command {
                    Command::Unicast(hop, mac) => Some(hop).filter(|h| self.stations.get(h) == Some(&mac)),
                    Command::Broadcast(hop) => Some(hop),
                    Command::Learnt(..) | Command::Lost(_) => None,
                };
                if let Some((hop, mac)) = answer.and_then(|h| Some((h, *self.stations.get(&h)?))) {
                    self.feed(Event::Heard(hop, Told::Here(mac)));
                }
            }
        }

        fn run(&mut self, span: Duration) {
            let end = self.now + span;
            while let Some(at) = self.prober.wakeup().filter(|at| *at <= end) {
                self.now = self.now.max(at);
                self.feed(Event::Tick);
            }
            self.now = end;
        }

        fn count(&self, wanted: impl Fn(&Command) -> bool) -> usize {
            self.log.iter().filter(|(_, command)| wanted(command)).count()
        }
    }

    fn is_request(command: &Command) -> bool {
        matches!(command, Command::Unicast(..) | Command::Broadcast(_))
    }

    #[test]
    fn an_unknown_hop_is_asked_by_broadcast_at_once_then_by_unicast() {
        let mut segment = Segment::new(0, None);
        segment.stations.insert(hop(0), OLD);
        segment.feed(Event::Hops([(hop(0), None)].into()));
        assert_eq!(
            segment.log[..2],
            [(ms(0), Command::Broadcast(hop(0))), (ms(0), Command::Learnt(hop(0), OLD))]
        );
        segment.run(ms(1000));
        assert_eq!(segment.log[2..], [250, 500, 750, 1000].map(|t| (ms(t), Command::Unicast(hop(0), OLD))));
        assert_eq!(segment.prober.learnt(hop(0)), Some(OLD));
    }

    #[test]
    fn a_changed_address_is_learnt_within_a_second() {
        for after in (0..250).step_by(10) {
            let mut segment = Segment::new(0, None);
            segment.stations.insert(hop(0), OLD);
            segment.feed(Event::Hops([(hop(0), None)].into()));
            segment.run(ms(1000 + after));
            let changed = segment.now - segment.start;
            segment.stations.insert(hop(0), NEW);
            segment.run(ms(1000));
            let learnt = segment.log.iter().find(|(_, c)| *c == Command::Learnt(hop(0), NEW)).unwrap().0;
            assert!(learnt - changed <= ms(400), "{:?} after the change", learnt - changed);
        }
    }

    #[test]
    fn a_wrong_first_address_is_given_up_after_400_ms() {
        let mut segment = Segment::new(1, Some(OLD));
        segment.run(ms(400));
        let expected = [
            (ms(0), Command::Unicast(hop(0), OLD)),
            (ms(250), Command::Unicast(hop(0), OLD)),
            (ms(400), Command::Broadcast(hop(0))),
        ];
        assert_eq!(segment.log, expected);
        assert_eq!(segment.prober.learnt(hop(0)), None);
    }

    #[test]
    fn the_dead_are_asked_ever_more_rarely_and_forgotten() {
        let mut segment = Segment::new(0, None);
        segment.stations.insert(hop(0), OLD);
        segment.feed(Event::Hops([(hop(0), None)].into()));
        segment.stations.clear();
        segment.run(ms(60_000));
        let broadcasts: Vec<Duration> = segment
            .log
            .iter()
            .filter(|(t, c)| matches!(c, Command::Broadcast(_)) && !t.is_zero())
            .map(|(t, _)| *t)
            .collect();
        let gaps: Vec<Duration> = broadcasts.windows(2).map(|w| w[1] - w[0]).collect();
        for (gap, most) in gaps.iter().zip([250, 500, 1000].into_iter().chain(std::iter::repeat(2000))) {
            assert!(*gap <= ms(most) && *gap >= ms(most * 3 / 4), "{gap:?} of {most} ms");
        }
        assert!(gaps[5..].windows(2).any(|w| w[0] != w[1]), "no jitter");
        let lost = segment.log.iter().find(|(_, c)| *c == Command::Lost(hop(0))).unwrap().0;
        assert!(lost > ms(30_000) && lost <= ms(32_000), "{lost:?}");
    }

    #[test]
    fn the_rate_is_bounded_alive_or_dead() {
        for (hops, alive) in [(200, true), (200, false), (2000, true), (2000, false)] {
            let mut segment = Segment::new(0, None);
            if alive {
                segment.stations = (0..hops).map(|n| (hop(n), OLD)).collect();
            }
            segment.feed(Event::Hops((0..hops).map(|n| (hop(n), None)).collect()));
            segment.run(ms(20_000));
            let requests = segment.count(is_request);
            assert!(requests <= 800 * 20 + BURST as usize + 1, "{requests} requests in 20 s, {hops} hops");
            let asked: BTreeSet<Hop> = segment
                .log
                .iter()
                .filter_map(|(_, c)| match c {
                    Command::Unicast(hop, _) | Command::Broadcast(hop) => Some(*hop),
                    Command::Learnt(..) | Command::Lost(_) => None,
                })
                .collect();
            assert_eq!(asked.len(), hops as usize, "nobody starves");
            if alive {
                assert!(segment.count(|c| matches!(c, Command::Broadcast(_))) == hops as usize);
            }
        }
    }

    #[test]
    fn strangers_and_removed_hops_teach_nothing() {
        let mut segment = Segment::new(2, None);
        segment.feed(Event::Heard(hop(7), Told::Here(OLD)));
        segment.feed(Event::Heard(hop(1), Told::Here(OLD)));
        segment.feed(Event::Hops([(hop(0), None)].into()));
        assert_eq!((segment.prober.learnt(hop(7)), segment.prober.learnt(hop(1))), (None, None));
        segment.feed(Event::Hops(BTreeMap::new()));
        assert_eq!(segment.prober.wakeup(), None);
    }

    #[test]
    fn answers_that_say_less() {
        let mut segment = Segment::new(1, None);
        let mut told = |told| {
            segment.feed(Event::Heard(hop(0), told));
            segment.prober.learnt(hop(0))
        };
        assert_eq!(told(Told::AsAsked), None, "it was asked nowhere");
        assert_eq!(told(Told::Perhaps(OLD)), Some(OLD), "better than nothing");
        assert_eq!(told(Told::Perhaps(NEW)), Some(OLD), "somebody else speaks for it");
        assert_eq!(told(Told::Here(NEW)), Some(NEW));
        assert_eq!(told(Told::Perhaps(NEW)), Some(NEW));
    }

    #[test]
    fn an_answer_without_an_address_confirms_the_one_asked_at() {
        let mut segment = Segment::new(1, Some(OLD));
        for _ in 0..200 {
            segment.run(ms(250));
            segment.feed(Event::Heard(hop(0), Told::AsAsked));
        }
        assert_eq!(segment.prober.learnt(hop(0)), Some(OLD));
        assert_eq!(segment.count(|c| matches!(c, Command::Broadcast(_))), 0);
    }
}
