//! Whether a service's parts go together: its protocol with its limits, its addresses with its backends, its checks
//! with what can be probed.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::decode::At;
use super::diagnostic::{Findings, Report, code};
use super::schema::{Backend, Pool, Service};
use super::source::Span;
use super::value_net::Ports;
use crate::model::{
    Check, CheckKind, Forwarding, Prefix, Protocol, ServerIdFormat, Tunnel, TunnelSource, Via,
};

/// Checks what a service says of itself.
pub(super) fn alone(service: &Service, out: &mut Findings<'_>) {
    let protocols = &service.traffic.protocols;
    let udp = protocols.iter().any(|protocol| protocol.value == Protocol::Udp);
    if let (Some(quic), false, Some(first)) = (&service.quic, udp, protocols.first()) {
        let message = format!("`quic` runs over udp, and this service takes {}", first.value);
        let report = Report::error(code::BAD_QUIC, quic.span, message).also(first.span, "the protocol");
        out.push(report.help("remove `quic`, or write `protocol: udp` or `protocols: [tcp, udp]`"));
    }
    let Some(span) = service.admission.new_flows else { return };
    let blind = |protocol: &&At<Protocol>| match protocol.value {
        Protocol::Tcp => false,
        Protocol::Udp => service.quic.is_none(),
        Protocol::Sctp => true,
    };
    if let Some(protocol) = protocols.iter().find(blind) {
        let message =
            format!("`new_flows` cannot be limited: packets of {} do not show where a flow starts", {
                protocol.value
            });
        let report = Report::error(code::NO_NEW_FLOWS, span, message).also(protocol.span, "the protocol");
        out.push(
            report.help("limit `packets`, or add `quic: {}` if it is QUIC; tcp may be a service of its own"),
        );
    }
}

/// Checks a service with its pool.
pub(super) fn with_pool(service: &Service, pool: &Pool, out: &mut Findings<'_>) {
    for backend in pool.backends.iter().flatten() {
        let Some(address) = &backend.address else { continue };
        not_itself(service, address, out);
        families(service, pool, backend, address, out);
    }
    if let Some(At { value, span }) = &service.quic
        && let Some(format) = value.server_id
    {
        server_ids(format, *span, pool, out);
    }
    probes(service, pool, out);
}

fn not_itself(service: &Service, address: &At<IpAddr>, out: &mut Findings<'_>) {
    let own = service.traffic.addresses.iter().find(|own| own.value.contains(address.value));
    let Some(own) = own else { return };
    let what =
        if own.value.is_host() { "is its own service's address" } else { "is in its own service's prefix" };
    let message = format!("the backend {} {what}", address.value);
    let report = Report::error(code::BACKEND_IS_SERVICE, address.span, message);
    out.push(report.also(own.span, "the service").help("write the server's own address"));
}

fn families(service: &Service, pool: &Pool, backend: &Backend, address: &At<IpAddr>, out: &mut Findings<'_>) {
    let v4 = address.value.is_ipv4();
    match backend.forwarding.or(pool.forwarding) {
        Some(Forwarding::L2) => {
            let other = service.traffic.addresses.iter().find(|own| own.value.network.is_ipv4() != v4);
            let Some(other) = other else { return };
            let message = format!(
                "the service address {} and the l2 backend {} are of different families",
                shown(&other.value),
                address.value
            );
            let report = Report::error(code::FAMILY, address.span, message).also(other.span, "the service");
            out.push(report.help(
                "packets keep their addresses with l2; use a tunnel: `forwarding: ipip`, `gue` or `gre`",
            ));
        }
        Some(Forwarding::Tunnel(Tunnel { source: TunnelSource::Prefix(source), .. }))
            if source.network.is_ipv4() != v4 =>
        {
            let message = format!(
                "the tunnel's source {source} and its backend {} are of different families",
                address.value
            );
            let report = Report::error(code::FAMILY, address.span, message);
            out.push(report.help("write `source: auto`, or give this backend a `forwarding` of its own"));
        }
        Some(Forwarding::Tunnel(_)) | None => {}
    }
}

fn shown(prefix: &Prefix) -> String {
    if prefix.is_host() { prefix.network.to_string() } else { prefix.to_string() }
}

/// Every backend's server ID, unique and short enough; without one it only gets flows by their hash.
fn server_ids(format: ServerIdFormat, quic: Span, pool: &Pool, out: &mut Findings<'_>) {
    let mut first = BTreeMap::new();
    let backends = pool.backends.as_deref().unwrap_or_default();
    for At { value, span } in backends.iter().filter_map(|backend| backend.server_id.as_ref()) {
        let ids = format.ids();
        if !ids.contains(value) {
            let message = format!("`server_id` {value:#x} does not fit the service's format");
            let report = Report::error(code::BAD_QUIC, *span, message).also(quic, "the service");
            out.push(report.help(format!("it may be {:#x} to {:#x}", ids.start(), ids.end())));
        }
        if let Some(first) = first.insert(value, *span) {
            let message = format!("the server ID {value:#x} is used twice");
            out.push(Report::error(code::DUPLICATE, *span, message).also(first, "first here"));
        }
    }
    let missing = backends.iter().filter(|backend| backend.server_id.is_none());
    let (count, one) =
        (missing.clone().count(), missing.filter_map(|backend| backend.address.as_ref()).next());
    if let Some(one) = one {
        let message = format!("{count} of {} backends have no `server_id`", backends.len());
        let report = Report::warning(code::NO_SERVER_ID, quic, message).also(one.span, "such as this one");
        out.push(report.help("clients that move lose their connections to them"));
    }
}

/// Checks that cannot be made of this service.
fn probes(service: &Service, pool: &Pool, out: &mut Findings<'_>) {
    let traffic = &service.traffic;
    let sctp = traffic.protocols.iter().find(|protocol| protocol.value == Protocol::Sctp);
    let any = traffic.ports.iter().find(|ports| ports.value == Ports::ANY);
    let backends = pool.backends.iter().flatten();
    let own = backends.filter_map(|backend| Some((backend, backend.checks.as_ref()?)));
    let span = pool.checks_span.unwrap_or(pool.span);
    // A backend's own checks are pointed to by its address; the pool's may be another's only.
    let pools = pool.backends.iter().flatten().any(|backend| backend.checks.is_none());
    let pools = pools.then_some((span, &*pool.checks));
    let places =
        own.map(|(backend, checks)| (backend.address.as_ref().map_or(span, |at| at.span), &**checks));
    for (span, check) in
        pools.into_iter().chain(places).flat_map(|(span, list)| list.iter().map(move |c| (span, c)))
    {
        if let Some(sctp) = sctp.filter(|_| check.via == Via::Service) {
            let message = "an sctp service cannot be checked `via: service`".to_owned();
            let report = Report::error(code::BAD_CHECK, span, message).also(sctp.span, "the service");
            out.push(report.help("ask the backend itself: `via: direct`, or `type: icmp`"));
        }
        if let Some(any) = any.filter(|_| check.port.is_none() && check.kind != CheckKind::Icmp) {
            let message = "the check needs a `port`: the service takes any".to_owned();
            let report = Report::error(code::BAD_CHECK, span, message).also(any.span, "the service");
            out.push(report.help("write the `port` that tells whether the backend works"));
        }
        source_family(service, check, span, out);
    }
}

/// Through the service a probe is a packet to the service's address.
fn source_family(service: &Service, check: &Check, span: Span, out: &mut Findings<'_>) {
    let Some(source) = check.source else { return };
    let other = match (check.via, check.address) {
        (Via::Service, _) => {
            let addresses = service.traffic.addresses.iter().map(|own| own.value.network);
            addresses.into_iter().find(|own| own.is_ipv4() != source.is_ipv4())
        }
        (Via::Direct, address) => address.filter(|address| address.is_ipv4() != source.is_ipv4()),
    };
    if let Some(other) = other {
        let message = format!("a check from {source} cannot ask {other}: they are of different families");
        let report = Report::error(code::BAD_CHECK, span, message);
        out.push(report.help("leave `source` out: the host chooses it"));
    }
}
