//! What ethtool's structures mean: channels, rings, coalescing, features, receive-side scaling, statistics.
//!
//! The structures (include/uapi/linux/ethtool.h) are sequences of 32-bit words in the machine's byte order, the first of
//! them the command. Decides nothing.

use std::collections::BTreeMap;
use std::io;

use serde::{Deserialize, Serialize};

use super::ioctl::Control;

const GDRVINFO: u32 = 0x03;
const GCOALESCE: u32 = 0x0e;
const SCOALESCE: u32 = 0x0f;
const GRINGPARAM: u32 = 0x10;
const SRINGPARAM: u32 = 0x11;
const GSTRINGS: u32 = 0x1b;
const GSTATS: u32 = 0x1d;
const GRXFH: u32 = 0x29;
const SRXFH: u32 = 0x2a;
const GSSET_INFO: u32 = 0x37;
const GFEATURES: u32 = 0x3a;
const SFEATURES: u32 = 0x3b;
const GCHANNELS: u32 = 0x3c;
const SCHANNELS: u32 = 0x3d;
const GRSSH: u32 = 0x46;
const SRSSH: u32 = 0x47;

/// Sets of strings.
const STATS: u32 = 1;
const FEATURES: u32 = 4;
const STRING_WORDS: usize = 8;
/// No table, no set of strings is longer; a larger number is a driver's mistake.
const MOST: u32 = 1 << 16;
/// The kernel writes as many strings or statistics as there are at that moment, not as many as were asked for: queues
/// that somebody adds in between must find room.
const SPARE: usize = 4096;
/// `struct ethtool_rxnfc`, rounded up.
const RXNFC_WORDS: usize = 64;
/// Words of `struct ethtool_rxfh` before its table.
const RXFH_WORDS: usize = 6;
const NO_CHANGE: u32 = u32::MAX;

/// Numbers of queues: what there can be, and what there are.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Channels {
    /// Most of each.
    pub max: Queues,
    /// How many of each are in use.
    pub now: Queues,
}

/// A number of queues of each kind.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Queues {
    /// That only receive.
    pub rx: u32,
    /// That only send.
    pub tx: u32,
    /// That do both.
    pub combined: u32,
}

/// Sizes of the descriptor rings: what there can be, and what there are.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Rings {
    /// Most of each.
    pub max: RingSizes,
    /// The sizes in use.
    pub now: RingSizes,
}

/// A size in descriptors for each direction.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct RingSizes {
    /// Receiving.
    pub rx: u32,
    /// Sending.
    pub tx: u32,
}

/// How long interrupts wait for more packets.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Coalesce {
    /// The driver chooses for receiving.
    pub adaptive_rx: bool,
    /// The driver chooses for sending.
    pub adaptive_tx: bool,
    /// Wait when receiving, in microseconds.
    pub rx_usecs: u32,
    /// Wait when sending, in microseconds.
    pub tx_usecs: u32,
}

/// A feature of an interface, such as `rx-lro`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct Feature {
    /// In force.
    pub on: bool,
    /// Cannot be changed.
    pub fixed: bool,
}

/// How received packets are spread over queues.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Rss {
    /// The indirection table: the queue for each value of the hash's last bits.
    pub table: Vec<u32>,
    /// Length of the hash key in bytes.
    pub key_bytes: u32,
    /// Transformation of the hash's input; 1: symmetric by exclusive or, 2: by or and exclusive or; 0: none, or unknown.
    pub input_xfrm: u8,
}

/// Flow types of `GRXFH`.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub enum FlowType {
    /// UDP over IPv4.
    UdpV4 = 2,
    /// UDP over IPv6.
    UdpV6 = 6,
}

/// Header fields that a hash covers, as in `RXH_*`.
pub mod fields {
    /// Both addresses.
    pub const ADDRESSES: u64 = 1 << 4 | 1 << 5;
    /// Both ports.
    pub const PORTS: u64 = 1 << 6 | 1 << 7;
}

fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn text(words: &[u32]) -> String {
    let bytes = bytes(words);
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// A 64-bit number of two words as they lie in memory.
fn wide(words: &[u32]) -> u64 {
    let mut raw = [0; 8];
    raw.iter_mut().zip(bytes(words)).for_each(|(to, from)| *to = from);
    u64::from_ne_bytes(raw)
}

/// Names of the driver and of the bus position.
pub(super) fn driver(control: &Control) -> io::Result<(String, String)> {
    let mut words = [0; 49];
    words[0] = GDRVINFO;
    control.exchange(&mut words)?;
    Ok((text(&words[1..9]), text(&words[25..33])))
}

pub(super) fn channels(control: &Control) -> io::Result<Channels> {
    let mut words = [0; 9];
    words[0] = GCHANNELS;
    control.exchange(&mut words)?;
    let [_, rx, tx, _, combined, rx_now, tx_now, _, combined_now] = words;
    Ok(Channels {
        max: Queues { rx, tx, combined },
        now: Queues { rx: rx_now, tx: tx_now, combined: combined_now },
    })
}

pub(super) fn set_channels(control: &Control, queues: Queues) -> io::Result<()> {
    let mut words = [0; 9];
    words[0] = GCHANNELS;
    control.exchange(&mut words)?;
    words[0] = SCHANNELS;
    (words[5], words[6], words[8]) = (queues.rx, queues.tx, queues.combined);
    control.exchange(&mut words)
}

pub(super) fn rings(control: &Control) -> io::Result<Rings> {
    let mut words = [0; 9];
    words[0] = GRINGPARAM;
    control.exchange(&mut words)?;
    let [_, rx, _, _, tx, rx_now, _, _, tx_now] = words;
    Ok(Rings { max: RingSizes { rx, tx }, now: RingSizes { rx: rx_now, tx: tx_now } })
}

pub(super) fn set_rings(control: &Control, sizes: RingSizes) -> io::Result<()> {
    let mut words = [0; 9];
    words[0] = GRINGPARAM;
    control.exchange(&mut words)?;
    words[0] = SRINGPARAM;
    (words[5], words[8]) = (sizes.rx, sizes.tx);
    control.exchange(&mut words)
}

pub(super) fn coalesce(control: &Control) -> io::Result<Coalesce> {
    let mut words = [0; 23];
    words[0] = GCOALESCE;
    control.exchange(&mut words)?;
    Ok(Coalesce {
        rx_usecs: words[1],
        tx_usecs: words[5],
        adaptive_rx: words[10] != 0,
        adaptive_tx: words[11] != 0,
    })
}

/// Sets what is in `wanted` and leaves the rest of the structure as it is.
pub(super) fn set_coalesce(control: &Control, wanted: Coalesce) -> io::Result<()> {
    let mut words = [0; 23];
    words[0] = GCOALESCE;
    control.exchange(&mut words)?;
    words[0] = SCOALESCE;
    (words[1], words[5]) = (wanted.rx_usecs, wanted.tx_usecs);
    (words[10], words[11]) = (wanted.adaptive_rx.into(), wanted.adaptive_tx.into());
    control.exchange(&mut words)
}

/// The strings of a set.
fn strings(control: &Control, set: u32) -> io::Result<Vec<String>> {
    let mut info = [GSSET_INFO, 0, 0, 0, 0];
    let mask = (1_u64 << set).to_ne_bytes();
    info[2] = u32::from_ne_bytes([mask[0], mask[1], mask[2], mask[3]]);
    info[3] = u32::from_ne_bytes([mask[4], mask[5], mask[6], mask[7]]);
    control.exchange(&mut info)?;
    let count = if wide(&info[2..4]) == 0 { 0 } else { info[4].min(MOST) };
    let mut words = vec![0; 3 + (2 * count as usize + SPARE) * STRING_WORDS];
    (words[0], words[1], words[2]) = (GSTRINGS, set, count);
    control.exchange(&mut words)?;
    Ok(words[3..].chunks(STRING_WORDS).take(count as usize).map(text).collect())
}

pub(super) fn features(control: &Control) -> io::Result<BTreeMap<String, Feature>> {
    let names = strings(control, FEATURES)?;
    let blocks = names.len().div_ceil(32);
    let mut words = vec![0; 2 + blocks * 4];
    (words[0], words[1]) = (GFEATURES, u32::try_from(blocks).unwrap_or(0));
    control.exchange(&mut words)?;
    let feature = |(index, name): (usize, String)| {
        let block = &words[2 + index / 32 * 4..][..4];
        let bit = |word: u32| word >> (index % 32) & 1 != 0;
        (name, Feature { on: bit(block[2]), fixed: bit(block[3]) || !bit(block[0]) })
    };
    Ok(names.into_iter().enumerate().map(feature).filter(|(name, _)| !name.is_empty()).collect())
}

pub(super) fn set_feature(control: &Control, name: &str, on: bool) -> io::Result<()> {
    let names = strings(control, FEATURES)?;
    let index = names.iter().position(|known| known == name).ok_or(io::ErrorKind::Unsupported)?;
    let blocks = names.len().div_ceil(32);
    let mut words = vec![0; 2 + blocks * 2];
    (words[0], words[1]) = (SFEATURES, u32::try_from(blocks).unwrap_or(0));
    let bit = 1 << (index % 32);
    words[2 + index / 32 * 2] = bit;
    words[3 + index / 32 * 2] = if on { bit } else { 0 };
    control.exchange(&mut words)
}

/// The driver's own counters, by its own names.
pub(super) fn statistics(control: &Control) -> io::Result<Vec<(String, u64)>> {
    let names = strings(control, STATS)?;
    let mut words = vec![0; 2 + (2 * names.len() + SPARE) * 2];
    (words[0], words[1]) = (GSTATS, u32::try_from(names.len()).unwrap_or(0));
    control.exchange(&mut words)?;
    Ok(names.into_iter().zip(words[2..].chunks(2).map(wide)).collect())
}

pub(super) fn rss(control: &Control) -> io::Result<Rss> {
    let mut words = [0; RXFH_WORDS];
    words[0] = GRSSH;
    control.exchange(&mut words)?;
    let (entries, key_bytes) = (words[2].min(MOST), words[3].min(MOST));
    if entries == 0 {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let mut words = vec![0; RXFH_WORDS + entries as usize + (key_bytes as usize).div_ceil(4)];
    (words[0], words[2], words[3]) = (GRSSH, entries, key_bytes);
    control.exchange(&mut words)?;
    let table = words[RXFH_WORDS..][..entries as usize].to_vec();
    Ok(Rss { table, key_bytes, input_xfrm: words[4].to_ne_bytes()[1] })
}

/// Sets the table, or has the driver make its own again (`None`). The key and the input's transformation stay.
pub(super) fn set_rss_table(control: &Control, table: Option<&[u32]>) -> io::Result<()> {
    let kept = rss(control)?.input_xfrm;
    let table = table.unwrap_or(&[]);
    let mut words = vec![0; RXFH_WORDS + table.len()];
    (words[0], words[2]) = (SRSSH, u32::try_from(table.len()).unwrap_or(0));
    // Kernels before 6.8 want a zero here, which is what they read.
    words[4] = u32::from_ne_bytes([0, kept, 0, 0]);
    words[RXFH_WORDS..].copy_from_slice(table);
    control.exchange(&mut words)
}

/// Sets the transformation of the hash's input; table and key stay.
pub(super) fn set_input_xfrm(control: &Control, input_xfrm: u8) -> io::Result<()> {
    let mut words = [0; RXFH_WORDS];
    (words[0], words[2]) = (SRSSH, NO_CHANGE);
    words[4] = u32::from_ne_bytes([0, input_xfrm, 0, 0]);
    control.exchange(&mut words)
}

/// The fields that the hash of this type of packets covers.
pub(super) fn hash_fields(control: &Control, flows: FlowType) -> io::Result<u64> {
    let mut words = [0; RXNFC_WORDS];
    (words[0], words[1]) = (GRXFH, flows as u32);
    control.exchange(&mut words)?;
    Ok(wide(&words[2..4]))
}

pub(super) fn set_hash_fields(control: &Control, flows: FlowType, covered: u64) -> io::Result<()> {
    let mut words = [0; RXNFC_WORDS];
    (words[0], words[1]) = (SRXFH, flows as u32);
    let raw = covered.to_ne_bytes();
    words[2] = u32::from_ne_bytes([raw[0], raw[1], raw[2], raw[3]]);
    words[3] = u32::from_ne_bytes([raw[4], raw[5], raw[6], raw[7]]);
    control.exchange(&mut words)
}
