//! What `lb validate` foresees of flow tables, `lb status` finds in the kernel: their sizes, and the flows in them.

use anyhow::{Context, ensure};
use aya::maps::MapData;
use lb_common::abi::names::{TCP_ESTABLISHED, TCP_HALF_OPEN};
use lb_tests::system::{Rig, fetch_all};
use lb_userspace::lab::{Role, VIP_L2};
use serde_json::Value;

const SERVICES: &str = "services:
  - {name: web, address: 203.0.113.10, protocol: tcp, port: 80, tracking: always, pool: p}
pools:
  - {name: p, forwarding: l2, backends: [{address: 203.0.113.21}, {address: 203.0.113.22}]}
limits: {flows: 1001, udp_flows: 3, receiving_cpus: 1}
";

fn table<'a>(value: &'a Value, name: &str) -> anyhow::Result<&'a Value> {
    let tables = value["flow_tables"].as_array().into_iter().flatten();
    tables.into_iter().find(|table| table["name"] == name).with_context(|| format!("no {name}: {value:#}"))
}

#[test]
fn tables_are_as_large_as_foreseen_and_status_counts_what_is_in_them() -> anyhow::Result<()> {
    let rig = Rig::new(2, 1)?;
    rig.start_text(SERVICES)?;
    let config = rig.config_path();
    let path = config.to_str().context("UTF-8")?;
    let foreseen = rig.lb(["validate", "--output", "json", path])?.expect(0)?.json()?;
    let cpus = foreseen["possible_cpus"].as_u64().context("a number")?;
    ensure!(foreseen["receiving_cpus"] == 1, "{foreseen:#}");
    let status = rig.status()?;
    for (name, wanted) in [("TCP_HALF_OPEN", 500), ("TCP_OLD", 1001), ("UDP_HALF_OPEN", 1), ("UDP_OLD", 3)] {
        let planned = table(&foreseen, name)?;
        ensure!(planned["wanted"] == wanted && planned["entries"] == wanted * cpus, "{planned:#}");
        ensure!(table(&status, name)?["capacity"] == planned["entries"], "{status:#}");
    }
    let pins = rig.left().into_iter().find(|path| path.starts_with("/sys/fs/bpf")).context("pins")?;
    let info = MapData::from_pin(pins.join(TCP_ESTABLISHED))?.info()?;
    ensure!(u64::from(info.max_entries()) == 1001 * cpus, "{} entries", info.max_entries());

    fetch_all(&rig.lab.netns(Role::Client), (VIP_L2, 80), 30_000..30_020)?;
    let status = rig.status()?;
    ensure!(table(&status, TCP_ESTABLISHED)?["entries"] == 20, "{status:#}");
    ensure!(table(&status, TCP_HALF_OPEN)?["entries"] == 0, "promoted ones are gone there: {status:#}");
    ensure!(status["recorded_flows"] == 20 && status["notes"]["flow_not_recorded"] == 0, "{status:#}");
    ensure!(status["forced_settles"] == 0, "{status:#}");
    let text = rig.lb(["status"])?.expect(0)?;
    text.says(&["tcp    0/", &format!("20/{}", 1001 * cpus), "NOTES  none"])?;
    Ok(())
}
