//! Packets gone wrong, the same ones in every run: mutations of well-formed frames from a seeded generator.

use crate::packets::ETHERNET;

/// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator that always yields the same for a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let word = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.word() % limit as u64) as usize
    }
}

/// Bytes that headers lie in, those of quoted packets too; changes behind them would mean little.
const HEADERS: usize = 150;

/// One mutation of a frame, or sometimes two; never shorter than an Ethernet header, which the kernel would refuse.
pub fn mutated(frame: &[u8], random: &mut Random) -> Vec<u8> {
    let mut frame = frame.to_vec();
    for _ in 0..=random.below(4) / 3 {
        mutate(&mut frame, random);
    }
    frame
}

/// Where the packet begins, behind VLAN tags.
fn start(frame: &[u8]) -> usize {
    let tag = |at: usize| matches!(frame.get(at..at + 2), Some([0x81, 0] | [0x88, 0xa8]));
    ETHERNET
        + if !tag(12) {
            0
        } else if tag(16) {
            8
        } else {
            4
        }
}

fn mutate(frame: &mut Vec<u8>, random: &mut Random) {
    let reach = frame.len().min(HEADERS);
    let ip = start(frame);
    let v6 = frame.get(ip).is_some_and(|first| first >> 4 == 6);
    let [length_at, protocol_at, transport] = if v6 { [4, 6, 40] } else { [2, 9, 20] }.map(|at| ip + at);
    match random.below(11) {
        0 => {
            for _ in 0..=random.below(3) {
                let bit = random.below(reach * 8);
                frame[bit / 8] ^= 1 << (bit % 8);
            }
        }
        1 => frame.truncate(ETHERNET + random.below(frame.len() - ETHERNET + 1)),
        2 => {
            let length = length(frame.len(), random);
            set(frame, length_at, &length.to_be_bytes());
        }
        3 => set(frame, ip, &[[0x45, 0x46, 0x4f, 0x44, 0x40, 0x65, 0x55, 0x05, 0x60][random.below(9)]]),
        // Flags and fragment offset of IPv4.
        4 if !v6 => {
            set(
                frame,
                ip + 6,
                &[[0x40, 0x20, 0, 0x80, 0x1f][random.below(5)], [0, 1, 0xff][random.below(3)]],
            );
        }
        5 => {
            let numbers = [0, 1, 4, 6, 17, 41, 43, 44, 47, 50, 51, 58, 59, 60, 94, 132, 255];
            set(frame, protocol_at, &[numbers[random.below(numbers.len())]]);
        }
        // TCP's flags, or what lies there in others.
        6 => set(frame, transport + 13, &[random.word() as u8]),
        // The beginning of a transport header, of ICMP or of an extension header: next one, length, offset.
        7 => {
            let values = [0, 1, 2, 3, 6, 8, 17, 43, 44, 58, 60, 128, 135, 255, random.word() as u8];
            set(frame, transport + random.below(12), &[values[random.below(values.len())]]);
        }
        // QUIC's header behind UDP's.
        8 => set(frame, transport + 8 + random.below(12), &[random.word() as u8]),
        // EtherType, or a tag.
        9 => {
            let kinds: [[u8; 2]; 6] = [[8, 0], [0x86, 0xdd], [8, 6], [0x81, 0], [0x88, 0xa8], [0, 5]];
            set(frame, [12, 14, 16, 18, 20][random.below(5)], &kinds[random.below(6)]);
        }
        _ => {
            let start = random.below(reach);
            let len = 1 + random.below(8);
            for byte in frame.iter_mut().skip(start).take(len) {
                *byte = random.word() as u8;
            }
        }
    }
}

/// Lengths at which comparisons go wrong.
fn length(frame: usize, random: &mut Random) -> u16 {
    let room = frame.saturating_sub(ETHERNET) as u16;
    match random.below(9) {
        0 => room.wrapping_add(1),
        7 => room.wrapping_sub(40),
        1 => room.wrapping_sub(1),
        2 => random.below(64) as u16,
        3 => 0xffff - random.below(40) as u16,
        4 => 0,
        5 => [19, 20, 27, 28, 39, 40][random.below(6)],
        6 => 1480 + random.below(22) as u16,
        _ => random.word() as u16,
    }
}

fn set(frame: &mut [u8], offset: usize, bytes: &[u8]) {
    for (byte, value) in frame.iter_mut().skip(offset).zip(bytes) {
        *byte = *value;
    }
}
