//! Which XDP program an interface has, and what a decapsulator of another process takes: read through the kernel's ids,
//! because nothing of it is pinned. Changes nothing.

use std::net::{IpAddr, Ipv6Addr};

use aya::maps::lpm_trie::LpmTrie;
use aya::maps::{Array, Map, MapData, MapInfo};
use aya::programs::tc::{SchedClassifier, TcAttachType};
use aya::programs::{ProgramInfo, loaded_programs};
use lb_common::abi::{PrefixKey, names::*};

use super::{Error, Mss};
use crate::model::Prefix;

/// Bits in front of an IPv4 address in a list's key.
const V4_AT: u32 = 96;

/// An XDP program, by what it is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum XdpFound {
    /// A decapsulator.
    Decap(DecapFound),
    /// Something else.
    Other {
        /// The kernel's id of it.
        program_id: u32,
        /// Its name.
        name: String,
    },
}

/// What a decapsulator takes.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct DecapFound {
    /// The kernel's id of its program.
    pub program_id: u32,
    /// The inner destinations that are accepted.
    pub vips: Vec<Prefix>,
    /// The outer sources that are accepted.
    pub sources: Vec<Prefix>,
}

/// What the program with this id is; nothing where it has gone meanwhile.
pub fn xdp_program(program_id: u32) -> Result<Option<XdpFound>, Error> {
    let Some(info) = loaded_programs().flatten().find(|info| info.id() == program_id) else {
        return Ok(None);
    };
    let name = info.name_as_str().unwrap_or_default().to_owned();
    if name != DECAP_PROGRAM {
        return Ok(Some(XdpFound::Other { program_id, name }));
    }
    let (vips, sources) = (listed(&info, DECAP_VIPS)?, listed(&info, DECAP_SOURCES)?);
    Ok(Some(XdpFound::Decap(DecapFound { program_id, vips, sources })))
}

/// What is done about the MSS of SYN segments that leave through an interface.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Clamped {
    /// A decapsulator's program lowers it to this.
    To(Mss),
    /// No program of a decapsulator is there.
    Open,
    /// A kernel without TCX links (before 6.6) does not say: there it is a filter.
    Unseen,
}

/// Looks for a decapsulator's program for what leaves.
pub fn clamped(interface: &str) -> Result<Clamped, Error> {
    let Ok((_, programs)) = SchedClassifier::query_tcx(interface, TcAttachType::Egress) else {
        return Ok(Clamped::Unseen);
    };
    let ours = programs.iter().find(|info| info.name_as_str() == Some(CLAMP_PROGRAM));
    let Some(map) = ours.map(|info| map(info, CLAMP_MSS)).transpose()?.flatten() else {
        return Ok(Clamped::Open);
    };
    let largest: Array<_, u32> = Array::try_from(Map::Array(map)).map_err(Error::map(CLAMP_MSS))?;
    let of = |index| {
        let value = largest.get(&index, 0).map_err(Error::map(CLAMP_MSS))?;
        Ok(u16::try_from(value).unwrap_or(u16::MAX))
    };
    Ok(Clamped::To(Mss { v4: of(0)?, v6: of(1)? }))
}

/// A program's map of this name.
fn map(info: &ProgramInfo, name: &'static str) -> Result<Option<MapData>, Error> {
    let ids = info.map_ids().map_err(|source| Error::Program { program: DECAP_PROGRAM, source })?;
    for id in ids.unwrap_or_default() {
        let found = MapInfo::from_id(id).map_err(Error::map(name))?;
        if found.name_as_str() == Some(name) {
            return MapData::from_id(id).map(Some).map_err(Error::map(name));
        }
    }
    Ok(None)
}

/// The accepted prefixes of a list, sorted.
fn listed(info: &ProgramInfo, name: &'static str) -> Result<Vec<Prefix>, Error> {
    let map = map(info, name)?.ok_or(Error::Missing(name))?;
    let list: LpmTrie<_, PrefixKey, u32> = LpmTrie::try_from(Map::LpmTrie(map)).map_err(Error::map(name))?;
    let mut found = Vec::new();
    for entry in list.iter() {
        let (key, accepted) = entry.map_err(Error::map(name))?;
        if accepted != 0 {
            let bits = key.prefix_len().saturating_sub(PrefixKey::ADDRESS_AT);
            found.push(prefix(key.data().address, bits));
        }
    }
    found.sort();
    Ok(found)
}

/// Both families lie in one trie, IPv4 within IPv6.
fn prefix(address: [u8; 16], bits: u32) -> Prefix {
    let v6 = Ipv6Addr::from(address);
    match v6.to_ipv4_mapped() {
        Some(v4) if bits >= V4_AT => Prefix::containing(v4.into(), (bits - V4_AT) as u8),
        _ => Prefix::containing(IpAddr::V6(v6), bits.min(128) as u8),
    }
}

#[cfg(test)]
mod tests {
    use lb_common::abi::mapped;

    use super::*;

    #[test]
    fn prefixes_of_both_families_come_out_of_one_list() {
        assert_eq!(prefix(mapped([203, 0, 113, 0]), 96 + 24).to_string(), "203.0.113.0/24");
        assert_eq!(prefix(mapped([0; 4]), 96).to_string(), "0.0.0.0/0");
        assert_eq!(prefix(Ipv6Addr::LOCALHOST.octets(), 128).to_string(), "::1/128");
        assert_eq!(prefix([0; 16], 0).to_string(), "::/0");
    }
}
