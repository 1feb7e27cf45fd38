//! What interfaces have counted, as values. Must not know how they were asked for.

use std::collections::BTreeMap;

use netlink_packet_route::link::{LinkAttribute, LinkMessage};

/// Counters of one interface since it was made (`struct rtnl_link_stats64`, include/uapi/linux/if_link.h).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Statistics {
    /// Packets received.
    pub rx_packets: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Frames received that were broken.
    pub rx_errors: u64,
    /// Frames that could not be sent.
    pub tx_errors: u64,
    /// Packets received for which the host had no room or no use; some drivers count here what XDP drops.
    pub rx_dropped: u64,
    /// Packets that were not sent for want of room.
    pub tx_dropped: u64,
    /// Frames that the device dropped because nobody emptied its ring in time.
    pub rx_missed: u64,
    /// Frames with a wrong checksum of their own: cable, optics, or the other end.
    pub rx_crc_errors: u64,
}

impl Statistics {
    /// What was added since an earlier reading.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            rx_packets: self.rx_packets.saturating_sub(earlier.rx_packets),
            tx_packets: self.tx_packets.saturating_sub(earlier.tx_packets),
            rx_errors: self.rx_errors.saturating_sub(earlier.rx_errors),
            tx_errors: self.tx_errors.saturating_sub(earlier.tx_errors),
            rx_dropped: self.rx_dropped.saturating_sub(earlier.rx_dropped),
            tx_dropped: self.tx_dropped.saturating_sub(earlier.tx_dropped),
            rx_missed: self.rx_missed.saturating_sub(earlier.rx_missed),
            rx_crc_errors: self.rx_crc_errors.saturating_sub(earlier.rx_crc_errors),
        }
    }
}

/// By the kernel's index.
pub(super) fn by_index(links: &[LinkMessage]) -> BTreeMap<u32, Statistics> {
    let one = |message: &LinkMessage| {
        message.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Stats64(counted) => Some(Statistics {
                rx_packets: counted.rx_packets,
                tx_packets: counted.tx_packets,
                rx_errors: counted.rx_errors,
                tx_errors: counted.tx_errors,
                rx_dropped: counted.rx_dropped,
                tx_dropped: counted.tx_dropped,
                rx_missed: counted.rx_missed_errors,
                rx_crc_errors: counted.rx_crc_errors,
            }),
            _ => None,
        })
    };
    links.iter().filter_map(|message| Some((message.header.index, one(message)?))).collect()
}
