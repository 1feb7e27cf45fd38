//! From a checked config to the model: defaults filled in, pools merged into their services, everything sorted.
//!
//! Decides nothing: what is incomplete was refused before.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::decode::At;
use super::flows::FlowKeys;
use super::schema::{self, Config, Pool, Servers};
use crate::model::{
    Admission, Backend, Echo, Interface, Limits, Model, OtherPorts, Prefix, Protocol, Service, ServiceId, Vip,
};

/// The model of a config without errors.
pub(super) fn model(config: Config, hash_key: [u8; 16]) -> Model {
    let pools: BTreeMap<&str, &Pool> =
        config.pools.iter().filter_map(|pool| Some((pool.name.as_ref()?.value.as_str(), pool))).collect();
    let make = |service| make_services(service, &pools, &config.flows);
    let mut services: Vec<Service> = config.services.iter().filter_map(make).flatten().collect();
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
    let name = interface.name.as_ref()?.value.clone();
    Some(Interface { name, mode: interface.mode, settings: interface.settings.clone() })
}

/// Every address that has a service, and those that are written. An address without an entry of its own is like the
/// longest written prefix that contains it.
fn make_vips(written: &[schema::Vip], services: &[Service]) -> Vec<Vip> {
    let make = |prefix: Prefix, advertise, echo, other_ports| Vip {
        address: prefix.network,
        prefix_len: prefix.length,
        advertise,
        echo,
        other_ports,
    };
    let written: BTreeMap<Prefix, Vip> = written
        .iter()
        .filter_map(|vip| {
            let prefix = vip.address.as_ref()?.value;
            Some((prefix, make(prefix, vip.advertise, vip.echo, vip.other_ports)))
        })
        .collect();
    let mut vips = written.clone();
    for prefix in services.iter().map(|service| service.id.prefix()) {
        let around = || prefix.ancestors().find_map(|around| written.get(&around));
        vips.entry(prefix).or_insert_with(|| match around() {
            Some(vip) => make(prefix, vip.advertise, vip.echo, vip.other_ports),
            None => make(prefix, None, Echo::default(), OtherPorts::default()),
        });
    }
    vips.into_values().collect()
}

/// A service for each combination of an entry's addresses, protocols and ports.
fn make_services<'c>(
    service: &'c schema::Service,
    pools: &BTreeMap<&str, &'c Pool>,
    defaults: &FlowKeys,
) -> Option<impl Iterator<Item = Service> + use<'c>> {
    let pool: &'c Pool = match service.servers.as_ref()? {
        Servers::Own(pool) => pool,
        Servers::Pool(name) => pools.get(name.value.as_str())?,
    };
    let mut backends: Vec<Backend> =
        pool.backends.iter().flatten().filter_map(|backend| make_backend(backend, pool)).collect();
    backends.sort_by_key(|backend| backend.address);
    let name = service.name.as_ref()?.value.clone();
    let pool_name = pool.name.as_ref()?.value.clone();
    let admission = Admission {
        allow: Arc::clone(&service.admission.allow.prefixes),
        deny: Arc::clone(&service.admission.deny.prefixes),
        limits: service.admission.limits,
    };
    let keys = service.flows.over(&pool.flows).over(defaults);
    let quic = service.quic.as_ref().map(|quic| quic.value);
    Some(service.traffic.ids().map(move |(id, _): (ServiceId, _)| Service {
        name: name.clone(),
        id,
        pool: pool_name.clone(),
        ring_size: service.ring_size,
        backends: backends.clone(),
        health: pool.health,
        failure: service.failure,
        agent: pool.agent.clone(),
        quic: quic.filter(|_| id.protocol == Protocol::Udp),
        admission: admission.clone(),
        flows: keys.flow_rules(id.protocol),
        drain: keys.drain_rules(),
    }))
}

fn make_backend(backend: &schema::Backend, pool: &Pool) -> Option<Backend> {
    Some(Backend {
        name: backend.name.as_ref().map(|name| name.value.clone()),
        address: backend.address.as_ref()?.value,
        weight: backend.weight,
        drain: backend.drain,
        leaving: false,
        forwarding: backend.forwarding.or(pool.forwarding)?,
        mac: backend.mac,
        interface: backend.interface.clone(),
        vlan: backend.vlan,
        server_id: backend.server_id.as_ref().map(|id| id.value),
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
        udp_flows: plain(&limits.udp_flows),
        affinity: plain(&limits.affinity),
        receiving_cpus: plain(&limits.receiving_cpus),
        probes: plain(&limits.probes),
    }
}
