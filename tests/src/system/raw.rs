//! Packets that no ordinary socket would send: made by etherparse, sent as they are through raw sockets.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;

use anyhow::{Context, bail};
use etherparse::{IpFragOffset, IpNumber, Ipv4Header, Ipv6FragmentHeader, Ipv6Header, PacketBuilder};
use lb_userspace::lab::Netns;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, sendto, socket,
};

use super::inside;

/// Sends IP packets from a namespace, in this order.
pub fn send_raw(netns: &Netns, to: IpAddr, packets: &[Vec<u8>]) -> anyhow::Result<()> {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    inside(netns, || -> nix::Result<()> {
        let socket = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw)?;
        for packet in packets {
            let to = SockaddrStorage::from(SocketAddr::new(to, 0));
            sendto(socket.as_raw_fd(), packet, &to, MsgFlags::empty())?;
        }
        Ok(())
    })?
    .with_context(|| format!("sending raw packets to {to}"))
}

/// A UDP datagram as an IP packet of its own; only the first `keep` bytes of its payload if it is a quote.
pub fn datagram(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> anyhow::Result<Vec<u8>> {
    let builder = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), 64),
        _ => bail!("{from} and {to} are of different families"),
    };
    let mut packet = Vec::new();
    builder.udp(from.port(), to.port()).write(&mut packet, payload).context("building a datagram")?;
    Ok(packet)
}

/// An IP packet cut into fragments, `size` bytes of payload each (a multiple of 8), in their order.
pub fn fragments(packet: &[u8], id: u32, size: usize) -> anyhow::Result<Vec<Vec<u8>>> {
    let header = if packet[0] >> 4 == 4 { Ipv4Header::MIN_LEN } else { Ipv6Header::LEN };
    let (header, payload) = packet.split_at(header);
    let pieces = payload.chunks(size).enumerate().map(|(number, piece)| {
        let (offset, more) = (number * size, number * size + piece.len() < payload.len());
        fragment(header, id, offset, more, piece)
    });
    pieces.collect()
}

fn fragment(header: &[u8], id: u32, offset: usize, more: bool, piece: &[u8]) -> anyhow::Result<Vec<u8>> {
    let offset = IpFragOffset::try_new(u16::try_from(offset / 8)?)?;
    let mut packet = Vec::new();
    if header.len() == Ipv4Header::MIN_LEN {
        let (mut header, _) = Ipv4Header::from_slice(header)?;
        header.identification = id as u16;
        (header.dont_fragment, header.more_fragments, header.fragment_offset) = (false, more, offset);
        header.set_payload_len(piece.len())?;
        header.header_checksum = header.calc_header_checksum();
        header.write(&mut packet)?;
    } else {
        let (mut header, _) = Ipv6Header::from_slice(header)?;
        let part = Ipv6FragmentHeader::new(header.next_header, offset, more, id);
        header.next_header = IpNumber::IPV6_FRAGMENTATION_HEADER;
        header.set_payload_length(piece.len() + 8)?;
        header.write(&mut packet)?;
        part.write(&mut packet)?;
    }
    packet.extend(piece);
    Ok(packet)
}

/// A router's "fragmentation needed" or "packet too big" about `packet`, quoting only so many bytes behind its IP header.
pub fn too_big(router: IpAddr, packet: &[u8], mtu: u16, quoted: usize) -> anyhow::Result<Vec<u8>> {
    let mut message = Vec::new();
    match router {
        IpAddr::V4(router) => {
            let (inner, _) = Ipv4Header::from_slice(packet)?;
            let quote = &packet[..Ipv4Header::MIN_LEN + quoted];
            let kind = etherparse::icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: mtu };
            let builder = PacketBuilder::ipv4(router.octets(), inner.source, 64);
            builder
                .icmpv4(etherparse::Icmpv4Type::DestinationUnreachable(kind))
                .write(&mut message, quote)?;
        }
        IpAddr::V6(router) => {
            let (inner, _) = Ipv6Header::from_slice(packet)?;
            let quote = &packet[..Ipv6Header::LEN + quoted];
            let builder = PacketBuilder::ipv6(router.octets(), inner.source, 64);
            let kind = etherparse::Icmpv6Type::PacketTooBig { mtu: mtu.into() };
            builder.icmpv6(kind).write(&mut message, quote)?;
        }
    }
    Ok(message)
}
