//! How each probe's target is reached now, from what the data plane and the network know. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use crate::health::check::Standing;
use crate::health::fleet::Place;
use crate::health::job::{Asked, transport};
use crate::health::probe::Failure;
use crate::health::task::{Question, Target, Task, TaskId, ThroughService};
use crate::health::words::Way;
use crate::model::{Check, CheckKind, Exchange, Forwarding, Model, Via};
use crate::netlink::{NextHop, Resolution, Resolutions, Snapshot};

/// What is known of the ways to backends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ways<'a> {
    /// Numbers of the backends in the data plane.
    pub(super) numbers: &'a BTreeMap<Place, u32>,
    /// Their next hops.
    pub(super) resolutions: &'a Resolutions,
    /// Interfaces whose packets the program sees.
    pub(super) attached: &'a BTreeSet<u32>,
    /// Interfaces and addresses.
    pub(super) links: &'a Snapshot,
}

impl Ways<'_> {
    /// The node's address that a probe to a service comes from: the one on the way to the backend, if that is of the
    /// service's family. Answers come to it by themselves, so any attached interface's will do otherwise.
    fn node(&self, service: IpAddr, hop: &NextHop) -> IpAddr {
        if hop.source.is_ipv4() == service.is_ipv4() {
            return hop.source;
        }
        let interfaces = std::iter::once(&hop.ifindex).chain(self.attached);
        let own = interfaces.filter_map(|index| Some(self.links.by_index(*index)?.source_for(service)));
        let own = own.filter(|own| !own.is_unspecified() && own.is_ipv4() == service.is_ipv4());
        own.into_iter().next().unwrap_or(Ipv6Addr::UNSPECIFIED.into())
    }
}

/// How a probe gets to its target; `gate` is the way through services, or `trouble` says why there is none.
pub(super) fn target(
    question: &Question,
    asked: &Asked,
    ways: &Ways<'_>,
    gate: Option<u16>,
    trouble: Option<&str>,
) -> Target {
    let portless = matches!(question, Question::Check(check) if check.kind == CheckKind::Icmp);
    let (service, backend, port) = match *asked {
        Asked::Direct(_, 0) | Asked::Through(_, _, 0) if !portless => {
            let why = "the service takes every port: the check needs one (port: names it)";
            return Target::Impossible(why.to_owned());
        }
        Asked::Direct(address, port) => return Target::Direct { address, port },
        Asked::Through(service, backend, port) => (service, backend, port),
    };
    let Some(gate) = gate else {
        let why = trouble.unwrap_or("the way through the services is not open yet");
        return Target::Impossible(why.to_owned());
    };
    let hop = match ways.resolutions.get(&backend) {
        Some(Resolution::Resolved(hop)) => hop,
        Some(Resolution::Unresolved { via, why, .. }) => {
            return Target::Unreachable(format!("next hop {via}: {why}"));
        }
        Some(Resolution::Unroutable(why)) => return Target::Unreachable(why.clone()),
        Some(Resolution::Local) => return Target::Impossible("it is this balancer itself".to_owned()),
        None => return Target::Impossible("its next hop is not known yet".to_owned()),
    };
    let Some(number) = ways.numbers.get(&(service, backend)) else {
        return Target::Impossible("it is not in the data plane yet".to_owned());
    };
    let source = match question {
        Question::Check(check) => check.source,
        Question::Agent(_) => None,
    };
    if source.is_none() && !ways.attached.contains(&hop.ifindex) {
        return Target::Impossible(
            "its answers come in by an interface that lb is not attached to: attach it, name a `source` behind an \
             attached one, or use `via: direct`"
                .to_owned(),
        );
    }
    let node = source.unwrap_or_else(|| ways.node(service.address, hop));
    if node.is_unspecified() {
        return Target::Impossible(
            "the interface towards it has no address for probes to come from (source: names one)".to_owned(),
        );
    }
    Target::Service(ThroughService {
        backend: *number,
        gate,
        address: service.address,
        port,
        protocol: transport(question),
        node,
    })
}

/// What to ask a backend's own address after a failure through its service that leaves the cause open.
pub(super) fn comparison(id: TaskId, question: &Question, asked: Asked, failure: &Failure) -> Option<Task> {
    let (Question::Check(check), Asked::Through(_, backend, port)) = (question, asked) else { return None };
    if !matches!(failure, Failure::Timeout { .. } | Failure::Refused) {
        return None;
    }
    let kind = match check.kind {
        CheckKind::Udp(_) | CheckKind::Icmp => CheckKind::Icmp,
        CheckKind::Tcp(_) | CheckKind::Http(_) => CheckKind::Tcp(Exchange::default()),
    };
    let target = Target::Direct { address: backend, port };
    let check = Check { kind, via: Via::Direct, ..(**check).clone() };
    Some(Task { id, question: Question::Check(Arc::new(check)), target, standing: Standing::Unknown })
}

/// How packets get to each backend, for people.
pub(super) fn ways(model: &Model) -> BTreeMap<Place, Way> {
    let places = model.services.iter().flat_map(|service| {
        service.backends.iter().map(|backend| {
            let way = match backend.forwarding {
                Forwarding::L2 => Way::L2,
                Forwarding::Tunnel(tunnel) => Way::Tunnel(tunnel.encap.name()),
            };
            ((service.id, backend.address), way)
        })
    });
    places.collect()
}
