//! One route look-up: the question as a message, the kernel's answer as a value. Must not know sockets.

use std::net::Ipv4Addr;

use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType};
use nix::errno::Errno;

use super::error::RouteError;

/// Where the kernel would send a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The egress interface.
    pub ifindex: u32,
    /// The router to hand it to; `None` when the destination is on link.
    pub gateway: Option<Ipv4Addr>,
    /// The source address the kernel would choose.
    pub prefsrc: Option<Ipv4Addr>,
    /// The route's own MTU in bytes (from `ip route … mtu`, or learnt by path MTU discovery), if it has one.
    pub mtu: Option<u32>,
}

/// The question for `address`, through the interface `oif` where one is named.
pub(super) fn question(address: Ipv4Addr, oif: Option<u32>) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.destination_prefix_length = 32;
    message.attributes.push(RouteAttribute::Destination(RouteAddress::Inet(address)));
    message.attributes.extend(oif.map(RouteAttribute::Oif));
    message
}

/// The route in the kernel's answer about `address`.
pub(super) fn answer(address: Ipv4Addr, message: &RouteMessage) -> Result<Route, RouteError> {
    match message.header.kind {
        RouteType::Unicast => {}
        RouteType::Local => return Err(RouteError::Local(address)),
        RouteType::BlackHole => return Err(RouteError::Blackhole(address)),
        RouteType::Unreachable => return Err(RouteError::Unreachable(address)),
        RouteType::Prohibit => return Err(RouteError::Prohibited(address)),
        _ => return Err(RouteError::NotUnicast(address)),
    }
    let mut ifindex = None;
    let mut route = Route { ifindex: 0, gateway: None, prefsrc: None, mtu: None };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => ifindex = Some(*index),
            RouteAttribute::Gateway(RouteAddress::Inet(gateway)) => route.gateway = Some(*gateway),
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) => {
                return Err(RouteError::GatewayNotIpv4(address));
            }
            RouteAttribute::PrefSource(RouteAddress::Inet(source)) => route.prefsrc = Some(*source),
            RouteAttribute::Metrics(metrics) => {
                route.mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    route.ifindex = ifindex.ok_or(RouteError::NoInterface(address))?;
    Ok(route)
}

/// The refusal's meaning: the kernel reports special routes through errno (`fib_props` in
/// `net/ipv4/fib_semantics.c`).
pub(super) fn refusal(address: Ipv4Addr, source: rtnetlink::Error) -> RouteError {
    let rtnetlink::Error::NetlinkError(message) = &source else {
        return RouteError::Lookup { address, source };
    };
    match Errno::from_raw(message.raw_code().saturating_abs()) {
        Errno::ENETUNREACH => RouteError::NoRoute(address),
        Errno::EHOSTUNREACH => RouteError::Unreachable(address),
        Errno::EACCES => RouteError::Prohibited(address),
        Errno::EINVAL => RouteError::Blackhole(address),
        _ => RouteError::Lookup { address, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_route::route::RouteVia;

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);

    fn message(kind: RouteType, attributes: Vec<RouteAttribute>) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.kind = kind;
        message.attributes = attributes;
        message
    }

    #[test]
    fn through_a_gateway_with_an_mtu() {
        let gateway = Ipv4Addr::new(192, 0, 2, 254);
        let attributes = vec![
            RouteAttribute::Oif(4),
            RouteAttribute::Gateway(RouteAddress::Inet(gateway)),
            RouteAttribute::Metrics(vec![RouteMetric::Mtu(1400)]),
        ];
        let route = answer(ADDRESS, &message(RouteType::Unicast, attributes)).unwrap();
        assert_eq!(route, Route { ifindex: 4, gateway: Some(gateway), prefsrc: None, mtu: Some(1400) });
    }

    #[test]
    fn kinds_are_told_apart() {
        let refused = |kind| answer(ADDRESS, &message(kind, vec![RouteAttribute::Oif(1)])).unwrap_err();
        assert!(matches!(refused(RouteType::Local), RouteError::Local(ADDRESS)));
        assert!(matches!(refused(RouteType::BlackHole), RouteError::Blackhole(ADDRESS)));
        assert!(matches!(refused(RouteType::Broadcast), RouteError::NotUnicast(ADDRESS)));
        let nameless = answer(ADDRESS, &message(RouteType::Unicast, vec![]));
        assert!(matches!(nameless, Err(RouteError::NoInterface(ADDRESS))));
    }

    #[test]
    fn an_ipv6_gateway_is_refused() {
        let via = RouteVia::Inet6(std::net::Ipv6Addr::LOCALHOST);
        let found = answer(ADDRESS, &message(RouteType::Unicast, vec![RouteAttribute::Via(via)]));
        assert!(matches!(found, Err(RouteError::GatewayNotIpv4(ADDRESS))));
    }
}
