//! Loads the decapsulator on a backend.

use std::net::Ipv4Addr;

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{HashMap, MapData, PerCpuArray};
use aya::programs::links::FdLink;
use aya::{Ebpf, EbpfLoader};
use lb_common::abi::{DecapReason, VipKey, mapped, names::*};

use super::attach::refused;
use super::counters::sum;
use super::{Error, Facts, Mode, TestProgram, object};

/// Packets by reason.
pub type DecapCounters = Vec<(DecapReason, u64)>;

/// A decapsulator; it detaches when dropped.
pub struct Decap {
    reasons: PerCpuArray<MapData, u64>,
    object: Ebpf,
    link: Option<FdLink>,
}

impl Decap {
    /// Loads the program with its lists; nothing is attached yet.
    pub fn load(mac: [u8; 6], vips: &[Ipv4Addr], sources: &[(Ipv4Addr, u8)]) -> Result<Self, Error> {
        let mut loader = EbpfLoader::new();
        loader.override_global("OWN_MAC", &mac, true);
        loader.map_max_entries(DECAP_VIPS, vips.len().max(1) as u32);
        loader.map_max_entries(DECAP_SOURCES, sources.len().max(1) as u32);
        let mut object = loader.load(object::DECAP).map_err(Error::load)?;
        let map = object.map_mut(DECAP_VIPS).ok_or(Error::Missing(DECAP_VIPS))?;
        let mut allowed: HashMap<_, VipKey, u32> = HashMap::try_from(map).map_err(Error::map(DECAP_VIPS))?;
        for vip in vips {
            allowed.insert(VipKey::v4(vip.octets()), 0, 0).map_err(Error::map(DECAP_VIPS))?;
        }
        let map = object.map_mut(DECAP_SOURCES).ok_or(Error::Missing(DECAP_SOURCES))?;
        let mut allowed: LpmTrie<_, [u8; 16], u32> =
            LpmTrie::try_from(map).map_err(Error::map(DECAP_SOURCES))?;
        for (network, length) in sources {
            let key = Key::new(96 + u32::from(*length), mapped(network.octets()));
            allowed.insert(&key, 0, 0).map_err(Error::map(DECAP_SOURCES))?;
        }
        let map = object.take_map(DECAP_REASONS).ok_or(Error::Missing(DECAP_REASONS))?;
        let reasons = PerCpuArray::try_from(map).map_err(Error::map(DECAP_REASONS))?;
        object::program(&mut object, DECAP_PROGRAM)?;
        Ok(Self { reasons, object, link: None })
    }

    /// Attaches it to an interface until dropped.
    pub fn attach(&mut self, ifindex: u32, facts: &Facts, mode: Mode) -> Result<(), Error> {
        let program = self.object.program_mut(DECAP_PROGRAM).ok_or(Error::Missing(DECAP_PROGRAM))?;
        let other = |source| Error::Program { program: DECAP_PROGRAM, source };
        let program: &mut aya::programs::Xdp = program.try_into().map_err(other)?;
        let id =
            program.attach_to_if_index(ifindex, mode.into()).map_err(|error| refused(facts, mode, &error))?;
        let link = program.take_link(id).map_err(other)?;
        let failed = |error: aya::programs::links::LinkError| Error::Link {
            interface: facts.interface.clone(),
            source: std::io::Error::other(error.to_string()),
        };
        self.link = Some(FdLink::try_from(link).map_err(failed)?);
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

    /// The loaded program, to run packets through; counters are read through the returned reader.
    pub fn into_test(self) -> (TestProgram, DecapReader) {
        (TestProgram::new(self.object, DECAP_PROGRAM), DecapReader { reasons: self.reasons })
    }
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
