//! The arguments of commands about packets: simulate, explain, capture.

use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use lb_common::abi::VerdictKind;

use super::args::Output;
use super::decap_args::prefix;
use crate::model::Prefix;
use crate::simulate::language::Mac;

#[derive(Args, Debug)]
pub(super) struct SimulateArgs {
    /// The config file
    #[arg(long, value_name = "FILE")]
    pub(super) config: PathBuf,
    /// A file of packets, pcap or pcapng
    #[arg(long, value_name = "IN", conflicts_with = "packet")]
    pub(super) pcap: Option<PathBuf>,
    /// A packet in words; may be given several times
    #[arg(long, value_name = "TEXT", required_unless_present = "pcap", num_args = 1..)]
    pub(super) packet: Vec<String>,
    /// Write what leaves to a file: .pcap, or .pcapng with a comment on each packet
    #[arg(long, value_name = "OUT")]
    pub(super) out: Option<PathBuf>,
    /// Do not try the kernel: the host build of the same engine decides
    #[arg(long)]
    pub(super) host: bool,
    /// MAC address of the interface; otherwise the one that the file's packets for services go to
    #[arg(long, value_name = "MAC")]
    pub(super) mac: Option<Mac>,
    /// MTU of the interfaces
    #[arg(long, value_name = "BYTES", default_value_t = 1500, value_parser = clap::value_parser!(u32).range(68..=65_535))]
    pub(super) mtu: u32,
    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub(super) output: Output,
}

#[derive(Args, Debug)]
pub(super) struct ExplainArgs {
    /// A packet in words, or a code such as LB013, or a reason such as no_backend
    #[arg(value_name = "PACKET", required = true, num_args = 1..)]
    pub(super) packet: Vec<String>,
    /// The interface that it comes in by; otherwise the first one that lb is attached to
    #[arg(long, value_name = "IFACE")]
    pub(super) interface: Option<String>,
    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub(super) output: Output,
}

#[derive(Args, Debug)]
pub(super) struct CaptureArgs {
    /// One in so many of the packets that match, on each CPU
    #[arg(long, value_name = "N", default_value = "1")]
    pub(super) every: NonZeroU32,
    /// Only packets of this service, by name or as ADDRESS:PORT/PROTOCOL
    #[arg(long, value_name = "S")]
    pub(super) service: Option<String>,
    /// Only packets from these sources
    #[arg(long, value_name = "PREFIX", value_parser = prefix)]
    pub(super) source: Option<Prefix>,
    /// Only packets with this fate; `redirect` counts as tx
    #[arg(long, value_name = "V", value_enum)]
    pub(super) verdict: Option<Wanted>,
    /// End after so many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) count: Option<u64>,
    /// Write them to a file; otherwise they are printed, a line each
    #[arg(long, value_name = "FILE.pcapng")]
    pub(super) out: Option<PathBuf>,
}

/// A verdict in a word.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(super) enum Wanted {
    Tx,
    Pass,
    Drop,
}

impl Wanted {
    pub(super) fn kind(self) -> VerdictKind {
        match self {
            Self::Tx => VerdictKind::Transmit,
            Self::Pass => VerdictKind::Pass,
            Self::Drop => VerdictKind::Drop,
        }
    }
}
