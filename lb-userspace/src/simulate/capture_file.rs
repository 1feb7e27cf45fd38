//! Files of packets: pcap and pcapng, told apart by their first bytes when read and by the file's name when written.
//! Knows frames and times, not what they mean.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use pcap_file::pcap::{PcapHeader, PcapReader, PcapWriter, RawPcapPacket};
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::{Block, PcapNgBlock, PcapNgReader, PcapNgWriter};
use pcap_file::{DataLink, PcapError, TsResolution};

/// A pcapng file's first bytes, in either order.
const SECTION_HEADER: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
/// A pcap file's: seconds and microseconds, or nanoseconds; in either order.
const MAGICS: [u32; 2] = [0xa1b2_c3d4, 0xa1b2_3c4d];
/// `if_tsresol` of nanoseconds, and what it is where nothing is said (draft-ietf-opsawg-pcapng section 4.2).
const NANOSECONDS: u8 = 9;
const MICROSECONDS: u8 = 6;
/// Longest frame that is read or written, in bytes.
const SNAP_LEN: u32 = 256 * 1024;

/// Why a file of packets cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// It cannot be opened, read or written.
    #[error("{action} {}", path.display())]
    File {
        /// What was attempted.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Its first bytes are no known format's.
    #[error("{} is neither pcap nor pcapng", path.display())]
    NoCapture {
        /// The file.
        path: PathBuf,
    },
    /// It breaks its format.
    #[error("{}, packet {packet}: {}", path.display(), fault(source))]
    Broken {
        /// The file.
        path: PathBuf,
        /// Number of the packet that could not be read, from 0.
        packet: usize,
        /// What is wrong.
        source: PcapError,
    },
    /// Frames of another kind of link.
    #[error("{} holds {kind:?} packets, not Ethernet frames; record with the link type EN10MB", path.display())]
    OtherLink {
        /// The file.
        path: PathBuf,
        /// What it holds.
        kind: DataLink,
    },
    /// The name says no format.
    #[error("{}: the name must end in .pcap or .pcapng, which says how to write it", path.display())]
    NoFormat {
        /// The file.
        path: PathBuf,
    },
}

fn fault(error: &PcapError) -> String {
    match error {
        PcapError::IncompleteBuffer => "the file ends within it".to_owned(),
        PcapError::IoError(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the file ends within it".to_owned()
        }
        PcapError::IoError(error) => error.to_string(),
        other => other.to_string(),
    }
}

/// A frame of a file.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Captured {
    /// Since 1970.
    pub time: Duration,
    /// Its bytes, as far as they were recorded.
    pub frame: Vec<u8>,
    /// Its length on the wire, in bytes.
    pub original_len: u32,
}

impl Captured {
    /// Whether the file has only its beginning.
    pub fn is_cut(&self) -> bool {
        self.original_len as usize > self.frame.len()
    }
}

/// Reads a file, all of it.
pub fn read(path: &Path) -> Result<Vec<Captured>, CaptureError> {
    let file = |action| move |source| CaptureError::File { action, path: path.to_owned(), source };
    let mut input = BufReader::new(File::open(path).map_err(file("opening"))?);
    let mut magic = [0; 4];
    match input.read_exact(&mut magic) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            return Err(CaptureError::NoCapture { path: path.to_owned() });
        }
        Err(error) => return Err(file("reading")(error)),
    }
    let input = magic.as_slice().chain(input);
    if magic == SECTION_HEADER {
        return read_pcapng(path, input);
    }
    if MAGICS.iter().any(|known| [known.to_be_bytes(), known.to_le_bytes()].contains(&magic)) {
        return read_pcap(path, input);
    }
    Err(CaptureError::NoCapture { path: path.to_owned() })
}

fn ethernet(path: &Path, kind: DataLink) -> Result<(), CaptureError> {
    if kind == DataLink::ETHERNET {
        return Ok(());
    }
    Err(CaptureError::OtherLink { path: path.to_owned(), kind })
}

fn read_pcap(path: &Path, input: impl Read) -> Result<Vec<Captured>, CaptureError> {
    let broken = |packet| move |source| CaptureError::Broken { path: path.to_owned(), packet, source };
    let mut reader = PcapReader::new(input).map_err(broken(0))?;
    let header = reader.header();
    ethernet(path, header.datalink)?;
    let nanoseconds = match header.ts_resolution {
        TsResolution::MicroSecond => 1000,
        TsResolution::NanoSecond => 1,
    };
    let mut packets = Vec::new();
    while let Some(packet) = reader.next_raw_packet() {
        let packet = packet.map_err(broken(packets.len()))?;
        let fraction = Duration::from_nanos(u64::from(packet.ts_frac) * nanoseconds);
        packets.push(Captured {
            time: Duration::from_secs(packet.ts_sec.into()) + fraction,
            original_len: packet.orig_len,
            frame: packet.data.into_owned(),
        });
    }
    Ok(packets)
}

fn read_pcapng(path: &Path, input: impl Read) -> Result<Vec<Captured>, CaptureError> {
    let broken = |packet| move |source| CaptureError::Broken { path: path.to_owned(), packet, source };
    let mut reader = PcapNgReader::new(input).map_err(broken(0))?;
    let mut packets = Vec::new();
    loop {
        let (interface, units, original_len, data) = match reader.next_block() {
            None => return Ok(packets),
            Some(Err(error)) => return Err(broken(packets.len())(error)),
            Some(Ok(Block::EnhancedPacket(packet))) => (
                packet.interface_id,
                packet.timestamp.as_nanos(),
                packet.original_len,
                packet.data.into_owned(),
            ),
            Some(Ok(Block::SimplePacket(packet))) => {
                let mut data = packet.data.into_owned();
                data.truncate(packet.original_len as usize);
                (0, 0, packet.original_len, data)
            }
            Some(Ok(Block::Packet(packet))) => (
                packet.interface_id.into(),
                packet.timestamp.into(),
                packet.original_len,
                packet.data.into_owned(),
            ),
            Some(Ok(_)) => continue,
        };
        let unknown = PcapError::InvalidInterfaceId(interface);
        let known = reader.interfaces().get(interface as usize);
        let known = known.ok_or(unknown).map_err(broken(packets.len()))?;
        ethernet(path, known.linktype)?;
        packets.push(Captured { time: time(units, known), original_len, frame: data });
    }
}

/// A time in an interface's own units; the library takes all for nanoseconds.
fn time(units: u128, interface: &InterfaceDescriptionBlock<'_>) -> Duration {
    const BASE_TWO: u8 = 0x80;
    let resolution = interface.options.iter().find_map(|option| match option {
        InterfaceDescriptionOption::IfTsResol(resolution) => Some(*resolution),
        _ => None,
    });
    let resolution = resolution.unwrap_or(MICROSECONDS);
    let per_second = if resolution & BASE_TWO == 0 {
        10u128.checked_pow(resolution.into())
    } else {
        1u128.checked_shl((resolution & !BASE_TWO).into())
    };
    let per_second = per_second.unwrap_or(u128::MAX).max(1);
    let nanoseconds = units.saturating_mul(1_000_000_000) / per_second;
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}

/// A file that packets are written to.
pub struct Writer {
    path: PathBuf,
    written: usize,
    sink: Sink,
}

enum Sink {
    Pcap(PcapWriter<BufWriter<File>>),
    PcapNg(Box<PcapNgWriter<BufWriter<File>>>),
}

impl Writer {
    /// Creates the file; what is written has nanoseconds.
    pub fn create(path: &Path) -> Result<Self, CaptureError> {
        let extension =
            path.extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase);
        let with_comments = match extension.as_deref() {
            Some("pcapng") => true,
            Some("pcap" | "cap") => false,
            _ => return Err(CaptureError::NoFormat { path: path.to_owned() }),
        };
        let file = File::create(path).map_err(|source| CaptureError::File {
            action: "creating",
            path: path.to_owned(),
            source,
        })?;
        let broken = |source| CaptureError::Broken { path: path.to_owned(), packet: 0, source };
        let file = BufWriter::new(file);
        let sink = if with_comments {
            let mut writer = PcapNgWriter::new(file).map_err(broken)?;
            let interface = InterfaceDescriptionBlock {
                linktype: DataLink::ETHERNET,
                snaplen: SNAP_LEN,
                options: vec![InterfaceDescriptionOption::IfTsResol(NANOSECONDS)],
            };
            writer.write_block(&interface.into_block()).map_err(broken)?;
            Sink::PcapNg(Box::new(writer))
        } else {
            let header = PcapHeader {
                snaplen: SNAP_LEN,
                datalink: DataLink::ETHERNET,
                ts_resolution: TsResolution::NanoSecond,
                ..PcapHeader::default()
            };
            Sink::Pcap(PcapWriter::with_header(file, header).map_err(broken)?)
        };
        Ok(Self { path: path.to_owned(), written: 0, sink })
    }

    /// Adds a frame, which a pcapng file has a comment about.
    pub fn write(&mut self, packet: &Captured, comment: &str) -> Result<(), CaptureError> {
        let done = match &mut self.sink {
            Sink::Pcap(writer) => writer.write_raw_packet(&RawPcapPacket {
                ts_sec: packet.time.as_secs() as u32,
                ts_frac: packet.time.subsec_nanos(),
                incl_len: packet.frame.len() as u32,
                orig_len: packet.original_len,
                data: Cow::Borrowed(&packet.frame),
            }),
            Sink::PcapNg(writer) => writer.write_block(&Block::EnhancedPacket(EnhancedPacketBlock {
                interface_id: 0,
                timestamp: packet.time,
                original_len: packet.original_len,
                data: Cow::Borrowed(&packet.frame),
                options: vec![EnhancedPacketOption::Comment(Cow::Borrowed(comment))],
            })),
        };
        let (path, packet) = (self.path.clone(), self.written);
        done.map_err(|source| CaptureError::Broken { path, packet, source })?;
        self.written += 1;
        Ok(())
    }

    /// Brings what was written so far into a pcapng file, for those who look at it while it grows.
    pub fn flush(&mut self) -> Result<(), CaptureError> {
        let Sink::PcapNg(writer) = &mut self.sink else { return Ok(()) };
        let file = |source| CaptureError::File { action: "writing", path: self.path.clone(), source };
        writer.get_mut().flush().map_err(file)
    }

    /// Writes the rest and closes the file.
    pub fn finish(self) -> Result<(), CaptureError> {
        let mut file = match self.sink {
            Sink::Pcap(writer) => writer.into_writer(),
            Sink::PcapNg(writer) => writer.into_inner(),
        };
        file.flush().map_err(|source| CaptureError::File { action: "writing", path: self.path, source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packets() -> Vec<Captured> {
        let packet = |n: u64, len: usize, original_len| Captured {
            time: Duration::from_nanos(1_700_000_000_123_456_789 + n),
            frame: (0..len).map(|i| i as u8).collect(),
            original_len,
        };
        vec![packet(0, 60, 60), packet(1, 61, 61), packet(2, 14, 1514)]
    }

    fn path(directory: &tempfile::TempDir, name: &str) -> PathBuf {
        directory.path().join(name)
    }

    #[test]
    fn what_is_written_is_read_again() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["a.pcap", "a.pcapng", "A.PCAPNG"] {
            let path = path(&directory, name);
            let mut writer = Writer::create(&path).unwrap();
            for packet in packets() {
                writer.write(&packet, "tx: a comment").unwrap();
            }
            writer.finish().unwrap();
            let read = read(&path).unwrap();
            assert_eq!(read, packets(), "{name}");
            assert_eq!(read.iter().map(Captured::is_cut).collect::<Vec<_>>(), [false, false, true]);
        }
        let text = std::fs::read(path(&directory, "a.pcapng")).unwrap();
        assert!(text.windows(13).any(|found| found == b"tx: a comment"));
    }

    /// A pcap file of microseconds, big endian, and a pcapng interface that says nothing of its units.
    #[test]
    fn times_have_the_units_of_their_file() {
        let directory = tempfile::tempdir().unwrap();
        let words = |words: &[u32]| words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<u8>>();
        let old = words(&[0xa1b2_c3d4, 0x0002_0004, 0, 0, 65_535, 1, 7, 5, 4, 4, 0x0102_0304]);
        let new = words(&[
            0x0a0d_0d0a,
            28,
            0x1a2b_3c4d,
            0x0001_0000,
            u32::MAX,
            u32::MAX,
            28, // section
            1,
            20,
            0x0001_0000,
            0,
            20, // interface
            6,
            36,
            0,
            0,
            7_000_005,
            4,
            4,
            0x0102_0304,
            36, // packet
        ]);
        for (name, bytes) in [("old", old), ("new", new)] {
            let path = path(&directory, name);
            std::fs::write(&path, bytes).unwrap();
            let wanted =
                Captured { time: Duration::from_micros(7_000_005), frame: vec![1, 2, 3, 4], original_len: 4 };
            assert_eq!(read(&path).unwrap(), [wanted], "{name}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let words = |words: &[u32]| words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<u8>>();
        let cases = [
            ("empty", vec![], "neither pcap nor pcapng"),
            ("text", b"services:\n".to_vec(), "neither pcap nor pcapng"),
            (
                "radio",
                words(&[0xa1b2_c3d4, 0x0002_0004, 0, 0, 65_535, 105]),
                "IEEE802_11 packets, not Ethernet",
            ),
            (
                "short",
                words(&[0xa1b2_c3d4, 0x0002_0004, 0, 0, 65_535, 1, 7, 5, 400, 400, 0]),
                "ends within it",
            ),
        ];
        for (name, bytes, message) in cases {
            let path = path(&directory, name);
            std::fs::write(&path, bytes).unwrap();
            let error = read(&path).unwrap_err().to_string();
            assert!(error.contains(message) && error.contains(name), "{error}");
        }
        assert!(read(&path(&directory, "absent")).unwrap_err().to_string().contains("opening"));
        assert!(matches!(Writer::create(&path(&directory, "a.txt")), Err(CaptureError::NoFormat { .. })));
    }
}
