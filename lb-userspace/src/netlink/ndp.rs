//! Whole neighbour discovery frames, out of the wire formats that the data plane uses too. Must not know sockets.

use std::net::Ipv6Addr;

use lb_common::wire::checksum::{fold, sum};
use lb_common::wire::ndp::{self, Advertisement, Solicitation};
use lb_common::wire::{ethernet, ipv6};

use super::prober::Told;
use super::{Mac, is_station};

/// Length of a frame of ours, in bytes.
pub const FRAME_LEN: usize = MESSAGE + ndp::LEN + ndp::OPTION_LEN;

/// Where the message begins in a frame.
const MESSAGE: usize = ethernet::LEN + ipv6::LEN;

/// Asks `target` for its Ethernet address: the station it is believed to be, or all that listen for it.
pub fn solicitation(mac: Mac, source: Ipv6Addr, target: Ipv6Addr, station: Option<Mac>) -> [u8; FRAME_LEN] {
    let target = target.octets();
    let group = ndp::solicited_node(target);
    let (station, destination) = match station {
        Some(station) => (station, target),
        None => (ndp::multicast_mac(group), group),
    };
    let solicitation = Solicitation { target, source_mac: Some(mac) };
    let (source, bytes) = (source.octets(), solicitation.emit(source.octets(), destination));
    frame(
        ethernet::Header { destination: station, source: mac, ether_type: ethernet::IPV6 },
        source,
        destination,
        bytes,
    )
}

/// Says unasked to all that `address` is at `mac` (RFC 4861 section 7.2.6).
pub fn announcement(mac: Mac, address: Ipv6Addr) -> [u8; FRAME_LEN] {
    let address = address.octets();
    let advertisement = Advertisement {
        router: false,
        solicited: false,
        replaces: true,
        target: address,
        target_mac: Some(mac),
    };
    let bytes = advertisement.emit(address, ndp::ALL_NODES);
    let destination = ndp::multicast_mac(ndp::ALL_NODES);
    let header = ethernet::Header { destination, source: mac, ether_type: ethernet::IPV6 };
    frame(header, address, ndp::ALL_NODES, bytes)
}

/// What a frame, as it came from the wire and untagged, says about whom; `None` if it says nothing that may be believed
/// (RFC 4861 section 7.1).
pub fn parse(frame: &[u8]) -> Option<(Ipv6Addr, Told)> {
    let (ethernet_header, rest) = frame.split_first_chunk()?;
    let (header, rest) = rest.split_first_chunk()?;
    let header = ipv6::Header::parse(*header);
    let message = rest.get(..header.fixed.payload_len.into())?;
    let is_ip =
        ethernet::Header::parse(*ethernet_header).ether_type == ethernet::IPV6 && header.fixed.version == 6;
    let is_ours = header.fixed.next_header == ipv6::ICMP && header.fixed.hop_limit == ndp::HOP_LIMIT;
    if !is_ip || !is_ours || !is_whole(&header, message) {
        return None;
    }
    let (fixed, options) = message.split_first_chunk()?;
    if let Some(solicitation) = Solicitation::parse(*fixed, option(options, ndp::SOURCE_OPTION)?) {
        let asker = Ipv6Addr::from(header.source);
        let mac = solicitation.source_mac.filter(|mac| is_station(*mac))?;
        return (!asker.is_unspecified() && !asker.is_multicast()).then_some((asker, Told::Here(mac)));
    }
    let advertisement = Advertisement::parse(*fixed, option(options, ndp::TARGET_OPTION)?)?;
    if advertisement.solicited && Ipv6Addr::from(header.destination).is_multicast() {
        return None;
    }
    let told = match advertisement.target_mac {
        Some(mac) if !is_station(mac) => return None,
        Some(mac) if advertisement.replaces => Told::Here(mac),
        Some(mac) => Told::Perhaps(mac),
        // One who is asked by unicast may leave out what the asker knows.
        None if advertisement.solicited => Told::AsAsked,
        None => return None,
    };
    Some((advertisement.target.into(), told))
}

fn frame(
    ethernet_header: ethernet::Header,
    source: [u8; 16],
    destination: [u8; 16],
    (fixed, option): ndp::Bytes,
) -> [u8; FRAME_LEN] {
    let header = ipv6::Header {
        fixed: ipv6::Fixed {
            version: 6,
            traffic_class: 0,
            flow_label: 0,
            payload_len: (ndp::LEN + ndp::OPTION_LEN) as u16,
            next_header: ipv6::ICMP,
            hop_limit: ndp::HOP_LIMIT,
        },
        source,
        destination,
    };
    let mut bytes = ethernet_header
        .emit()
        .into_iter()
        .chain(header.emit())
        .chain(fixed)
        .chain(option.into_iter().flatten());
    std::array::from_fn(|_| bytes.next().unwrap_or_default())
}

/// Whether the checksum is right.
fn is_whole(header: &ipv6::Header, message: &[u8]) -> bool {
    let pseudo_header = sum(&header.source) + sum(&header.destination);
    let rest = u32::from(header.fixed.payload_len) + u32::from(header.fixed.next_header);
    fold(pseudo_header + rest + sum(message)) == 0xffff
}

/// The first option of this type, if there is one; `None` if the options are malformed (section 4.6).
fn option(mut options: &[u8], wanted: u8) -> Option<Option<[u8; ndp::OPTION_LEN]>> {
    let mut found = None;
    while !options.is_empty() {
        let (first, _) = options.split_first_chunk::<{ ndp::OPTION_LEN }>()?;
        let length = usize::from(first[1]) * ndp::OPTION_LEN;
        if length == 0 || length > options.len() {
            return None;
        }
        found = found.or(Some(*first).filter(|_| first[0] == wanted));
        options = &options[length..];
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = [2, 0, 0, 0, 0, 2];
    const STATION: Mac = [2, 0, 0, 0, 0, 0x21];
    const OWN: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    const OTHER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0xab12, 0x3456);

    /// A frame with this message, its checksum and lengths set right.
    fn sent(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> Vec<u8> {
        let mut bytes = solicitation(STATION, source, OTHER, Some(MAC))[..MESSAGE].to_vec();
        bytes[38..54].copy_from_slice(&destination.octets());
        bytes[18..20].copy_from_slice(&(message.len() as u16).to_be_bytes());
        let unsummed = [&message[..2], &[0, 0], &message[4..]].concat();
        let length = message.len() as u32 + u32::from(ipv6::ICMP);
        let check = !fold(sum(&source.octets()) + sum(&destination.octets()) + length + sum(&unsummed));
        bytes.extend([&unsummed[..2], &check.to_be_bytes(), &unsummed[4..]].concat());
        bytes
    }

    fn advertisement(flags: u8, options: &[u8]) -> Vec<u8> {
        [&[136, 0, 0, 0, flags, 0, 0, 0], &OTHER.octets()[..], options].concat()
    }

    #[test]
    fn bytes_of_a_question_to_all() {
        let frame = solicitation(MAC, OWN, OTHER, None);
        assert_eq!(frame[..6], [0x33, 0x33, 0xff, 0x12, 0x34, 0x56]);
        assert_eq!(frame[6..14], [2, 0, 0, 0, 0, 2, 0x86, 0xdd]);
        assert_eq!(frame[14..22], [0x60, 0, 0, 0, 0, 32, 58, 255]);
        assert_eq!(frame[22..38], OWN.octets());
        assert_eq!(frame[38..54], ndp::solicited_node(OTHER.octets()));
        assert_eq!((frame[54], &frame[78..]), (135, &[1, 1, 2, 0, 0, 0, 0, 2][..]));
        assert_eq!(parse(&frame), Some((OWN, Told::Here(MAC))), "who asks tells where it is");
    }

    #[test]
    fn a_question_to_one_station_goes_to_its_addresses() {
        let frame = solicitation(MAC, OWN, OTHER, Some(STATION));
        assert_eq!((&frame[..6], &frame[38..54]), (&STATION[..], &OTHER.octets()[..]));
        assert_eq!(parse(&frame), Some((OWN, Told::Here(MAC))));
    }

    #[test]
    fn an_announcement_goes_to_all_nodes() {
        let frame = announcement(MAC, OTHER);
        assert_eq!(frame[..6], [0x33, 0x33, 0, 0, 0, 1]);
        assert_eq!((&frame[22..38], &frame[38..54]), (&OTHER.octets()[..], &ndp::ALL_NODES[..]));
        assert_eq!(frame[58], 0x20, "override, unasked");
        assert_eq!(parse(&frame), Some((OTHER, Told::Here(MAC))));
    }

    #[test]
    fn what_answers_say() {
        let option = [2, 1, 2, 0, 0, 0, 0, 0x21];
        let nonce = [14, 1, 1, 2, 3, 4, 5, 6];
        let told = |flags, options: &[u8]| Some(parse(&sent(OTHER, OWN, &advertisement(flags, options)))?.1);
        assert_eq!(told(0x60, &option), Some(Told::Here(STATION)));
        assert_eq!(told(0x60, &[nonce, option].concat()), Some(Told::Here(STATION)));
        assert_eq!(told(0x40, &option), Some(Told::Perhaps(STATION)), "a proxy");
        assert_eq!(told(0x40, &[]), Some(Told::AsAsked), "as Linux answers unicast questions");
        assert_eq!(told(0x20, &[]), None, "unasked, and nothing told");
        assert_eq!(told(0x60, &[2, 1, 0x33, 0x33, 0, 0, 0, 1]), None, "no station");
        for malformed in [&[2, 0, 0, 0, 0, 0, 0, 0][..], &[2, 2, 2, 0, 0, 0, 0, 0x21], &[2, 1, 2]] {
            assert_eq!(told(0x60, malformed), None, "{malformed:?}");
        }
        let to_all = sent(OTHER, ndp::ALL_NODES.into(), &advertisement(0x60, &option));
        assert_eq!(parse(&to_all), None, "an answer has one receiver");
    }

    #[test]
    fn what_may_not_be_believed() {
        let frame = solicitation(MAC, OWN, OTHER, None).to_vec();
        for len in 0..FRAME_LEN {
            assert_eq!(parse(&frame[..len]), None, "{len} bytes");
        }
        let damaged = [(12, 8), (14, 0x40), (20, 17), (21, 254), (54, 133), (55, 1), (80, 3)];
        for (index, value) in damaged {
            let mut bytes = frame.clone();
            bytes[index] = value;
            assert_eq!(parse(&bytes), None, "byte {index}");
        }
        let padded = [&frame[..], &[0; 20]].concat();
        assert_eq!(parse(&padded), Some((OWN, Told::Here(MAC))), "what is behind the packet does not count");
        let search = [&[135, 0, 0, 0, 0, 0, 0, 0], &OTHER.octets()[..]].concat();
        assert_eq!(
            parse(&sent(Ipv6Addr::UNSPECIFIED, OTHER, &search)),
            None,
            "one who looks for a free address"
        );
    }
}
