//! Floods while slots are unsettled, through the real path: connections stay, slots settle all the same.

use std::time::{Duration, Instant};

use anyhow::ensure;
use lb_tests::system::{Crowd, Many, Spoof, Wish};

/// Segments of each flood from strangers.
const STRANGERS: u32 = 60_000;
/// More than the client has ports: each connection gets at least one.
const OWN: u32 = 30_000;
/// Without short-lived connections, and without what is not answered yet: a server that is flooded with SYNs refuses
/// some, whoever sends them to it, or forgets that it has taken them.
const STEADY: Wish = Wish {
    tcp: 2000,
    udp: 100,
    quic: 12,
    control: 10,
    every: Duration::from_millis(500),
    short_lived: 0,
    established_only: true,
};

/// A change, a flood right behind it, and the time until no slot is unsettled any more.
fn disturb(crowd: &Crowd, what: Spoof, count: u32, weights: &[(u8, u16)]) -> anyhow::Result<()> {
    let at_risk = crowd.rig.counted("flow_at_risk")?;
    crowd.reload(&format!("another weight, then {count} {what:?}s"), &Many::new(weights))?;
    let unsettled = crowd.unsettled()?;
    ensure!(unsettled > 100, "the change has unsettled {unsettled} slots only");
    let took = crowd.rig.flood(what, count)?;
    let over = Instant::now();
    let status = crowd.rig.status()?;
    let tables = status["flow_tables"].as_array().into_iter().flatten();
    let flows: u64 = tables.filter_map(|table| table["entries"].as_u64()).sum();
    crowd.wait_settled()?;
    let at_risk = crowd.rig.counted("flow_at_risk")? - at_risk;
    println!(
        "{count} {what:?}s in {:.1} s on {unsettled} unsettled slots: {flows} flows recorded, {at_risk} segments \
         at risk, all slots settled {:.1} s after it",
        took.as_secs_f32(),
        over.elapsed().as_secs_f32()
    );
    crowd.load.check()
}

#[test]
fn floods_break_no_connection_and_keep_no_slot_unsettled() -> anyhow::Result<()> {
    let crowd = Crowd::gather(3, &Many::new(&[(1, 5), (2, 5), (3, 5)]), STEADY)?;
    crowd.rig.swallow_spoofed()?;
    disturb(&crowd, Spoof::Syn, STRANGERS, &[(1, 5), (2, 5), (3, 2)])?;
    disturb(&crowd, Spoof::Ack, STRANGERS, &[(1, 5), (2, 2), (3, 5)])?;
    disturb(&crowd, Spoof::Rst, OWN, &[(1, 2), (2, 5), (3, 5)])?;
    disturb(&crowd, Spoof::Fin, OWN, &[(1, 5), (2, 5), (3, 1)])?;
    crowd.finish().map(drop)
}
