//! Keeps the resolution of a set of targets current: kernel notifications and neighbours' words in, one map
//! out. The
//! decisions are made in `nexthop` and `prober`; here is only their order and their I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until, timeout};

use super::client::Netlink;
use super::error::Error;
use super::event::{Change, Events};
use super::links::Snapshot;
use super::neighbours::{Neighbour, Neighbours};
use super::nexthop::{Hop, Path, Resolution, Resolutions, Target};
use super::ports::{Heard, Place, Ports};
use super::prober::{Command, Event, Prober, Told};
use super::socket::Protocol;
use super::{BROADCAST, Mac, arp, ndp};

/// Changes within this time are read together.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// Reading everything takes at most one part in this many of the time, however fast routes change.
const SHARE: u32 = 4;
/// Everything is read anew this often even if nothing was notified.
const RESYNC: Duration = Duration::from_secs(30);
/// After a failure.
const RETRY: Duration = Duration::from_secs(1);

/// Packets heard and not yet looked at; more are dropped.
const HEARD_QUEUE: usize = 1024;

/// Follows the next hops of a set of targets until dropped.
#[derive(Debug)]
pub struct Watcher {
    targets: watch::Sender<Vec<Target>>,
    resolutions: watch::Receiver<Arc<Resolutions>>,
    links: watch::Receiver<Arc<Snapshot>>,
    doubts: Option<mpsc::UnboundedReceiver<Vec<IpAddr>>>,
    _task: JoinSet<()>,
}

struct Task {
    netlink: Netlink,
    events: Events,
    targets: watch::Receiver<Vec<Target>>,
    heard: mpsc::Receiver<Heard>,
    ports: Ports,
    prober: Prober,
    snapshot: Arc<Snapshot>,
    neighbours: Neighbours,
    paths: BTreeMap<IpAddr, Path>,
    resolutions: watch::Sender<Arc<Resolutions>>,
    links: watch::Sender<Arc<Snapshot>>,
    doubts: mpsc::UnboundedSender<Vec<IpAddr>>,
    /// When everything is to be read anew.
    sync_at: Instant,
    /// Not before this time.
    rest_until: Instant,
}

/// One step's reason.
enum Wake {
    Targets,
    Owner,
    Kernel(Option<Change>),
    Heard(Heard),
    Time,
}

impl Watcher {
    /// Starts it and waits for the first reading: what can be known without asking anybody is known when
    /// this returns. Must be called inside a tokio runtime.
    pub async fn start(targets: Vec<Target>) -> Result<Self, Error> {
        let (targets, targets_seen) = watch::channel(targets);
        let (resolutions, resolutions_seen) = watch::channel(Arc::default());
        let (links, links_seen) = watch::channel(Arc::default());
        let (doubts, doubted) = mpsc::unbounded_channel();
        let (heard_sent, heard) = mpsc::channel(HEARD_QUEUE);
        let now = Instant::now();
        let mut task = Task {
            // Subscribed before the first reading, so that nothing falls between.
            events: Events::subscribe()?,
            netlink: Netlink::open()?,
            targets: targets_seen,
            heard,
            ports: Ports::new(heard_sent),
            prober: Prober::new(seed()),
            snapshot: Arc::default(),
            neighbours: Neighbours::new(),
            paths: BTreeMap::new(),
            resolutions,
            links,
            doubts,
            sync_at: now,
            rest_until: now,
        };
        task.sync().await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(task.run());
        let (resolutions, links, doubts) = (resolutions_seen, links_seen, Some(doubted));
        Ok(Self { targets, resolutions, links, doubts, _task: tasks })
    }

    /// Replaces the set of targets. Of several targets with one address the last counts.
    pub fn set_targets(&self, targets: Vec<Target>) {
        self.targets.send_replace(targets);
    }

    /// The state of every target; it changes only when there is something new. Targets just set are
    /// missing until they have been looked at, within some 20 ms.
    pub fn resolutions(&self) -> watch::Receiver<Arc<Resolutions>> {
        self.resolutions.clone()
    }

    /// Targets whose next hop the kernel has given up, though it may still be believed in: a reason to look. Yours
    /// alone; `None` if somebody has taken it before.
    pub fn doubts(&mut self) -> Option<mpsc::UnboundedReceiver<Vec<IpAddr>>> {
        self.doubts.take()
    }

    /// The interfaces; it changes only when there is something new.
    pub fn links(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.links.clone()
    }
}

/// Resolves the targets once: asks where the kernel does not know, and returns as soon as no answer
/// is missing or `patience` has passed. A valid entry of the kernel is an answer, stale or not.
pub async fn resolve(targets: Vec<Target>, patience: Duration) -> Result<Resolutions, Error> {
    let watcher = Watcher::start(targets).await?;
    let mut resolutions = watcher.resolutions();
    let complete = |found: &Arc<Resolutions>| !found.values().any(Resolution::is_pending);
    // Out of time: what is known by then is the answer.
    let _ = timeout(patience, resolutions.wait_for(complete)).await;
    let found = Arc::clone(&resolutions.borrow());
    Ok(Arc::unwrap_or_clone(found))
}

impl Task {
    async fn run(mut self) {
        loop {
            let wake = self.wait().await;
            let now = Instant::now();
            match wake {
                Wake::Owner => return,
                Wake::Targets => self.sync_at = now,
                Wake::Kernel(Some(change)) => self.note(now, change),
                Wake::Kernel(None) => self.reconnect().await,
                Wake::Heard(heard) => self.hear(now, heard),
                Wake::Time => {}
            }
            if self.sync_at.max(self.rest_until) <= Instant::now() {
                self.sync_or_retry().await;
            }
            self.step(Instant::now(), Event::Tick);
        }
    }

    async fn wait(&mut self) -> Wake {
        let sync = self.sync_at.max(self.rest_until);
        let until = self.prober.wakeup().map_or(sync, |at| at.min(sync));
        tokio::select! {
            changed = self.targets.changed() => if changed.is_ok() { Wake::Targets } else { Wake::Owner },
            change = self.events.next() => Wake::Kernel(change),
            Some(heard) = self.heard.recv() => Wake::Heard(heard),
            () = sleep_until(until.into()) => Wake::Time,
        }
    }

    fn note(&mut self, now: Instant, change: Change) {
        match change {
            Change::Neighbour(hop, neighbour) => {
                let before = match neighbour {
                    Some(neighbour) => self.neighbours.insert(hop, neighbour),
                    None => self.neighbours.remove(&hop),
                };
                let had = |neighbour: Option<Neighbour>| neighbour.and_then(Neighbour::mac).is_some();
                if had(before) && !had(neighbour) {
                    let doubted = self.paths.iter().filter(|(_, path)| path.hop() == Some(hop));
                    let _nobody_cares = self.doubts.send(doubted.map(|(address, _)| *address).collect());
                }
                if before != neighbour && self.paths.values().any(|path| path.hop() == Some(hop)) {
                    self.look_after_hops(now);
                    self.publish();
                }
            }
            Change::LinkGone(ifindex) => {
                self.ports.close(ifindex);
                self.sync_at = self.sync_at.min(now + DEBOUNCE);
            }
            Change::Everything => self.sync_at = self.sync_at.min(now + DEBOUNCE),
        }
    }

    fn hear(&mut self, now: Instant, heard: Heard) {
        // A frame of our own that comes back (a loop, a mirror) must not make us send to ourselves.
        let own = self.snapshot.by_index(heard.hop.ifindex).and_then(|link| link.mac);
        match heard.told {
            Told::Here(mac) | Told::Perhaps(mac) if own == Some(mac) => {}
            told => self.step(now, Event::Heard(heard.hop, told)),
        }
    }

    /// Reads everything anew.
    async fn sync(&mut self) -> Result<(), Error> {
        let start = Instant::now();
        let targets = self.targets.borrow_and_update().clone();
        self.snapshot = Arc::new(self.netlink.links().await?);
        self.neighbours = self.netlink.neighbours().await?;
        let mut paths = BTreeMap::new();
        for target in &targets {
            paths.insert(target.address, path(&self.netlink, &self.snapshot, target).await);
        }
        self.paths = paths;
        let now = Instant::now();
        self.sync_at = now + RESYNC;
        self.rest_until = now + (now - start) * (SHARE - 1);
        let snapshot = Arc::clone(&self.snapshot);
        self.links.send_if_modified(|links| replace(links, snapshot));
        self.look_after_hops(now);
        self.publish();
        Ok(())
    }

    async fn sync_or_retry(&mut self) {
        if let Err(error) = self.sync().await {
            tracing::warn!(error = &error as &dyn std::error::Error, "reading links and neighbours failed");
            self.sync_at = Instant::now() + RETRY;
        }
    }

    async fn reconnect(&mut self) {
        tracing::warn!("netlink notifications broke off; subscribing again");
        sleep(RETRY).await;
        match Events::subscribe().and_then(|events| Ok((events, Netlink::open()?))) {
            Ok((events, netlink)) => (self.events, self.netlink) = (events, netlink),
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "subscribing failed"),
        }
        self.sync_at = Instant::now();
    }

    fn look_after_hops(&mut self, now: Instant) {
        let hops: BTreeMap<Hop, Option<Mac>> =
            self.paths.values().filter_map(|path| path.to_ask(&self.snapshot, &self.neighbours)).collect();
        let places: BTreeSet<Place> = hops.keys().map(|hop| (hop.ifindex, Protocol::of(hop.via))).collect();
        for error in self.ports.keep(&places) {
            tracing::warn!(error = &error as &dyn std::error::Error, "next hops there cannot be asked");
            self.sync_at = self.sync_at.min(now + RETRY);
        }
        self.step(now, Event::Hops(hops));
    }

    fn step(&mut self, now: Instant, event: Event) {
        let mut news = false;
        for command in self.prober.handle(now, event) {
            match command {
                Command::Unicast(hop, mac) => self.ask(hop, Some(mac)),
                Command::Broadcast(hop) => self.ask(hop, None),
                Command::Learnt(hop, mac) => {
                    let mac = format_args!("{mac:02x?}");
                    tracing::debug!(via = %hop.via, ifindex = hop.ifindex, %mac, "next hop heard");
                    news = true;
                }
                Command::Lost(hop) => {
                    tracing::debug!(via = %hop.via, ifindex = hop.ifindex, "next hop silent");
                    news = true;
                }
            }
        }
        if news {
            self.publish();
        }
    }

    /// Asks for a hop: the station it is believed to be, or all.
    fn ask(&self, hop: Hop, station: Option<Mac>) {
        let Some(link) = self.snapshot.by_index(hop.ifindex) else { return };
        let Some(mac) = link.mac else { return };
        let place = (hop.ifindex, Protocol::of(hop.via));
        let sent = match (link.asking_for(hop.via), hop.via) {
            (Some(IpAddr::V4(own)), IpAddr::V4(via)) => {
                let request = arp::request(mac, own, via);
                self.ports.send(place, &arp::frame(&request, station.unwrap_or(BROADCAST)))
            }
            (Some(IpAddr::V6(own)), IpAddr::V6(via)) => {
                self.ports.send(place, &ndp::solicitation(mac, own, via, station))
            }
            _ => return,
        };
        // Lost like any frame can be: it is asked again, and a link's trouble is notified.
        if let Err(error) = sent {
            tracing::trace!(via = %hop.via, interface = link.name, %error, "question not sent");
        }
    }

    fn publish(&self) {
        let decide =
            |path| Resolution::decide(path, &self.snapshot, &self.neighbours, |hop| self.prober.learnt(hop));
        let found: Resolutions = self.paths.iter().map(|(address, path)| (*address, decide(path))).collect();
        self.resolutions.send_if_modified(|resolutions| replace(resolutions, Arc::new(found)));
    }
}

async fn path(netlink: &Netlink, snapshot: &Snapshot, target: &Target) -> Path {
    let oif = match &target.interface {
        None => None,
        Some(name) => match snapshot.by_name(name) {
            Some(link) => Some(link.ifindex),
            None => return Path::Unroutable(format!("interface {name} does not exist")),
        },
    };
    Path::new(target, snapshot, netlink.route_to(target.address, oif).await)
}

/// Puts the value in place; whether it differs from the one before.
fn replace<T: PartialEq>(place: &mut Arc<T>, value: Arc<T>) -> bool {
    let differs = *place != value;
    if differs {
        *place = value;
    }
    differs
}

/// Any number will do: it only keeps several hosts from asking in step.
fn seed() -> u64 {
    let since_epoch = UNIX_EPOCH.elapsed().unwrap_or_default();
    u64::from(since_epoch.subsec_nanos()) ^ u64::from(std::process::id()) << 32
}
