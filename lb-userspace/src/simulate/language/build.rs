//! Headers to bytes, with lengths and checksums as they should be.

use std::net::IpAddr;

use etherparse::{
    Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, IpDscp, IpEcn, IpFragOffset, IpNumber, Ipv4Header,
    Ipv4Options, Ipv6FlowLabel, Ipv6FragmentHeader, Ipv6Header, TcpHeader, TcpOptionElement, UdpHeader,
};

/// TTL and hop limit where nothing is said.
pub(super) const TTL: u8 = 64;
/// Bytes of an extension header as [`Extension::bytes`] makes them.
pub(super) const EXTENSION_BYTES: usize = 8;
/// TCP's sequence and acknowledgement numbers and window; they decide nothing here.
const SEQUENCE: u32 = 0x0102_0304;
const ACKNOWLEDGED: u32 = 0x0506_0708;
const WINDOW: u16 = 1024;
/// An SCTP common header (RFC 9260 section 3.1), in bytes.
pub(super) const SCTP_BYTES: usize = 12;

/// An IPv6 extension header.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Extension {
    HopByHop,
    Routing,
    Destination,
}

impl Extension {
    pub(super) const ALL: [Self; 3] = [Self::HopByHop, Self::Routing, Self::Destination];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::HopByHop => "hbh",
            Self::Routing => "route",
            Self::Destination => "dest",
        }
    }

    pub(super) fn number(self) -> u8 {
        match self {
            Self::HopByHop => 0,
            Self::Routing => 43,
            Self::Destination => 60,
        }
    }

    /// Options: PadN (RFC 8200 section 4.2). Routing: an experimental type (RFC 3692) with no segments left.
    fn bytes(self, next: u8) -> [u8; EXTENSION_BYTES] {
        match self {
            Self::HopByHop | Self::Destination => [next, 0, 1, 4, 0, 0, 0, 0],
            Self::Routing => [next, 0, 253, 0, 0, 0, 0, 0],
        }
    }
}

/// A packet's place in its datagram.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Fragment {
    pub(super) id: u32,
    /// In bytes, a multiple of 8.
    pub(super) offset: u16,
    pub(super) more: bool,
}

/// What an IP header says.
#[derive(Clone, Debug)]
pub(super) struct Header {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) ttl: u8,
    pub(super) tos: u8,
    /// IPv4: don't fragment.
    pub(super) df: bool,
    /// IPv4: identification.
    pub(super) id: u16,
    /// IPv6: flow label.
    pub(super) label: u32,
    /// IPv4: bytes of options, a multiple of 4 and at most 40.
    pub(super) options: u8,
    pub(super) extensions: Vec<Extension>,
    pub(super) fragment: Option<Fragment>,
}

/// What follows it, apart from the payload.
#[derive(Clone, Debug)]
pub(super) enum Segment {
    Tcp { ports: (u16, u16), flags: u8, mss: Option<u16> },
    Udp { ports: (u16, u16), checksum: Sum },
    Sctp { ports: (u16, u16) },
    Icmp { kind: u8, code: u8, rest: [u8; 4] },
    Plain { protocol: u8 },
}

/// Whether a UDP checksum is there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Sum {
    Present,
    Zero,
}

/// The packet; `None` if it would be longer than an IP packet can be.
pub(super) fn packet(header: &Header, segment: &Segment, payload: &[u8]) -> Option<Vec<u8>> {
    let (protocol, mut bytes) = transport(header, segment, payload)?;
    bytes.extend(payload);
    match (header.source, header.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut ip = Ipv4Header { protocol: IpNumber(protocol), ..ipv4(header)? };
            (ip.source, ip.destination) = (source.octets(), destination.octets());
            ip.set_payload_len(bytes.len()).ok()?;
            ip.header_checksum = ip.calc_header_checksum();
            Some([ip.to_bytes().as_slice(), &bytes].concat())
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let (next, bytes) = extended(header, protocol, bytes)?;
            let mut ip = Ipv6Header {
                traffic_class: header.tos,
                flow_label: Ipv6FlowLabel::try_new(header.label).ok()?,
                payload_length: 0,
                next_header: IpNumber(next),
                hop_limit: header.ttl,
                source: source.octets(),
                destination: destination.octets(),
            };
            ip.set_payload_length(bytes.len()).ok()?;
            Some([ip.to_bytes().as_slice(), &bytes].concat())
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
    }
}

fn ipv4(header: &Header) -> Option<Ipv4Header> {
    let mut options = vec![1; header.options.into()];
    if let Some(end) = options.last_mut() {
        *end = 0;
    }
    let mut ip = Ipv4Header {
        dscp: IpDscp::try_new(header.tos >> 2).ok()?,
        ecn: IpEcn::try_new(header.tos & 3).ok()?,
        identification: header.id,
        dont_fragment: header.df,
        time_to_live: header.ttl,
        options: Ipv4Options::try_from(options.as_slice()).ok()?,
        ..Ipv4Header::default()
    };
    if let Some(fragment) = header.fragment {
        ip.identification = u16::try_from(fragment.id).ok()?;
        ip.fragment_offset = IpFragOffset::try_new(fragment.offset / 8).ok()?;
        ip.more_fragments = fragment.more;
    }
    Some(ip)
}

/// Extension headers in front of `bytes`, and the number of the first.
fn extended(header: &Header, protocol: u8, bytes: Vec<u8>) -> Option<(u8, Vec<u8>)> {
    let mut next = protocol;
    let mut chain = bytes;
    if let Some(fragment) = header.fragment {
        let offset = IpFragOffset::try_new(fragment.offset / 8).ok()?;
        let here = Ipv6FragmentHeader::new(IpNumber(next), offset, fragment.more, fragment.id);
        chain.splice(0..0, here.to_bytes());
        next = IpNumber::IPV6_FRAGMENTATION_HEADER.0;
    }
    for extension in header.extensions.iter().rev() {
        chain.splice(0..0, extension.bytes(next));
        next = extension.number();
    }
    Some((next, chain))
}

/// The transport header and its protocol number.
fn transport(header: &Header, segment: &Segment, payload: &[u8]) -> Option<(u8, Vec<u8>)> {
    match segment {
        Segment::Tcp { ports, flags, mss } => {
            Some((IpNumber::TCP.0, tcp(header, *ports, *flags, *mss, payload)?))
        }
        Segment::Udp { ports, checksum } => {
            let length = u16::try_from(UdpHeader::LEN + payload.len()).ok()?;
            let mut udp = UdpHeader { source_port: ports.0, destination_port: ports.1, length, checksum: 0 };
            if *checksum == Sum::Present {
                udp.checksum = match (header.source, header.destination) {
                    (IpAddr::V4(from), IpAddr::V4(to)) => {
                        udp.calc_checksum_ipv4_raw(from.octets(), to.octets(), payload).ok()?
                    }
                    (IpAddr::V6(from), IpAddr::V6(to)) => {
                        udp.calc_checksum_ipv6_raw(from.octets(), to.octets(), payload).ok()?
                    }
                    _ => return None,
                };
            }
            Some((IpNumber::UDP.0, udp.to_bytes().to_vec()))
        }
        Segment::Sctp { ports } => Some((IpNumber::SCTP.0, sctp(*ports, payload))),
        Segment::Icmp { kind, code, rest } => icmp(header, *kind, *code, *rest, payload),
        Segment::Plain { protocol } => Some((*protocol, Vec::new())),
    }
}

fn tcp(header: &Header, ports: (u16, u16), flags: u8, mss: Option<u16>, payload: &[u8]) -> Option<Vec<u8>> {
    let mut tcp = TcpHeader::new(ports.0, ports.1, SEQUENCE, WINDOW);
    [tcp.fin, tcp.syn, tcp.rst, tcp.psh, tcp.ack, tcp.urg, tcp.ece, tcp.cwr] =
        std::array::from_fn(|bit| flags & 1 << bit != 0);
    if tcp.ack {
        tcp.acknowledgment_number = ACKNOWLEDGED;
    }
    if let Some(mss) = mss {
        tcp.set_options(&[TcpOptionElement::MaximumSegmentSize(mss)]).ok()?;
    }
    tcp.checksum = match (header.source, header.destination) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            tcp.calc_checksum_ipv4_raw(from.octets(), to.octets(), payload).ok()?
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            tcp.calc_checksum_ipv6_raw(from.octets(), to.octets(), payload).ok()?
        }
        _ => return None,
    };
    Some(tcp.to_bytes().to_vec())
}

fn icmp(header: &Header, kind: u8, code: u8, rest: [u8; 4], payload: &[u8]) -> Option<(u8, Vec<u8>)> {
    match (header.source, header.destination) {
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let message = Icmpv6Type::Unknown { type_u8: kind, code_u8: code, bytes5to8: rest };
            let message = Icmpv6Header::with_checksum(message, from.octets(), to.octets(), payload).ok()?;
            Some((IpNumber::IPV6_ICMP.0, message.to_bytes().to_vec()))
        }
        _ => {
            let message = Icmpv4Type::Unknown { type_u8: kind, code_u8: code, bytes5to8: rest };
            let message = Icmpv4Header::with_checksum(message, payload);
            Some((IpNumber::ICMP.0, message.to_bytes().to_vec()))
        }
    }
}

/// Common header, with the checksum over all of it (RFC 9260 appendix A).
fn sctp(ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let mut bytes = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
    bytes.extend(SEQUENCE.to_be_bytes());
    bytes.extend([0; 4]);
    let sum = crc32c(bytes.iter().chain(payload)).to_le_bytes();
    bytes.splice(SCTP_BYTES - 4.., sum);
    bytes
}

/// CRC-32C, bit by bit: packets from descriptions are few.
fn crc32c<'a>(bytes: impl Iterator<Item = &'a u8>) -> u32 {
    const REFLECTED_POLYNOMIAL: u32 = 0x82f6_3b78;
    !bytes.fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            crc >> 1 ^ if crc & 1 == 0 { 0 } else { REFLECTED_POLYNOMIAL }
        })
    })
}

#[cfg(test)]
mod tests {
    /// RFC 3720 appendix B.4.
    #[test]
    fn crc32c_of_zeroes_is_that_of_the_rfc() {
        assert_eq!(super::crc32c([0; 32].iter()).to_le_bytes(), [0xaa, 0x36, 0x91, 0x8a]);
    }
}
