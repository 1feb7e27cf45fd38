//! What a host takes for its own: addresses with their state, local prefixes, and the ways out of it. Read and changed
//! one by one; must not know what any of it is for.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::TryStreamExt;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope, CacheInfo,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::RouteMessageBuilder;

use super::client::{Netlink, list};
use super::error::Error;

/// The table of what is the host's own (`RT_TABLE_LOCAL`, include/uapi/linux/rtnetlink.h).
const LOCAL_TABLE: u32 = 255;

/// Whether an IPv6 address is in use (RFC 4862 section 5.4).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Usable {
    /// It is, as every IPv4 address.
    Yes,
    /// The segment is being asked whether somebody else has it.
    Asking,
    /// Somebody else has it.
    Taken,
}

/// An address of an interface.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct OwnAddress {
    /// The interface.
    pub ifindex: u32,
    /// The address.
    pub address: IpAddr,
    /// Length of its prefix, in bits.
    pub prefix_len: u8,
    /// Whether it is in use.
    pub usable: Usable,
}

impl OwnAddress {
    fn from_message(message: &AddressMessage) -> Option<Self> {
        let (mut local, mut peer) = (None, None);
        let mut flags = AddressFlags::from_bits_retain(message.header.flags.bits().into());
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Local(address) => local = Some(*address),
                AddressAttribute::Address(address) => peer = Some(*address),
                AddressAttribute::Flags(all) => flags = *all,
                _ => {}
            }
        }
        let usable = if flags.contains(AddressFlags::Dadfailed) {
            Usable::Taken
        } else if flags.contains(AddressFlags::Tentative) {
            Usable::Asking
        } else {
            Usable::Yes
        };
        let (ifindex, prefix_len) = (message.header.index, message.header.prefix_len);
        Some(Self { ifindex, address: local.or(peer)?, prefix_len, usable })
    }
}

/// The reach of an interface's prefix: its first address, its length in bits, the interface.
pub type LocalPrefix = (IpAddr, u8, u32);

/// The interfaces that packets to anywhere leave through.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct DefaultRoutes {
    /// Of IPv4.
    pub v4: BTreeSet<u32>,
    /// Of IPv6.
    pub v6: BTreeSet<u32>,
}

impl Netlink {
    /// All addresses, also those that are not in use.
    pub async fn own_addresses(&self) -> Result<Vec<OwnAddress>, Error> {
        let messages = list("addresses", self.handle().address().get().execute()).await?;
        Ok(messages.iter().filter_map(OwnAddress::from_message).collect())
    }

    /// Gives an interface an address that the host answers for but never speaks from by itself: with host scope,
    /// deprecated (RFC 4862 section 5.5.4), without asking the segment.
    pub async fn add_own(&self, ifindex: u32, address: IpAddr) -> Result<(), Error> {
        let length = if address.is_ipv4() { 32 } else { 128 };
        let mut request = self.handle().address().add(ifindex, address, length).replace();
        let message = request.message_mut();
        message.header.scope = AddressScope::Host;
        if address.is_ipv6() {
            message.header.flags |= AddressHeaderFlags::Nodad;
            let mut lifetime = CacheInfo::default();
            lifetime.ifa_valid = u32::MAX;
            message.attributes.push(AddressAttribute::CacheInfo(lifetime));
        }
        let failed = |source| Error::Address { action: "add", ifindex, address, source };
        request.execute().await.map_err(failed)
    }

    /// Takes an address from an interface; whether it had it.
    pub async fn remove_own(&self, ifindex: u32, address: IpAddr) -> Result<bool, Error> {
        let mut found = self.handle().address().get().set_link_index_filter(ifindex).execute();
        let failed = |source| Error::Address { action: "remove", ifindex, address, source };
        while let Some(message) = found.try_next().await.map_err(failed)? {
            if OwnAddress::from_message(&message).is_some_and(|own| own.address == address) {
                self.handle().address().del(message).execute().await.map_err(failed)?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Prefixes whose addresses are all the host's own.
    pub async fn local_prefixes(&self) -> Result<Vec<LocalPrefix>, Error> {
        let routes = self.routes().await?;
        Ok(routes.iter().filter(|route| route.header.kind == RouteType::Local).filter_map(reach).collect())
    }

    /// Makes all addresses of a prefix the host's own.
    pub async fn add_local(&self, ifindex: u32, network: IpAddr, length: u8) -> Result<(), Error> {
        let request = self.handle().route().add(local(ifindex, network, length));
        let failed = |source| Error::Address { action: "add", ifindex, address: network, source };
        request.replace().execute().await.map_err(failed)
    }

    /// Takes that back.
    pub async fn remove_local(&self, ifindex: u32, network: IpAddr, length: u8) -> Result<(), Error> {
        let request = self.handle().route().del(local(ifindex, network, length));
        let failed = |source| Error::Address { action: "remove", ifindex, address: network, source };
        request.execute().await.map_err(failed)
    }

    /// The interfaces of the default routes.
    pub async fn default_routes(&self) -> Result<DefaultRoutes, Error> {
        let routes = self.routes().await?;
        let through = |family: AddressFamily| {
            let fit = |header: &RouteHeader| {
                header.address_family == family
                    && header.destination_prefix_length == 0
                    && header.table == RouteHeader::RT_TABLE_MAIN
                    && header.kind == RouteType::Unicast
            };
            routes.iter().filter(|route| fit(&route.header)).flat_map(ways_out).collect()
        };
        Ok(DefaultRoutes { v4: through(AddressFamily::Inet), v6: through(AddressFamily::Inet6) })
    }

    /// All routes of both families, of all tables.
    async fn routes(&self) -> Result<Vec<RouteMessage>, Error> {
        let mut routes = Vec::new();
        for question in
            [RouteMessageBuilder::<Ipv4Addr>::new().build(), RouteMessageBuilder::<Ipv6Addr>::new().build()]
        {
            routes.extend(list("routes", self.handle().route().get(question).execute()).await?);
        }
        Ok(routes)
    }
}

fn local(ifindex: u32, network: IpAddr, length: u8) -> RouteMessage {
    match network {
        IpAddr::V4(network) => RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(network, length)
            .output_interface(ifindex)
            .table_id(LOCAL_TABLE)
            .scope(RouteScope::Host)
            .protocol(RouteProtocol::Boot)
            .kind(RouteType::Local)
            .build(),
        IpAddr::V6(network) => RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(network, length)
            .output_interface(ifindex)
            .table_id(LOCAL_TABLE)
            .protocol(RouteProtocol::Boot)
            .kind(RouteType::Local)
            .build(),
    }
}

fn reach(route: &RouteMessage) -> Option<LocalPrefix> {
    let network = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(IpAddr::from(*address)),
        RouteAttribute::Destination(RouteAddress::Inet6(address)) => Some(IpAddr::from(*address)),
        _ => None,
    })?;
    Some((network, route.header.destination_prefix_length, *ways_out(route).first()?))
}

fn ways_out(route: &RouteMessage) -> Vec<u32> {
    let through = |attribute: &RouteAttribute| match attribute {
        RouteAttribute::Oif(index) => vec![*index],
        RouteAttribute::MultiPath(hops) => hops.iter().map(|hop| hop.interface_index).collect(),
        _ => Vec::new(),
    };
    route.attributes.iter().flat_map(through).collect()
}
