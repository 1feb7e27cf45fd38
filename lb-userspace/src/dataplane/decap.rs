//! Loads the decapsulator on a backend, and what lowers the MSS of its answers.

use std::io;
use std::net::IpAddr;

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, MapData, PerCpuArray};
use aya::programs::links::FdLink;
use aya::programs::tc::{self, NlOptions, SchedClassifier, TcAttachOptions, TcAttachType, TcError};
use aya::programs::{LinkOrder, ProgramError};
use aya::{Ebpf, EbpfLoader};
use lb_common::abi::{ClampReason, DecapReason, PrefixKey, mapped, names::*};

use super::attach::{refused, words};
use super::counters::sum;
use super::kernel_log::LogTail;
use super::{Error, Facts, Mode, TestProgram, object};
use crate::model::Prefix;

/// Packets by reason.
pub type DecapCounters = Vec<(DecapReason, u64)>;
/// SYN segments by what became of them.
pub type ClampCounters = Vec<(ClampReason, u64)>;

/// What a decapsulator takes.
#[derive(Clone, Debug)]
pub struct DecapLists<'a> {
    /// MAC address of its interface.
    pub mac: [u8; 6],
    /// UDP port that GUE comes to; 0 where none does.
    pub gue_port: u16,
    /// Service addresses: the inner destinations that are accepted.
    pub vips: &'a [Prefix],
    /// Outer sources that are accepted.
    pub sources: &'a [Prefix],
}

/// The largest MSS that may leave, by the family of the segment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Mss {
    /// With IPv4, in bytes.
    pub v4: u16,
    /// With IPv6, in bytes.
    pub v6: u16,
}

/// A decapsulator; it detaches when dropped.
pub struct Decap {
    reasons: PerCpuArray<MapData, u64>,
    clamped: PerCpuArray<MapData, u64>,
    object: Ebpf,
    link: Option<FdLink>,
}

impl Decap {
    /// Loads the program with its lists; nothing is attached yet.
    pub fn load(lists: &DecapLists<'_>) -> Result<Self, Error> {
        let mut loader = EbpfLoader::new();
        loader.override_global(OWN_MAC, &lists.mac, true);
        loader.override_global(GUE_PORT, &lists.gue_port, true);
        // One more each: see `fill`.
        loader.map_max_entries(DECAP_VIPS, lists.vips.len() as u32 + 1);
        loader.map_max_entries(DECAP_SOURCES, lists.sources.len() as u32 + 1);
        let mut object = loader.load(object::DECAP).map_err(Error::load)?;
        fill(&mut object, DECAP_VIPS, lists.vips)?;
        fill(&mut object, DECAP_SOURCES, lists.sources)?;
        let reasons = counters(&mut object, DECAP_REASONS)?;
        let clamped = counters(&mut object, CLAMP_REASONS)?;
        object::program(&mut object, DECAP_PROGRAM)?;
        Ok(Self { reasons, clamped, object, link: None })
    }

    /// Attaches it to an interface until dropped.
    pub fn attach(&mut self, ifindex: u32, facts: &Facts, mode: Mode) -> Result<(), Error> {
        let program = self.object.program_mut(DECAP_PROGRAM).ok_or(Error::Missing(DECAP_PROGRAM))?;
        let other = |source| Error::Program { program: DECAP_PROGRAM, source };
        let program: &mut aya::programs::Xdp = program.try_into().map_err(other)?;
        let log = LogTail::start();
        let id = match program.attach_to_if_index(ifindex, mode.into()) {
            Ok(id) => id,
            Err(error) => {
                let words = words(program, ifindex, &facts.interface, mode, log);
                return Err(refused(facts, mode, &error, words));
            }
        };
        let link = program.take_link(id).map_err(other)?;
        let failed = |error: aya::programs::links::LinkError| Error::Link {
            interface: facts.interface.clone(),
            source: io::Error::other(error.to_string()),
        };
        self.link = Some(FdLink::try_from(link).map_err(failed)?);
        Ok(())
    }

    /// Lowers the MSS in SYN segments from the service addresses that leave through these interfaces, until dropped.
    pub fn clamp(&mut self, interfaces: &[String], mss: Mss) -> Result<(), Error> {
        self.set_mss(mss)?;
        let refused = |source| Error::Program { program: CLAMP_PROGRAM, source };
        let program = self.object.program_mut(CLAMP_PROGRAM).ok_or(Error::Missing(CLAMP_PROGRAM))?;
        let program: &mut SchedClassifier = program.try_into().map_err(refused)?;
        program.load().map_err(refused)?;
        for interface in interfaces {
            attach_egress(program, interface).map_err(|error| Error::Link {
                interface: interface.clone(),
                source: io::Error::other(error),
            })?;
        }
        Ok(())
    }

    /// Changes the largest MSS.
    pub fn set_mss(&mut self, mss: Mss) -> Result<(), Error> {
        let map = self.object.map_mut(CLAMP_MSS).ok_or(Error::Missing(CLAMP_MSS))?;
        let mut largest: Array<_, u32> = Array::try_from(map).map_err(Error::map(CLAMP_MSS))?;
        for (index, value) in [mss.v4, mss.v6].into_iter().enumerate() {
            largest.set(index as u32, u32::from(value), 0).map_err(Error::map(CLAMP_MSS))?;
        }
        Ok(())
    }

    /// Detaches it; its counters stay.
    pub fn detach(&mut self) {
        self.link = None;
    }

    /// Reads its counters.
    pub fn counters(&self) -> Result<DecapCounters, Error> {
        DecapReason::ALL.iter().map(|r| Ok((*r, sum(&self.reasons, DECAP_REASONS, *r as u32)?))).collect()
    }

    /// Reads the counters of what leaves.
    pub fn clamp_counters(&self) -> Result<ClampCounters, Error> {
        ClampReason::ALL.iter().map(|r| Ok((*r, sum(&self.clamped, CLAMP_REASONS, *r as u32)?))).collect()
    }

    /// The loaded program, to run packets through; counters are read through the returned reader.
    pub fn into_test(self) -> (TestProgram, DecapReader) {
        (TestProgram::new(self.object, DECAP_PROGRAM), DecapReader { reasons: self.reasons })
    }
}

/// Fills a list. Both families share one trie, in which IPv4 lies within IPv6: so that `::/0` does not mean all of IPv4
/// too, IPv4 as a whole is refused unless the list says otherwise.
fn fill(object: &mut Ebpf, name: &'static str, prefixes: &[Prefix]) -> Result<(), Error> {
    let map = object.map_mut(name).ok_or(Error::Missing(name))?;
    let mut list: LpmTrie<_, PrefixKey, u32> = LpmTrie::try_from(map).map_err(Error::map(name))?;
    let v4 = Prefix { network: IpAddr::from([0, 0, 0, 0]), length: 0 };
    for (prefix, value) in std::iter::once((&v4, 0)).chain(prefixes.iter().map(|prefix| (prefix, 1))) {
        let (address, bits) = match prefix.network {
            IpAddr::V4(v4) => (mapped(v4.octets()), 96 + u32::from(prefix.length)),
            IpAddr::V6(v6) => (v6.octets(), u32::from(prefix.length)),
        };
        let key = Key::new(PrefixKey::ADDRESS_AT + bits, PrefixKey::new(address));
        list.insert(&key, value, 0).map_err(Error::map(name))?;
    }
    Ok(())
}

fn counters(object: &mut Ebpf, name: &'static str) -> Result<PerCpuArray<MapData, u64>, Error> {
    let map = object.take_map(name).ok_or(Error::Missing(name))?;
    PerCpuArray::try_from(map).map_err(Error::map(name))
}

/// By a link that goes with the process (TCX, kernel 6.6), else as a filter of the clsact qdisc. A filter outlives a
/// process that is killed: one that such a process has left is replaced, and the qdisc, which others may use, stays.
fn attach_egress(program: &mut SchedClassifier, interface: &str) -> Result<(), ProgramError> {
    let direction = TcAttachType::Egress;
    let tcx = TcAttachOptions::TcxOrder(LinkOrder::default());
    match program.attach_with_options(interface, direction, tcx) {
        Err(ProgramError::SyscallError(error)) if is_unknown(&error.io_error) => {}
        result => return result.map(drop),
    }
    match tc::qdisc_add_clsact(interface) {
        Ok(()) | Err(TcError::AlreadyAttached) => {}
        // It may be there.
        Err(error) => tracing::debug!(interface, %error, "clsact"),
    }
    match tc::qdisc_detach_program(interface, direction, CLAMP_PROGRAM) {
        Ok(()) => tracing::info!(interface, "replaced a filter that an earlier process has left"),
        Err(error) => tracing::debug!(interface, %error, "no filter of an earlier process"),
    }
    let filter = TcAttachOptions::Netlink(NlOptions::default());
    program.attach_with_options(interface, direction, filter).map(drop)
}

/// What a kernel without TCX says to a link of that kind.
fn is_unknown(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(nix::libc::EINVAL | nix::libc::EOPNOTSUPP))
}

/// Reads the counters of a decapsulator under test.
pub struct DecapReader {
    reasons: PerCpuArray<MapData, u64>,
}

impl DecapReader {
    /// Packets with this reason so far.
    pub fn count(&self, reason: DecapReason) -> Result<u64, Error> {
        sum(&self.reasons, DECAP_REASONS, reason as u32)
    }
}
