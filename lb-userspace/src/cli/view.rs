//! What reading commands show: the saved config joined with the maps and the interfaces.

use std::collections::BTreeMap;
use std::net::IpAddr;

use lb_common::abi::{
    BackendCounters, BackendEntry, BackendState, Egress, NextHop, PrefixKey, Slot, SlotState, VipEntry,
    VipKey,
};
use serde::Serialize;

use super::args::Context;
use super::drains::{self, Progress};
use super::error::Failure;
use crate::config;
use crate::daemon::{self, InForce, Request, Saved, SettingState, setting_states};
use crate::dataplane::{Attachment, Counters, DataPlane, FlowUse, KernelPlane, Mode, attached};
use crate::health::view::{BackendHealth, ServiceHealth};
use crate::model::{Backend, Model, Service};
use crate::netlink::{Link, Snapshot, links};
use crate::nic::{QueuePackets, queue_packets};
use crate::reconcile::{Observed, TrieKey, wide};

/// Everything there is to show.
pub(super) struct View {
    pub(super) saved: Saved,
    pub(super) observed: Observed,
    pub(super) counters: Counters,
    pub(super) attachments: Vec<Place>,
    pub(super) daemon_running: bool,
    pub(super) flows: Vec<FlowUse>,
    /// Clients that are remembered for affinity, and room for them.
    pub(super) affinity: (usize, u32),
    /// What of the config is not in force before the maps have other sizes.
    pub(super) waiting: Vec<daemon::Finding>,
    /// Slots that have settled only because it took too long, since the daemon began; unknown without one.
    pub(super) forced_settles: Option<u64>,
    /// The same by service, as services are displayed.
    pub(super) forced: Option<BTreeMap<String, u64>>,
    pub(super) services: Vec<ServiceView>,
    /// The operator's words about backends that are in no service.
    pub(super) orphans: Vec<InForce>,
    /// The pool of each service, by its id.
    pub(super) pools: BTreeMap<String, String>,
}

/// A program on an interface.
#[derive(Serialize)]
pub(super) struct Place {
    pub(super) interface: String,
    /// `native` or `generic`; unknown where the interface is gone.
    pub(super) mode: Option<String>,
    pub(super) link: u32,
    pub(super) program: u32,
    /// Its settings that the config names, or did.
    #[serde(skip)]
    pub(super) settings: Vec<SettingState>,
    /// Packets of its queues, as far as the driver tells.
    #[serde(skip)]
    pub(super) queues: BTreeMap<u32, QueuePackets>,
}

/// A service.
#[derive(Serialize)]
pub(super) struct ServiceView {
    pub(super) name: String,
    pub(super) id: String,
    pub(super) forwarding: String,
    /// `xdp-arp`, `xdp-ndp`, `none`: who answers ARP or neighbour solicitations for its address.
    pub(super) answered_by: &'static str,
    pub(super) ring_size: u32,
    pub(super) unsettled_slots: usize,
    pub(super) packets: u64,
    pub(super) bytes: u64,
    pub(super) drops: BTreeMap<&'static str, u64>,
    /// What is said of packets that were forwarded.
    pub(super) notes: BTreeMap<&'static str, u64>,
    /// What people should know of its backends' failures.
    pub(super) alarm: Option<String>,
    pub(super) backends: Vec<BackendView>,
}

/// A backend of a service.
#[derive(Serialize)]
pub(super) struct BackendView {
    pub(super) name: Option<String>,
    pub(super) address: IpAddr,
    pub(super) id: u32,
    /// `up`, `trial`, `standby`, `draining`, `leaving`, `drained`, or why it gets nothing.
    pub(super) state: &'static str,
    /// Weight in the config; 0 where it drains.
    pub(super) weight: u16,
    /// Weight that it has now, by its health.
    pub(super) weight_now: f64,
    pub(super) slots: usize,
    pub(super) forwarding: &'static str,
    pub(super) mac: Option<String>,
    pub(super) interface: Option<String>,
    /// How large packets may be; `null` while there is no way.
    pub(super) path: Option<Path>,
    pub(super) packets: u64,
    pub(super) bytes: u64,
    pub(super) flows: u64,
    /// The operator's word about it.
    pub(super) operator: Option<InForce>,
    /// What is left of its flows; `null` unless it drains.
    pub(super) drain: Option<Progress>,
    /// What its probes say; `null` where no daemon runs.
    pub(super) health: Option<BackendHealth>,
}

/// Sizes on the way to a backend, in bytes of IP packets.
#[derive(Clone, Copy, Serialize)]
pub(super) struct Path {
    /// Largest on the way: of the interface, the route, or learnt from a router.
    pub(super) mtu: u32,
    /// Outer headers.
    pub(super) overhead: u32,
    /// Largest that a client may send.
    pub(super) fits: u32,
}

impl Path {
    fn of(entry: &BackendEntry) -> Self {
        Self { mtu: Egress(entry.egress).mtu(), overhead: entry.overhead(), fits: entry.fits() }
    }
}

impl BackendView {
    /// Whether new flows get to it, believed to be healthy or not.
    pub(super) fn serves(&self) -> bool {
        matches!(self.state, "up" | "trial" | "unproven" | "down-serving")
    }

    /// Whether it is as it should be, or as the operator wants it.
    pub(super) fn is_fine(&self) -> bool {
        self.operator.is_some() || matches!(self.state, "up" | "trial" | "standby" | "unproven")
    }
}

impl ServiceView {
    /// Backends that work and are sent to.
    pub(super) fn up(&self) -> usize {
        self.backends.iter().filter(|backend| backend.serves() && backend.state != "down-serving").count()
    }

    /// Whether any backend is sent to.
    pub(super) fn forwards(&self) -> bool {
        self.backends.iter().any(BackendView::serves)
    }

    /// Backends that ought to be.
    pub(super) fn wanted(&self) -> usize {
        let wanted = |backend: &&BackendView| backend.weight > 0 && backend.state != "standby";
        self.backends.iter().filter(wanted).count()
    }
}

impl View {
    /// Reads it all.
    pub(super) fn read(context: &Context) -> Result<Self, Failure> {
        let instance = context.instance()?;
        let plane = KernelPlane::open(&instance.pins)?;
        let saved = Saved::load(&instance.state)?.unwrap_or_default();
        let observed = plane.observe()?;
        let counters = plane.counters()?;
        let listed = config::parse(&saved.origin, &saved.config).ok().map(|loaded| loaded.model);
        let waiting = listed.as_ref().map_or_else(Vec::new, |listed| daemon::waiting(listed, &observed));
        let model = listed.map(|listed| saved.drains.join(&listed));
        let health = daemon::request(&instance.socket, &Request::Health)?;
        let forced_settles = health.as_ref().map(|reply| reply.forced_settles);
        let forced = health.as_ref().map(|reply| reply.forced.clone());
        let settling = health.as_ref().map(|reply| reply.settling_s.clone());
        let known: Known =
            health.into_iter().flat_map(|reply| reply.health).map(|h| (h.id.clone(), h)).collect();
        let (mut services, pools) = model.as_ref().map_or_else(Default::default, |model| {
            let pools = model.services.iter().map(|service| (service.id.to_string(), service.pool.clone()));
            (services(model, &observed, &counters, &known, &saved.overrides), pools.collect())
        });
        if let Some(model) = &model {
            drains::add(&mut services, model, &saved, &plane, &observed, settling.as_ref())?;
        }
        let orphans = model.as_ref().map(|model| daemon::orphans(model, &saved.overrides).cloned().collect());
        let links = super::attach::runtime()?.block_on(links()).map_err(Failure::failed)?;
        let mut settings: BTreeMap<String, _> = setting_states(&instance.nic).into_iter().collect();
        let mut place = |found| {
            let place = place(found, &links);
            Place { settings: settings.remove(&place.interface).unwrap_or_default(), ..place }
        };
        let attachments = attached(&instance.pins).iter().map(&mut place).collect();
        Ok(Self {
            saved,
            attachments,
            daemon_running: daemon::is_running(&instance.socket),
            forced_settles,
            forced,
            flows: plane.flow_use().map_err(Failure::failed)?,
            affinity: plane.affinity_use().map_err(Failure::failed)?,
            waiting,
            observed,
            counters,
            services,
            orphans: orphans.unwrap_or_default(),
            pools,
        })
    }
}

fn place(found: &Attachment, links: &Snapshot) -> Place {
    let ours = |link: &&Link| link.xdp.as_ref().is_some_and(|xdp| xdp.program_id == found.program_id);
    let xdp = links.by_index(found.ifindex).filter(ours).and_then(|link| link.xdp.as_ref());
    let interface = interface_name(found.ifindex);
    Place {
        queues: queue_packets(&interface),
        settings: Vec::new(),
        interface,
        mode: xdp.map(|xdp| Mode::from(xdp.mode).to_string()),
        link: found.link_id,
        program: found.program_id,
    }
}

pub(super) fn interface_name(ifindex: u32) -> String {
    let name = nix::net::if_::if_indextoname(ifindex).ok().filter(|name| !name.is_empty());
    name.map_or_else(|| format!("(gone, index {ifindex})"), |name| name.to_string_lossy().into_owned())
}

/// What the daemon knows of backends, by service.
type Known = BTreeMap<String, ServiceHealth>;

fn services(
    model: &Model,
    observed: &Observed,
    counters: &Counters,
    known: &Known,
    said_by_operator: &[InForce],
) -> Vec<ServiceView> {
    let view = |service: &Service| {
        service_view(service, observed, counters, known.get(&service.id.to_string()), said_by_operator)
    };
    model.services.iter().map(view).collect()
}

fn service_view(
    service: &Service,
    observed: &Observed,
    counters: &Counters,
    known: Option<&ServiceHealth>,
    said_by_operator: &[InForce],
) -> ServiceView {
    let services = observed.services();
    let entry = services.get(&service.id);
    let slots = entry.and_then(|entry| observed.rings.get(&entry.id)).map_or(&[][..], Vec::as_slice);
    let backends: Vec<BackendView> = service
        .backends
        .iter()
        .map(|backend| {
            let health = known.and_then(|known| known.backends.get(&backend.address));
            let said = |word: &&InForce| word.pool == service.pool && word.backend == backend.address;
            let operator = said_by_operator.iter().find(said).cloned();
            backend_view(backend, entry.map(|entry| entry.id), slots, observed, counters, health, operator)
        })
        .collect();
    let flags = vip_flags(service, observed);
    let mut forwarding: Vec<&str> = backends.iter().map(|backend| backend.forwarding).collect();
    forwarding.dedup();
    ServiceView {
        name: service.name.clone(),
        id: service.id.to_string(),
        forwarding: forwarding.join("+"),
        answered_by: match (flags & VipEntry::ADVERTISED != 0, service.id.address.is_ipv4()) {
            (true, true) => "xdp-arp",
            (true, false) => "xdp-ndp",
            (false, _) => "none",
        },
        ring_size: entry.map_or(0, |entry| entry.ring_size),
        unsettled_slots: slots.iter().filter(|slot| slot.state() != SlotState::Settled).count(),
        packets: backends.iter().map(|backend| backend.packets).sum(),
        bytes: backends.iter().map(|backend| backend.bytes).sum(),
        alarm: known.and_then(|known| known.alarm.clone()),
        drops: entry.and_then(|entry| counters.drops.get(&entry.id)).cloned().unwrap_or_default(),
        notes: entry.and_then(|entry| counters.notes.get(&entry.id)).cloned().unwrap_or_default(),
        backends,
    }
}

/// What holds for a service's addresses, whatever the port.
fn vip_flags(service: &Service, observed: &Observed) -> u32 {
    let address = wide(service.id.address);
    let host = observed.vips.get(&VipKey { address }).map(|vip| vip.flags);
    let fits = |key: &TrieKey<PrefixKey>| {
        let differing = u128::from_be_bytes(address) ^ u128::from_be_bytes(key.data.address);
        differing.leading_zeros() >= key.bits.saturating_sub(PrefixKey::ADDRESS_AT)
    };
    let longest = || observed.prefixes.iter().filter(|(key, _)| fits(key)).max_by_key(|(key, _)| key.bits);
    host.filter(|_| !service.id.is_prefix()).or_else(|| longest().map(|(_, entry)| entry.flags)).unwrap_or(0)
}

fn backend_view(
    backend: &Backend,
    service: Option<u32>,
    slots: &[Slot],
    observed: &Observed,
    counters: &Counters,
    health: Option<&BackendHealth>,
    operator: Option<InForce>,
) -> BackendView {
    let address = wide(backend.address);
    let ours =
        |entry: &lb_common::abi::BackendEntry| Some(entry.service) == service && entry.address == address;
    let found = observed
        .backends
        .iter()
        .find(|(_, entry)| ours(entry) && BackendState::from_raw(entry.state) != BackendState::Retired);
    let (id, entry) = found.map_or((0, None), |(id, entry)| (*id, Some(*entry)));
    let hop = NextHop(entry.map_or(0, |entry| entry.next_hop));
    let state = match entry.map(|entry| BackendState::from_raw(entry.state)) {
        Some(BackendState::Up) if hop == NextHop::UNKNOWN => "no-next-hop",
        Some(BackendState::Up) => "up",
        Some(BackendState::Draining) => "draining",
        Some(BackendState::Down | BackendState::Retired) => "down",
        Some(BackendState::Absent) | None => "unknown",
    };
    let counted = counters.backends.get(&id).copied().unwrap_or_default();
    let BackendCounters { packets, bytes, flows } = counted;
    let port = observed.ports.get(&hop.port()).filter(|_| hop != NextHop::UNKNOWN);
    BackendView {
        name: backend.name.clone(),
        address: backend.address,
        id,
        state: match health {
            _ if backend.leaving && state == "draining" => "leaving",
            Some(health) => judged(state, backend.effective_weight(), health),
            None if state == "draining" && operator.is_none() && backend.group > 0 => "standby",
            None if state == "down" && operator.is_some() => "disabled",
            None => state,
        },
        weight: backend.effective_weight(),
        weight_now: weight_now(backend, health, state),
        slots: slots.iter().filter(|slot| id != 0 && slot.current().get() == id).count(),
        forwarding: backend.forwarding.name(),
        mac: port.map(|_| hop.mac().map(|byte| format!("{byte:02x}")).join(":")),
        interface: port.map(|port| interface_name(port.ifindex)),
        path: port.and(entry).map(|entry| Path::of(&entry)),
        packets,
        bytes,
        flows,
        operator,
        drain: None,
        health: health.cloned(),
    }
}

/// A backend's state in a word, from the data plane's and what its probes say.
fn judged(state: &'static str, configured: u16, health: &BackendHealth) -> &'static str {
    match (health.admin.as_str(), health.state.as_str()) {
        ("maint", _) => "disabled",
        (_, "down") if health.disbelieved && health.gets == "serving" => "down-serving",
        (_, "down") => "down",
        (_, "held") => "held",
        ("drain", _) => "draining",
        (_, _) if state == "no-next-hop" => state,
        (_, "trial") => "trial",
        (_, "unknown") if health.gets == "serving" => "unproven",
        (_, "unknown") => "unknown",
        (_, "up") if health.gets == "draining" && configured > 0 => "standby",
        _ => state,
    }
}

fn weight_now(backend: &Backend, health: Option<&BackendHealth>, state: &str) -> f64 {
    let weight = f64::from(backend.effective_weight());
    match health {
        Some(health) => weight * f64::from(health.percent) / 100.0,
        None if state == "up" || state == "no-next-hop" => weight,
        None => 0.0,
    }
}

/// CPUs the kernel sizes per-CPU maps for.
pub(super) fn possible_cpus() -> u64 {
    crate::dataplane::possible_cpus() as u64
}
