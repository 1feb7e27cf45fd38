//! From a checked config to the model: defaults filled in, pools merged into their services, everything sorted.
//!
//! Decides nothing: what is incomplete was refused before.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::decode::At;
use super::schema::{self, Config, Pool, Servers};
use crate::model::{
    Admission, Backend, Echo, Interface, Limits, Model, OtherPorts, Prefix, Service, ServiceId, Vip,
};

/// The model of a config without errors.
pub(super) fn model(config: Config, hash_key: [u8; 16]) -> Model {
    let pools: BTreeMap<&str, &Pool> =
        config.pools.iter().filter_map(|pool| Some((pool.name.as_ref()?.value.as_str(), pool))).collect();
    let mut services: Vec<Service> =
        config.services.iter().filter_map(|service| make_service(service, &pools)).collect();
    services.sort_by_key(|service| service.id);
    Model {
        interfaces: config.interfaces.iter().filter_map(make_interface).collect(),
        vips: make_vips(&config.vips, &services),
        services,
        limits: make_limits(&config.limits),
        hash_key,
        on_change: config.on_change,
    }
}

fn make_interface(interface: &schema::Interface) -> Option<Interface> {
    Some(Interface { name: interface.name.as_ref()?.value.clone(), mode: interface.mode })
}

fn make_vips(written: &[schema::Vip], services: &[Service]) -> Vec<Vip> {
    let vip = |address, advertise, other_ports| {
        let prefix = Prefix::host(address);
        Vip { address, prefix_len: prefix.length, advertise, echo: Echo::default(), other_ports }
    };
    let default = |address| vip(address, None, OtherPorts::default());
    let mut vips: BTreeMap<IpAddr, Vip> =
        services.iter().map(|service| (service.id.address, default(service.id.address))).collect();
    for entry in written {
        if let Some(At { value: address, .. }) = entry.address {
            vips.insert(address, vip(address, entry.advertise, entry.other_ports));
        }
    }
    vips.into_values().collect()
}

fn make_service(service: &schema::Service, pools: &BTreeMap<&str, &Pool>) -> Option<Service> {
    let pool = match service.servers.as_ref()? {
        Servers::Own(pool) => &**pool,
        Servers::Pool(name) => pools.get(name.value.as_str())?,
    };
    let mut backends: Vec<Backend> =
        pool.backends.iter().flatten().filter_map(|backend| make_backend(backend, pool)).collect();
    backends.sort_by_key(|backend| backend.address);
    Some(Service {
        name: service.name.as_ref()?.value.clone(),
        id: ServiceId::single(
            service.address.as_ref()?.value,
            service.protocol.as_ref()?.value,
            service.port.as_ref()?.value,
        ),
        pool: pool.name.as_ref()?.value.clone(),
        ring_size: service.ring_size,
        backends,
        health: pool.health,
        failure: service.failure,
        agent: pool.agent.clone(),
        quic: None,
        admission: Admission::default(),
    })
}

fn make_backend(backend: &schema::Backend, pool: &Pool) -> Option<Backend> {
    Some(Backend {
        name: backend.name.as_ref().map(|name| name.value.clone()),
        address: backend.address.as_ref()?.value,
        weight: backend.weight,
        drain: backend.drain,
        forwarding: backend.forwarding.or(pool.forwarding)?,
        mac: backend.mac,
        interface: backend.interface.clone(),
        vlan: None,
        server_id: None,
        group: backend.group,
        checks: backend.checks.clone().unwrap_or_else(|| Arc::clone(&pool.checks)),
    })
}

fn make_limits(limits: &schema::Limits) -> Limits {
    let plain = |limit: &Option<At<u32>>| limit.as_ref().map(|limit| limit.value);
    Limits {
        ring_slots: plain(&limits.ring_slots),
        services: plain(&limits.services),
        backends: plain(&limits.backends),
        flows: plain(&limits.flows),
        probes: plain(&limits.probes),
    }
}
