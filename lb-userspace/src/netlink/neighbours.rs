//! The kernel's neighbour entries, reduced to what forwarding may rely on.

use std::collections::BTreeMap;
use std::net::IpAddr;

use netlink_packet_route::AddressFamily;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};

use super::{Hop, Mac, is_station};

/// All neighbour entries by interface and address.
pub type Neighbours = BTreeMap<Hop, Neighbour>;

/// What the kernel says about one neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Neighbour {
    /// Set by hand or by the interface's nature (PERMANENT, NOARP): no answer changes it.
    Fixed(Mac),
    /// Learnt and usable (REACHABLE, STALE, DELAY, PROBE).
    Learnt(Mac),
    /// Asked for, no answer yet.
    Incomplete,
    /// Asked for in vain.
    Failed,
}

impl Neighbour {
    /// Its usable Ethernet address.
    pub fn mac(self) -> Option<Mac> {
        match self {
            Self::Fixed(mac) | Self::Learnt(mac) => Some(mac),
            Self::Incomplete | Self::Failed => None,
        }
    }

    /// Its Ethernet address if no answer has a say in it.
    pub fn fixed(self) -> Option<Mac> {
        match self {
            Self::Fixed(mac) => Some(mac),
            Self::Learnt(_) | Self::Incomplete | Self::Failed => None,
        }
    }

    /// Whom a message is about, and what it says; nothing, if it says nothing forwarding may rely on.
    pub(super) fn from_message(message: &NeighbourMessage) -> Option<(Hop, Option<Self>)> {
        let proxy = message.header.flags.contains(NeighbourFlags::Proxy);
        if !matches!(message.header.family, AddressFamily::Inet | AddressFamily::Inet6) || proxy {
            return None;
        }
        let (mut via, mut mac) = (None, None);
        for attribute in &message.attributes {
            match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => {
                    via = Some(IpAddr::from(*address));
                }
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => {
                    via = Some(IpAddr::from(*address));
                }
                NeighbourAttribute::LinkLayerAddress(bytes) => {
                    mac = Mac::try_from(bytes.as_slice()).ok().filter(|mac| is_station(*mac));
                }
                _ => {}
            }
        }
        let neighbour = match (message.header.state, mac) {
            (NeighbourState::Permanent | NeighbourState::Noarp, Some(mac)) => Some(Self::Fixed(mac)),
            (
                NeighbourState::Reachable
                | NeighbourState::Stale
                | NeighbourState::Delay
                | NeighbourState::Probe,
                Some(mac),
            ) => Some(Self::Learnt(mac)),
            (NeighbourState::Incomplete, _) => Some(Self::Incomplete),
            (NeighbourState::Failed, _) => Some(Self::Failed),
            _ => None,
        };
        Some((Hop { ifindex: message.header.ifindex, via: via? }, neighbour))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    const VIA: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);
    const HOP: Hop = Hop { ifindex: 2, via: IpAddr::V4(VIA) };

    fn message(state: NeighbourState, mac: &[u8]) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.ifindex = HOP.ifindex;
        message.header.state = state;
        let via = NeighbourAddress::Inet(VIA);
        message.attributes.push(NeighbourAttribute::Destination(via));
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
        message
    }

    #[test]
    fn states() {
        let mac = [2, 0, 0, 0, 0, 9];
        let cases = [
            (NeighbourState::Permanent, Some(Neighbour::Fixed(mac))),
            (NeighbourState::Noarp, Some(Neighbour::Fixed(mac))),
            (NeighbourState::Reachable, Some(Neighbour::Learnt(mac))),
            (NeighbourState::Stale, Some(Neighbour::Learnt(mac))),
            (NeighbourState::Delay, Some(Neighbour::Learnt(mac))),
            (NeighbourState::Probe, Some(Neighbour::Learnt(mac))),
            (NeighbourState::Incomplete, Some(Neighbour::Incomplete)),
            (NeighbourState::Failed, Some(Neighbour::Failed)),
            (NeighbourState::None, None),
        ];
        for (state, expected) in cases {
            let found = Neighbour::from_message(&message(state, &mac));
            assert_eq!(found, Some((HOP, expected)), "{state}");
        }
    }

    #[test]
    fn unusable_addresses_are_no_entry() {
        for mac in [&[0u8; 6][..], &[1, 0, 0x5e, 0, 0, 1], &[2, 0, 0, 0]] {
            let found = Neighbour::from_message(&message(NeighbourState::Reachable, mac));
            assert_eq!(found, Some((HOP, None)));
        }
    }

    #[test]
    fn ipv6_and_nothing_else() {
        let via = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 9);
        let mut message = message(NeighbourState::Stale, &[2, 0, 0, 0, 0, 9]);
        message.header.family = AddressFamily::Inet6;
        message.attributes[0] = NeighbourAttribute::Destination(NeighbourAddress::Inet6(via));
        let expected = (Hop { via: via.into(), ..HOP }, Some(Neighbour::Learnt([2, 0, 0, 0, 0, 9])));
        assert_eq!(Neighbour::from_message(&message), Some(expected));
        message.header.family = AddressFamily::Bridge;
        assert_eq!(Neighbour::from_message(&message), None, "a bridge's table of stations");
    }
}
