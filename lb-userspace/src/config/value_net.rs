//! Scalars of the network: addresses, prefixes, ports, what tunnels are made of. Pure text in, value or fault out.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use super::value::{Fault, Reader, number, small, word};
use crate::model::{Echo, GueVariant, Prefix, Protocol, TunnelSource};

/// Ports of a service: one, a range, or 0–65535 for any.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Ports {
    pub(super) first: u16,
    pub(super) last: u16,
}

impl Ports {
    pub(super) const ANY: Ports = Ports { first: 0, last: u16::MAX };
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.first, self.last) {
            (0, _) => f.write_str("any"),
            (first, last) if first == last => write!(f, "{first}"),
            (first, last) => write!(f, "{first}-{last}"),
        }
    }
}

pub(super) const ADDRESS: Reader<IpAddr> = Reader {
    expected: "a unicast IP address",
    parse: |text| unicast(text.parse().map_err(|_| Fault::Type)?),
};
/// What services and vips have.
pub(super) const ADDRESSES: Reader<Prefix> = Reader {
    expected: "a unicast IP address, or a prefix of length 8 to 32 (IPv6: 32 to 128)",
    parse: |text| {
        let prefix = address_or_prefix(text, 8..=32, 32..=128)?;
        unicast(prefix.network)?;
        unicast(prefix.last())?;
        Ok(prefix)
    },
};
/// What clients are let in or kept out by.
pub(super) const CLIENTS: Reader<Prefix> = Reader {
    expected: "an IP address or a prefix such as 198.51.100.0/24",
    parse: |text| address_or_prefix(text, 0..=32, 0..=128),
};
pub(super) const TUNNEL_SOURCE: Reader<TunnelSource> = Reader {
    expected: "auto or a prefix of length 8 to 32 (IPv6: 96 to 128), such as 10.0.0.0/24",
    parse: tunnel_source,
};
pub(super) const PORTS: Reader<Ports> =
    Reader { expected: "a number from 1 to 65535, a range such as 8000-8099, or any", parse: ports };
pub(super) const PROTOCOL: Reader<Protocol> = Reader {
    expected: "tcp, udp or sctp",
    parse: |text| {
        use Protocol::{Sctp, Tcp, Udp};
        word(text, &[("tcp", Tcp), ("udp", Udp), ("sctp", Sctp)], &[])
    },
};
pub(super) const ECHO: Reader<Echo> = Reader {
    expected: "true (while a backend is up), always or false",
    parse: |text| {
        word(text, &[("true", Echo::WhileUp), ("always", Echo::Always), ("false", Echo::Never)], &[])
    },
};
pub(super) const VLAN: Reader<u16> = Reader {
    expected: "a number from 1 to 4094",
    parse: |text| u16::try_from(number(text, 1, 4094)?).map_err(|_| Fault::Value),
};
pub(super) const VARIANT: Reader<GueVariant> = Reader {
    expected: "0 (a GUE header) or 1 (IP straight in UDP)",
    parse: |text| Ok(if byte(text, 0, 1)? == 0 { GueVariant::Header } else { GueVariant::Direct }),
};
/// `None`: that of the inner packet.
pub(super) const DSCP: Reader<Option<u8>> = Reader {
    expected: "copy or a number from 0 to 63",
    parse: |text| if text == "copy" { Ok(None) } else { Ok(Some(byte(text, 0, 63)?)) },
};
pub(super) const TTL: Reader<u8> =
    Reader { expected: "a number from 1 to 255", parse: |text| byte(text, 1, 255) };
pub(super) const CLIENT_V4_LEN: Reader<u8> =
    Reader { expected: "a length from 8 to 32", parse: |text| byte(text, 8, 32) };
pub(super) const CLIENT_V6_LEN: Reader<u8> =
    Reader { expected: "a length from 32 to 128", parse: |text| byte(text, 32, 128) };
pub(super) const CONFIG_ID: Reader<u8> =
    Reader { expected: "a number from 0 to 6", parse: |text| byte(text, 0, 6) };
pub(super) const ID_LEN: Reader<u8> =
    Reader { expected: "a number of bytes from 1 to 8", parse: |text| byte(text, 1, 8) };
pub(super) const SERVER_ID: Reader<u64> =
    Reader { expected: "a number of at most 64 bits such as 7 or 0x1a2b", parse: server_id };

pub(super) fn byte(text: &str, min: u8, max: u8) -> Result<u8, Fault> {
    u8::try_from(number(text, min.into(), max.into())?).map_err(|_| Fault::Value)
}

/// An address that one machine can have.
fn unicast(address: IpAddr) -> Result<IpAddr, Fault> {
    let sort = match address {
        IpAddr::V4(v4) => unusable_v4(v4),
        IpAddr::V6(v6) => unusable_v6(v6),
    };
    sort.map_or(Ok(address), |sort| Err(Fault::Address(sort)))
}

fn unusable_v4(address: Ipv4Addr) -> Option<&'static str> {
    match address {
        a if a.is_unspecified() => Some("the unspecified address"),
        a if a.octets()[0] == 0 => Some("an address of \"this network\" (0.0.0.0/8)"),
        a if a.is_loopback() => Some("a loopback address"),
        a if a.is_multicast() => Some("a multicast address"),
        a if a.is_broadcast() => Some("the broadcast address"),
        _ => None,
    }
}

fn unusable_v6(address: Ipv6Addr) -> Option<&'static str> {
    match address {
        a if a.is_unspecified() => Some("the unspecified address"),
        a if a.is_loopback() => Some("a loopback address"),
        a if a.is_multicast() => Some("a multicast address"),
        a if a.is_unicast_link_local() => Some("a link-local address, which means nothing without its link"),
        a => mapped(a),
    }
}

/// Maps of both families have IPv4 addresses in this form: written as IPv6 it would be taken for IPv4.
fn mapped(address: Ipv6Addr) -> Option<&'static str> {
    address.to_ipv4_mapped().map(|_| "an IPv4-mapped address, which is written as IPv4")
}

/// A prefix with its length, between two bounds for each family.
fn prefix(text: &str, v4: RangeInclusive<u8>, v6: RangeInclusive<u8>) -> Result<Prefix, Fault> {
    let (network, length) = text.split_once('/').ok_or(Fault::Type)?;
    let network: IpAddr = network.parse().map_err(|_| Fault::Type)?;
    let lengths = if network.is_ipv4() { v4 } else { v6 };
    let length = byte(length, *lengths.start(), *lengths.end())?;
    let prefix = Prefix::containing(network, length);
    if prefix.network != network {
        return Err(Fault::HostBits(prefix.network, length));
    }
    match network {
        IpAddr::V6(v6) if length >= 96 => mapped(v6).map_or(Ok(prefix), |sort| Err(Fault::Address(sort))),
        _ => Ok(prefix),
    }
}

fn address_or_prefix(text: &str, v4: RangeInclusive<u8>, v6: RangeInclusive<u8>) -> Result<Prefix, Fault> {
    if text.contains('/') {
        return prefix(text, v4, v6);
    }
    let address: IpAddr = text.parse().map_err(|_| Fault::Type)?;
    match address {
        IpAddr::V6(v6) => mapped(v6).map_or(Ok(Prefix::host(address)), |sort| Err(Fault::Address(sort))),
        IpAddr::V4(_) => Ok(Prefix::host(address)),
    }
}

fn tunnel_source(text: &str) -> Result<TunnelSource, Fault> {
    if text == "auto" {
        return Ok(TunnelSource::Node);
    }
    let prefix = prefix(text, 8..=32, 96..=128)?;
    unicast(prefix.network)?;
    if unicast(prefix.last()).is_err() {
        return Err(Fault::Address("a prefix that ends in the broadcast address"));
    }
    Ok(TunnelSource::Prefix(prefix))
}

fn ports(text: &str) -> Result<Ports, Fault> {
    if text.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return word(text, &[("any", Ports::ANY)], &[]).map_err(|fault| match fault {
            Fault::Word(None) => Fault::Type,
            fault => fault,
        });
    }
    let (first, last) = match text.split_once('-') {
        Some((first, last)) if !first.is_empty() => (first, last),
        _ => (text, text),
    };
    let (first, last) = (small(first, 1)?, small(last, 1)?);
    if first <= last { Ok(Ports { first, last }) } else { Err(Fault::Reversed(last, first)) }
}

fn server_id(text: &str) -> Result<u64, Fault> {
    let Some(digits) = text.strip_prefix("0x") else {
        return number(text, 0, u64::MAX);
    };
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(Fault::Type);
    }
    u64::from_str_radix(digits, 16).map_err(|_| Fault::Value)
}
