//! Opens the way for probes through the services: a namespace, its veth, a port in the data plane, a program on it.

use std::sync::Arc;

use lb_common::abi::PROBE_GATE_MAC;
use tokio::sync::watch;

use super::health::Health;
use super::probing::Unguarded;
use super::{Engine, Machine};
use crate::dataplane::Gate;
use crate::netlink::{GATE, Link, Netlink, Resolutions, Snapshot, links, remove_gate};

/// Opens it; the reason in words where that fails.
pub(super) async fn open(
    health: &Health,
    engine: &mut Engine,
    resolutions: &watch::Receiver<Arc<Resolutions>>,
) -> Result<(Unguarded, Gate, u16), String> {
    let table = engine.probe_table().map_err(|error| error.to_string())?;
    let unguarded = health.dig(table).await?;
    let (links, gate) = raise().await?;
    let resolutions = resolutions.borrow().clone();
    let followed = engine.follow(Machine { links: &links, resolutions: &resolutions });
    followed.map_err(|error| error.to_string())?;
    let (program, port) = engine.guard_gate(&gate).map_err(|error| error.to_string())?;
    Ok((unguarded, program, port))
}

/// Brings the gate up on this side, and finds it.
pub(super) async fn raise() -> Result<(Snapshot, Link), String> {
    let words = |error: crate::netlink::Error| error.to_string();
    let present = links().await.map_err(words)?;
    let ifindex = present.by_name(GATE).ok_or("the gate is not there")?.ifindex;
    Netlink::open().map_err(words)?.bring_up(ifindex).await.map_err(words)?;
    let present = links().await.map_err(words)?;
    let gate = present.by_index(ifindex).ok_or("the gate is gone")?.clone();
    Ok((present, gate))
}

/// Removes it, whoever made it: for when probing ends, and for what a killed prober has left.
pub async fn close() {
    if let Err(error) = remove_gate(PROBE_GATE_MAC).await {
        tracing::warn!(%error, "the probes' interface is left behind");
    }
}
