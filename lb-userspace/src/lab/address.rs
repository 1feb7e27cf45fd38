//! The lab's addresses: fixed, from the documentation ranges (RFC 5737, RFC 3849), the same in every lab.
//!
//! Labs do not see each other, so nothing here depends on a lab's name.

use std::net::{Ipv4Addr, Ipv6Addr};

/// The client, behind the router.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// The router, as the client sees it.
pub const ROUTER_CLIENT_SIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// The router, as the server segment sees it.
pub const ROUTER_SERVER_SIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// The balancer's own address.
pub const BALANCER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);
/// The service address that is forwarded with `l2`.
pub const VIP_L2: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// The service address that is forwarded with `ipip`.
pub const VIP_IPIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 20);

/// The client, in a lab with IPv6.
pub const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 2);
/// The router, as that client sees it.
pub const ROUTER_CLIENT_SIDE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);
/// The router, as the server segment sees it.
pub const ROUTER_SERVER_SIDE_V6: Ipv6Addr = server_side(1);
/// The balancer's own IPv6 address.
pub const BALANCER_V6: Ipv6Addr = server_side(5);
/// The IPv6 service address that is forwarded with `l2`.
pub const VIP_L2_V6: Ipv6Addr = server_side(0x10);
/// The IPv6 service address that is forwarded with `ipip`.
pub const VIP_IPIP_V6: Ipv6Addr = server_side(0x20);

/// Most backends a lab can have: .21 to .84.
pub(super) const MAX_BACKENDS: u8 = 64;

/// The address of backend `number`, counted from 1.
pub(super) fn backend(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(203, 0, 113, 20_u8.saturating_add(number))
}

/// The IPv6 address of backend `number`: `2001:db8::21` is the first one's.
pub(super) const fn backend_v6(number: u8) -> Ipv6Addr {
    server_side(0x20 + number as u16)
}

const fn server_side(host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends_follow_the_service_addresses() {
        assert_eq!(backend(1), Ipv4Addr::new(203, 0, 113, 21));
        assert_eq!(backend_v6(1).to_string(), "2001:db8::21");
        assert_eq!(backend(MAX_BACKENDS), Ipv4Addr::new(203, 0, 113, 84));
    }
}
