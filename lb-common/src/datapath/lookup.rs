//! Which service a packet is for: exact address and port first, then a range of ports, then the same for the longest
//! prefix that has the address.

use super::Tables;
use super::parse::Packet;
use crate::abi::{Control, RangeKey, ServiceEntry, VipEntry, VipKey, prefix_address, words};

/// The service of a packet. Ranges and prefixes are looked up only where some service has them, so that other traffic
/// pays for one miss.
#[inline(always)]
pub(super) fn service<'t, T: Tables>(
    tables: &'t T,
    control: &Control,
    packet: &Packet,
) -> Option<&'t ServiceEntry> {
    if is_multicast(&packet.ip.destination) {
        return None;
    }
    let exact = tables.service(&packet.service_key(packet.ip.destination));
    if exact.is_some() || control.flags & (Control::RANGES | Control::PREFIXES) == 0 {
        return exact;
    }
    wider(tables, control, packet)
}

#[inline(never)]
fn wider<'t, T: Tables>(tables: &'t T, control: &Control, packet: &Packet) -> Option<&'t ServiceEntry> {
    let range = |address| {
        let wanted = control.flags & Control::RANGES != 0;
        wanted
            .then(|| tables.range(&RangeKey::new(address, packet.ports.protocol, packet.ports.destination)))
            .flatten()
    };
    if let Some(service) = range(packet.ip.destination) {
        return Some(service);
    }
    if control.flags & Control::PREFIXES == 0 {
        return None;
    }
    let address = prefix_address(tables.prefix(&packet.ip.destination)?.number);
    tables.service(&packet.service_key(address)).or_else(|| range(address))
}

/// What holds for an address, whatever the port: bits of [`VipEntry::flags`]; 0 if it is no service's.
#[inline(always)]
pub(super) fn vip_flags<T: Tables>(tables: &T, control: &Control, address: &[u8; 16]) -> u32 {
    if is_multicast(address) {
        return 0;
    }
    if let Some(vip) = tables.vip(&VipKey { address: *address }) {
        return vip.flags;
    }
    if control.flags & Control::PREFIXES == 0 {
        return 0;
    }
    tables.prefix(address).map_or(0, |prefix| prefix.flags)
}

/// Multicast is never balanced. Nor may a packet name what stands for a prefix among the keys of services.
#[inline(always)]
fn is_multicast(address: &[u8; 16]) -> bool {
    let [high, _] = words(*address);
    high >> 56 == 0xff
}

/// Whether an address is a service's alone: what no service wants is dropped, not the host's.
#[inline(always)]
pub(super) fn drops_others<T: Tables>(tables: &T, control: &Control, address: &[u8; 16]) -> bool {
    control.flags & Control::VIP_POLICY != 0
        && vip_flags(tables, control, address) & VipEntry::DROP_OTHER_PORTS != 0
}
