//! A network namespace for probes, joined to the current one by a veth: whatever is sent in there comes out at the
//! veth's near end, the *gate*, where a program takes it. Must not know what is sent.
//!
//! The namespace has no name and no other holder than this process: it goes with it, and the veth with it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;

use futures_util::TryStreamExt;
use netlink_packet_route::address::AddressHeaderFlags;
use netlink_packet_route::link::LinkAttribute;
use netlink_packet_route::neighbour::NeighbourState;
use netlink_packet_route::route::RouteMessage;
use nix::sched::{CloneFlags, unshare};
use rtnetlink::{Handle, LinkUnspec, LinkVeth, RouteMessageBuilder};
use tokio::task::JoinSet;

use super::Mac;
use super::address::InterfaceAddress;

/// The gate's name, in the namespace of the daemon.
pub const GATE: &str = "lb-probe";
/// The other end's name, in the namespace of the probes.
const FAR_END: &str = "prober";
/// Gateway of everything in there: an address nobody has, with a permanent neighbour entry.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 0, 1);
/// The same for IPv6.
const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
/// The far end's own address. With its last address an interface loses its IPv4 routes and neighbours.
const FAR_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 0, 2));
/// MTU in there: small, so that a probe with an outer header in front fits any underlay; the least that IPv6 allows.
const MTU: u32 = 1280;

/// Why there is no such namespace.
#[derive(Debug, thiserror::Error)]
pub enum ProbeNetError {
    /// A system call failed.
    #[error("{action}: {source}")]
    System {
        /// What was attempted.
        action: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// A netlink request failed.
    #[error("{action}: {source}")]
    Netlink {
        /// What was attempted.
        action: &'static str,
        /// Why not.
        source: rtnetlink::Error,
    },
    /// An offload could not be set.
    #[error(transparent)]
    Offload(#[from] crate::nic::Error),
}

/// The calling thread's new namespace.
#[derive(Debug)]
pub struct ProbeNet {
    handle: Handle,
    far_end: u32,
    addresses: BTreeSet<IpAddr>,
    _connection: JoinSet<()>,
}

impl ProbeNet {
    /// Moves the calling thread into a new namespace and joins it to the one it came from by a veth with these MAC
    /// addresses. Everything that the thread opens from now on is in there; must be called inside a tokio runtime
    /// that runs on this thread alone.
    pub async fn enter(gate: Mac, far_end: Mac) -> Result<Self, ProbeNetError> {
        remove_gate(gate).await?;
        let outside = File::open("/proc/thread-self/ns/net").map_err(system("opening the namespace"))?;
        unshare(CloneFlags::CLONE_NEWNET).map_err(|error| system("making a namespace")(error.into()))?;
        quiet().map_err(system("setting up the namespace"))?;
        let (connection, handle, _) = rtnetlink::new_connection().map_err(system("opening netlink"))?;
        let mut tasks = JoinSet::new();
        tasks.spawn(connection);
        let mut net = Self { handle, far_end: 0, addresses: BTreeSet::new(), _connection: tasks };
        net.join(&outside, gate, far_end).await?;
        Ok(net)
    }

    async fn join(&mut self, outside: &File, gate: Mac, far_end: Mac) -> Result<(), ProbeNetError> {
        let made = self.handle.link().add(LinkVeth::new(GATE, FAR_END).build()).execute().await;
        made.map_err(netlink("making a veth"))?;
        let (near, far) = (self.index(GATE).await?, self.index(FAR_END).await?);
        self.far_end = far;
        // Checksums are written before the program rewrites the packet around them; and a veth end takes redirected
        // frames only while it does its own receiving.
        let (on, off) = {
            use crate::nic::Offload::*;
            ([GenericReceive], [TransmitChecksum, TcpSegmentation, GenericSegmentation])
        };
        crate::nic::set_offload(FAR_END, &on, &off)?;
        let outward = LinkUnspec::new_with_index(near)
            .address(gate.to_vec())
            .mtu(MTU + 100)
            .setns_by_fd(outside.as_raw_fd());
        self.set(outward.build(), "moving the gate").await?;
        self.set(LinkUnspec::new_with_index(1).up().build(), "bringing lo up").await?;
        // Without ARP it does not join the groups that its IPv6 addresses are asked for in, nor tell of it.
        let inward = LinkUnspec::new_with_index(far).address(far_end.to_vec()).mtu(MTU).arp(false).up();
        self.set(inward.build(), "bringing the prober's end up").await?;
        let own = self.handle.address().add(far, FAR_ADDRESS, 32);
        own.execute().await.map_err(netlink("adding the prober's address"))?;
        let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(GATEWAY).output_interface(far).onlink();
        let added = self.add_gateway(GATEWAY.into(), gate, route.build()).await;
        added.map_err(netlink("adding the route"))?;
        let route = RouteMessageBuilder::<Ipv6Addr>::new().gateway(GATEWAY6).output_interface(far).onlink();
        if let Err(source) = self.add_gateway(GATEWAY6.into(), gate, route.build()).await {
            // A kernel without IPv6 has no IPv6 services either.
            tracing::warn!(%source, "no probes of IPv6 services through the data plane");
        }
        Ok(())
    }

    /// Adds a default route through the gate.
    async fn add_gateway(
        &self,
        gateway: IpAddr,
        gate: Mac,
        route: RouteMessage,
    ) -> Result<(), rtnetlink::Error> {
        let neighbour = self.handle.neighbours().add(self.far_end, gateway).link_layer_address(&gate);
        neighbour.state(NeighbourState::Permanent).execute().await?;
        self.handle.route().add(route).execute().await
    }

    /// The addresses that probes can come from.
    pub fn addresses(&self) -> impl Iterator<Item = &IpAddr> {
        self.addresses.iter()
    }

    /// Makes exactly these the addresses that probes can come from.
    pub async fn set_addresses(&mut self, wanted: &BTreeSet<IpAddr>) -> Result<(), ProbeNetError> {
        let new: Vec<IpAddr> = wanted.difference(&self.addresses).copied().collect();
        for address in new {
            let prefix_len = if address.is_ipv4() { 32 } else { 128 };
            let mut add = self.handle.address().add(self.far_end, address, prefix_len).replace();
            // Nobody else in there can have it.
            add.message_mut().header.flags |= AddressHeaderFlags::Nodad;
            match add.execute().await {
                Ok(()) => drop(self.addresses.insert(address)),
                // The others are not to suffer for it.
                Err(source) => tracing::warn!(%address, %source, "no probes from this address"),
            }
        }
        if self.addresses.iter().all(|address| wanted.contains(address)) {
            return Ok(());
        }
        let mut present = self.handle.address().get().set_link_index_filter(self.far_end).execute();
        while let Some(message) = present.try_next().await.map_err(netlink("listing addresses"))? {
            let gone = InterfaceAddress::from_message(&message)
                .map(|found| found.address)
                .filter(|address| *address != FAR_ADDRESS && !wanted.contains(address));
            if let Some(address) = gone {
                let removed = self.handle.address().del(message).execute().await;
                removed.map_err(netlink("removing a node's address"))?;
                self.addresses.remove(&address);
            }
        }
        Ok(())
    }

    async fn index(&self, name: &'static str) -> Result<u32, ProbeNetError> {
        let mut found = self.handle.link().get().match_name(name.to_owned()).execute();
        let message = found.try_next().await.map_err(netlink("finding the veth"))?;
        let named = |message: &netlink_packet_route::link::LinkMessage| {
            message.attributes.iter().any(|a| matches!(a, LinkAttribute::IfName(found) if found == name))
        };
        let gone = || system("finding the veth")(io::ErrorKind::NotFound.into());
        message.filter(named).map(|message| message.header.index).ok_or_else(gone)
    }

    async fn set(
        &self,
        message: netlink_packet_route::link::LinkMessage,
        action: &'static str,
    ) -> Result<(), ProbeNetError> {
        self.handle.link().set(message).execute().await.map_err(netlink(action))
    }
}

/// Removes a gate with this MAC address from the current namespace, and the veth's other end with it. A namespace lives
/// on while connections in it are being closed, for minutes after its process has ended.
pub async fn remove_gate(gate: Mac) -> Result<(), ProbeNetError> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(system("opening netlink"))?;
    let mut tasks = JoinSet::new();
    tasks.spawn(connection);
    let mut found = handle.link().get().match_name(GATE.to_owned()).execute();
    let Ok(Some(message)) = found.try_next().await else { return Ok(()) };
    let ours = LinkAttribute::Address(gate.to_vec());
    if !message.attributes.contains(&ours) {
        return Err(system("making the gate lb-probe")(io::ErrorKind::AlreadyExists.into()));
    }
    match handle.link().del(message.header.index).execute().await {
        Err(error)
            if handle.link().get().match_index(message.header.index).execute().try_next().await.is_ok() =>
        {
            Err(netlink("removing an old gate")(error))
        }
        // Gone by itself meanwhile, perhaps.
        _ => Ok(()),
    }
}

/// Settings of the calling thread's namespace: nothing but probes is sent, and replies are taken as they come.
fn quiet() -> io::Result<()> {
    let settings = [
        ("ipv4/conf/all/rp_filter", "0"),
        ("ipv4/conf/default/rp_filter", "0"),
        ("ipv4/ip_local_port_range", "1024 61439"),
        ("ipv6/conf/all/disable_ipv6", "0"),
        ("ipv6/conf/default/disable_ipv6", "0"),
        ("ipv6/conf/all/accept_dad", "0"),
        ("ipv6/conf/default/accept_dad", "0"),
        ("ipv6/conf/default/accept_ra", "0"),
        // No link-local address of its own: nothing would be said with it but noise.
        ("ipv6/conf/default/addr_gen_mode", "1"),
    ];
    for (key, value) in settings {
        match fs::write(format!("/proc/sys/net/{key}"), value) {
            // A kernel without IPv6 is quiet anyway.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => result?,
        }
    }
    Ok(())
}

fn system(action: &'static str) -> impl Fn(io::Error) -> ProbeNetError {
    move |source| ProbeNetError::System { action, source }
}

fn netlink(action: &'static str) -> impl Fn(rtnetlink::Error) -> ProbeNetError {
    move |source| ProbeNetError::Netlink { action, source }
}
