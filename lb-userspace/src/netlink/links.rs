//! Interfaces and their addresses at one moment, as values. Must not know how they were asked for.

use std::collections::BTreeMap;
use std::net::IpAddr;

use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::{
    InfoData, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, LinkXdp, VlanProtocol, XdpAttached,
};

use super::address::{self, InterfaceAddress};
use super::{Mac, is_station};

/// Where an XDP program sits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver.
    Native,
    /// In the stack, after the kernel built its packet buffer.
    Generic,
    /// On the card.
    Offload,
    /// In several of these places at once.
    Multiple,
}

/// The XDP program attached to an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Xdp {
    /// Where it is attached.
    pub mode: XdpMode,
    /// The kernel's id of the program; 0 when the kernel does not say (several programs).
    pub program_id: u32,
}

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The kernel's number for it; a recreated interface gets another one.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// Its Ethernet address; `None` where there is none (loopback, tunnels).
    pub mac: Option<Mac>,
    /// Largest layer-3 packet, in bytes.
    pub mtu: u32,
    /// Set up by the administrator.
    pub up: bool,
    /// Carrier present.
    pub lower_up: bool,
    /// Does no ARP (`ip link set … arp off`, point-to-point).
    pub noarp: bool,
    /// Number of receive queues the device was created with.
    pub rx_queues: u32,
    /// Number of transmit queues the device was created with.
    pub tx_queues: u32,
    /// The attached XDP program.
    pub xdp: Option<Xdp>,
    /// Index of the bridge, bond or VRF it belongs to.
    pub master: Option<u32>,
    /// Kind of a virtual interface (`veth`, `bridge`, `vlan`, …); `None` for hardware.
    pub kind: Option<String>,
    /// Where it is an 802.1Q VLAN: the index of the interface under it, and the VLAN's number. Nothing for a VLAN of
    /// another kind of tag, or over an interface of another namespace.
    pub vlan: Option<(u32, u16)>,
    /// Its addresses in the kernel's order.
    pub addresses: Vec<InterfaceAddress>,
}

/// All interfaces of a network namespace at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    links: BTreeMap<u32, Link>,
}

impl Link {
    /// Why no packet can leave through it now, in words; `None` when one can.
    pub fn trouble(&self) -> Option<String> {
        match (self.up, self.lower_up) {
            (false, _) => Some(format!("interface {} is down", self.name)),
            (true, false) => Some(format!("interface {} has no carrier", self.name)),
            (true, true) => None,
        }
    }

    /// The own address to send to `target` from: one in its subnet, otherwise any; unspecified without one. A link-local
    /// IPv6 address is for link-local targets only.
    pub fn source_for(&self, target: IpAddr) -> IpAddr {
        address::source_for(&self.addresses, target).unwrap_or(address::unspecified(target))
    }

    /// The own address to ask for the neighbour `via` from; `None` if it cannot be asked for.
    pub(super) fn asking_for(&self, via: IpAddr) -> Option<IpAddr> {
        address::asking_for(&self.addresses, via)
    }

    fn from_message(message: &LinkMessage) -> Self {
        let flags = message.header.flags;
        let mut link = Self {
            ifindex: message.header.index,
            name: String::new(),
            mac: None,
            mtu: 0,
            up: flags.contains(LinkFlags::Up),
            lower_up: flags.contains(LinkFlags::LowerUp),
            noarp: flags.contains(LinkFlags::Noarp),
            rx_queues: 0,
            tx_queues: 0,
            xdp: None,
            master: None,
            kind: None,
            vlan: None,
            addresses: Vec::new(),
        };
        let (mut parent, mut elsewhere, mut id) = (None, false, None);
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Address(bytes) => {
                    link.mac = Mac::try_from(bytes.as_slice()).ok().filter(|mac| is_station(*mac));
                }
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::NumRxQueues(n) => link.rx_queues = *n,
                LinkAttribute::NumTxQueues(n) => link.tx_queues = *n,
                LinkAttribute::Controller(index) => link.master = Some(*index),
                LinkAttribute::Xdp(parts) => link.xdp = xdp(parts),
                LinkAttribute::LinkInfo(infos) => (link.kind, id) = (kind(infos), vlan_id(infos)),
                LinkAttribute::Link(index) => parent = Some(*index),
                LinkAttribute::LinkNetNsId(_) => elsewhere = true,
                _ => {}
            }
        }
        link.vlan = parent.zip(id).filter(|_| !elsewhere);
        link
    }
}

impl Snapshot {
    /// A machine with these interfaces.
    pub fn from_links(links: impl IntoIterator<Item = Link>) -> Self {
        Self { links: links.into_iter().map(|link| (link.ifindex, link)).collect() }
    }

    pub(super) fn new(links: &[LinkMessage], addresses: &[AddressMessage]) -> Self {
        let mut links: BTreeMap<u32, Link> =
            links.iter().map(|m| (m.header.index, Link::from_message(m))).collect();
        for message in addresses {
            let link = links.get_mut(&message.header.index);
            if let Some((link, address)) = link.zip(InterfaceAddress::from_message(message)) {
                link.addresses.push(address);
            }
        }
        Self { links }
    }

    /// All interfaces, by rising index.
    pub fn iter(&self) -> impl Iterator<Item = &Link> {
        self.links.values()
    }

    /// The interface with this index.
    pub fn by_index(&self, ifindex: u32) -> Option<&Link> {
        self.links.get(&ifindex)
    }

    /// The interface of this name.
    pub fn by_name(&self, name: &str) -> Option<&Link> {
        self.iter().find(|link| link.name == name)
    }

    /// Whether this host owns `address`.
    pub fn is_local(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.iter().flat_map(|l| &l.addresses).any(|a| a.address == address)
    }

    /// The interface in whose subnet `address` lies: the longest prefix, then the one that is up, then the
    /// lowest index. Subnets only: routes may still say otherwise.
    pub fn on_link(&self, address: IpAddr) -> Option<&Link> {
        self.iter()
            .flat_map(|link| link.addresses.iter().map(move |a| (a, link)))
            .filter(|(a, _)| a.contains(address))
            .max_by_key(|(a, link)| (a.prefix_len, link.up, u32::MAX - link.ifindex))
            .map(|(_, link)| link)
    }
}

impl FromIterator<Link> for Snapshot {
    fn from_iter<I: IntoIterator<Item = Link>>(links: I) -> Self {
        Self { links: links.into_iter().map(|link| (link.ifindex, link)).collect() }
    }
}

fn xdp(parts: &[LinkXdp]) -> Option<Xdp> {
    let mut program_id = 0;
    let mut mode = None;
    for part in parts {
        match part {
            LinkXdp::ProgId(id) => program_id = *id,
            LinkXdp::Attached(XdpAttached::Driver) => mode = Some(XdpMode::Native),
            LinkXdp::Attached(XdpAttached::SocketBuffer) => mode = Some(XdpMode::Generic),
            LinkXdp::Attached(XdpAttached::Hardware) => mode = Some(XdpMode::Offload),
            LinkXdp::Attached(XdpAttached::Multiple) => mode = Some(XdpMode::Multiple),
            _ => {}
        }
    }
    mode.map(|mode| Xdp { mode, program_id })
}

fn kind(infos: &[LinkInfo]) -> Option<String> {
    infos.iter().find_map(|info| match info {
        LinkInfo::Kind(kind) => Some(kind.to_string()),
        _ => None,
    })
}

/// The number of an 802.1Q VLAN.
fn vlan_id(infos: &[LinkInfo]) -> Option<u16> {
    let data = infos.iter().find_map(|info| match info {
        LinkInfo::Data(InfoData::Vlan(data)) => Some(data),
        _ => None,
    })?;
    let (mut id, mut other_tag) = (None, false);
    for attribute in data {
        match attribute {
            InfoVlan::Id(number) => id = Some(*number),
            InfoVlan::Protocol(protocol) => other_tag = *protocol != VlanProtocol::Ieee8021Q,
            _ => {}
        }
    }
    id.filter(|_| !other_tag)
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_route::address::AddressAttribute;
    use netlink_packet_route::link::InfoKind;

    fn v4(octets: [u8; 4]) -> IpAddr {
        octets.into()
    }

    fn link(ifindex: u32, name: &str, attributes: Vec<LinkAttribute>) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = ifindex;
        message.header.flags = LinkFlags::Up | LinkFlags::LowerUp;
        message.attributes = attributes;
        message.attributes.push(LinkAttribute::IfName(name.into()));
        message
    }

    fn address(ifindex: u32, address: [u8; 4], prefix_len: u8) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header.index = ifindex;
        message.header.prefix_len = prefix_len;
        message.attributes.push(AddressAttribute::Local(address.into()));
        message
    }

    #[test]
    fn attributes_become_fields() {
        let xdp = vec![LinkXdp::Attached(XdpAttached::SocketBuffer), LinkXdp::ProgId(7)];
        let message = link(
            3,
            "eth0",
            vec![
                LinkAttribute::Address(vec![2, 0, 0, 0, 0, 1]),
                LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth)]),
                LinkAttribute::Xdp(xdp),
                LinkAttribute::Controller(9),
            ],
        );
        let snapshot = Snapshot::new(&[message], &[]);
        let eth0 = snapshot.by_name("eth0").unwrap();
        assert_eq!((eth0.mac, eth0.master), (Some([2, 0, 0, 0, 0, 1]), Some(9)));
        assert_eq!(eth0.kind.as_deref(), Some("veth"));
        assert_eq!(eth0.xdp, Some(Xdp { mode: XdpMode::Generic, program_id: 7 }));
    }

    #[test]
    fn the_longest_prefix_is_on_link() {
        let links = [link(2, "eth0", vec![]), link(3, "eth1", vec![])];
        let addresses = [address(2, [192, 0, 2, 1], 24), address(3, [192, 0, 2, 129], 25)];
        let snapshot = Snapshot::new(&links, &addresses);
        let name = |last| snapshot.on_link(v4([192, 0, 2, last])).map(|l| l.name.as_str());
        assert_eq!((name(5), name(200)), (Some("eth0"), Some("eth1")));
        assert!(snapshot.on_link(v4([198, 51, 100, 1])).is_none());
        assert!(snapshot.is_local(v4([192, 0, 2, 129])) && !snapshot.is_local(v4([192, 0, 2, 130])));
        assert_eq!(snapshot.by_index(3).unwrap().source_for(v4([192, 0, 2, 5])), v4([192, 0, 2, 129]));
    }

    #[test]
    fn a_vlan_names_its_parent_and_number() {
        let vlan = |protocol, more: Option<LinkAttribute>| {
            let data = InfoData::Vlan(vec![InfoVlan::Id(100), InfoVlan::Protocol(protocol)]);
            let infos = vec![LinkInfo::Kind(InfoKind::Vlan), LinkInfo::Data(data)];
            let mut attributes = vec![LinkAttribute::LinkInfo(infos), LinkAttribute::Link(2)];
            attributes.extend(more);
            Link::from_message(&link(9, "eth0.100", attributes)).vlan
        };
        assert_eq!(vlan(VlanProtocol::Ieee8021Q, None), Some((2, 100)));
        assert_eq!(vlan(VlanProtocol::Ieee8021Ad, None), None);
        let elsewhere = Some(LinkAttribute::LinkNetNsId(1));
        assert_eq!(vlan(VlanProtocol::Ieee8021Q, elsewhere), None, "that index means another interface here");
        let veth =
            vec![LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth)]), LinkAttribute::Link(2)];
        assert_eq!(Link::from_message(&link(9, "eth1", veth)).vlan, None);
    }
}
