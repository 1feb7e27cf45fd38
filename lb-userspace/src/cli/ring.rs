//! `lb ring`: shares and disruption, from configs alone.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;

use super::args::RingArgs;
use super::error::Failure;
use super::output::{self, Table};
use crate::config;
use crate::daemon;
use crate::model::ring::{self, Member, Seed};
use crate::model::{Model, Service};

#[derive(Serialize)]
struct Ring {
    service: String,
    id: String,
    size: u32,
    backends: Vec<Share>,
    /// Slots whose owner the other config changes.
    moved: Option<usize>,
}

#[derive(Serialize)]
struct Share {
    address: IpAddr,
    weight: u16,
    slots: usize,
}

fn owners(model: &Model, service: &Service, size: u32) -> Vec<IpAddr> {
    let members: Vec<Member> = service
        .backends
        .iter()
        .map(|backend| Member { address: backend.address, weight: backend.effective_weight().into() })
        .collect();
    let ring = ring::build(&Seed { service: service.id, key: model.hash_key }, &members, size);
    ring.into_iter().filter_map(|owner| Some(members.get(owner as usize)?.address)).collect()
}

fn load(path: &Path) -> Result<Model, Failure> {
    Ok(config::load(path).map_err(daemon::Error::from)?.model)
}

/// Prints the rings of a config.
pub(super) fn run(args: &RingArgs) -> Result<ExitCode, Failure> {
    let model = load(&args.config)?;
    let other = args.against.as_deref().map(load).transpose()?;
    let rings: Vec<Ring> =
        model.services.iter().map(|service| one(&model, service, other.as_ref())).collect();
    output::print(args.output, &rings, || rings.iter().map(text).collect())?;
    Ok(ExitCode::SUCCESS)
}

fn one(model: &Model, service: &Service, other: Option<&Model>) -> Ring {
    let size = service.new_ring_size();
    let ring = owners(model, service, size);
    let mut slots: BTreeMap<IpAddr, usize> = BTreeMap::new();
    for owner in &ring {
        *slots.entry(*owner).or_default() += 1;
    }
    let moved = other.and_then(|other| {
        let after = other.services.iter().find(|after| after.id == service.id)?;
        // A service keeps the size it was made with.
        let after = owners(other, after, size);
        Some(ring.iter().zip(&after).filter(|(a, b)| a != b).count())
    });
    let share = |backend: &crate::model::Backend| Share {
        address: backend.address,
        weight: backend.effective_weight(),
        slots: slots.get(&backend.address).copied().unwrap_or(0),
    };
    Ring {
        service: service.name.clone(),
        id: service.id.to_string(),
        size,
        backends: service.backends.iter().map(share).collect(),
        moved,
    }
}

fn percent(part: usize, whole: u32) -> String {
    format!("{:.2}%", part as f64 * 100.0 / f64::from(whole))
}

fn text(ring: &Ring) -> String {
    let mut table = Table::new(["BACKEND", "WGT", "SLOTS", "SHARE"]);
    for share in &ring.backends {
        let slots = share.slots;
        table.row([
            share.address.to_string(),
            share.weight.to_string(),
            slots.to_string(),
            percent(slots, ring.size),
        ]);
    }
    let moved = ring.moved.map_or_else(String::new, |moved| {
        format!("  the other config moves {moved} slots, {}\n", percent(moved, ring.size))
    });
    format!("{} {}  {} slots\n{}{moved}", ring.service, ring.id, ring.size, table.render(2))
}
