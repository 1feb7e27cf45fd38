//! One route look-up: the question as a message, the kernel's answer as a value. Must not know sockets.

use std::net::IpAddr;

use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType, RouteVia,
};
use nix::errno::Errno;

use super::error::RouteError;

/// Where the kernel would send a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The egress interface.
    pub ifindex: u32,
    /// The router to hand it to; `None` when the destination is on link.
    pub gateway: Option<IpAddr>,
    /// The source address the kernel would choose.
    pub prefsrc: Option<IpAddr>,
    /// The route's own MTU in bytes (from `ip route … mtu`, or learnt by path MTU discovery), if it has one.
    pub mtu: Option<u32>,
}

/// The question for `address`, through the interface `oif` where one is named.
pub(super) fn question(address: IpAddr, oif: Option<u32>) -> RouteMessage {
    let mut message = RouteMessage::default();
    let (family, length, destination) = match address {
        IpAddr::V4(address) => (AddressFamily::Inet, 32, RouteAddress::Inet(address)),
        IpAddr::V6(address) => (AddressFamily::Inet6, 128, RouteAddress::Inet6(address)),
    };
    message.header.address_family = family;
    message.header.destination_prefix_length = length;
    message.attributes.push(RouteAttribute::Destination(destination));
    message.attributes.extend(oif.map(RouteAttribute::Oif));
    message
}

/// The route in the kernel's answer about `address`.
pub(super) fn answer(address: IpAddr, message: &RouteMessage) -> Result<Route, RouteError> {
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
            RouteAttribute::Gateway(gateway) => route.gateway = ip(gateway),
            RouteAttribute::Via(RouteVia::Inet(gateway)) => route.gateway = Some((*gateway).into()),
            RouteAttribute::Via(RouteVia::Inet6(gateway)) => route.gateway = Some((*gateway).into()),
            RouteAttribute::PrefSource(source) => route.prefsrc = ip(source),
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

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

/// The refusal's meaning: the kernel reports special routes through errno (`fib_props` in
/// `net/ipv4/fib_semantics.c`).
pub(super) fn refusal(address: IpAddr, source: rtnetlink::Error) -> RouteError {
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
    use std::net::{Ipv4Addr, Ipv6Addr};

    const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7));

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
        assert_eq!(
            route,
            Route { ifindex: 4, gateway: Some(gateway.into()), prefsrc: None, mtu: Some(1400) }
        );
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
    fn an_ipv4_route_may_have_an_ipv6_gateway() {
        let gateway = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
        let attributes = vec![RouteAttribute::Oif(4), RouteAttribute::Via(RouteVia::Inet6(gateway))];
        let route = answer(ADDRESS, &message(RouteType::Unicast, attributes)).unwrap();
        assert_eq!((route.ifindex, route.gateway), (4, Some(gateway.into())));
    }
}
