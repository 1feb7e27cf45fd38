//! A config that the kernel takes only in part: what it has added stays, for connections may have begun there, and the
//! rest is tried again until it works or another config comes.

use std::fmt::Write as _;
use std::os::fd::{AsFd, AsRawFd};

use anyhow::{Context, ensure};
use aya::maps::MapData;
use lb_common::abi::names::RANGES;
use lb_tests::system::{Download, Rig, Run, address};
use lb_userspace::lab::VIP_L2;
use nix::libc;

/// `BPF_MAP_FREEZE` of `enum bpf_cmd` (include/uapi/linux/bpf.h).
const FREEZE: libc::c_long = 22;

/// Has the kernel refuse every write to the rig's table of port ranges from here on.
fn freeze_ranges(rig: &Rig) -> anyhow::Result<()> {
    let pins = rig.left().into_iter().find(|path| path.starts_with("/sys/fs/bpf"));
    let map = MapData::from_pin(pins.context("nothing is pinned")?.join(RANGES))?;
    // The kernel wants all bytes that it does not know to be zero.
    let mut attributes = [0u32; 32];
    attributes[0] = u32::try_from(map.fd().as_fd().as_raw_fd())?;
    // SAFETY: the attributes outlive the call, which reads their first word, and `map` holds the descriptor that is in it.
    let frozen =
        unsafe { libc::syscall(libc::SYS_bpf, FREEZE, attributes.as_ptr(), size_of_val(&attributes)) };
    ensure!(frozen == 0, "freezing: {}", std::io::Error::last_os_error());
    Ok(())
}

/// A service over so many backends, and further ones.
fn config(backends: u8, more: &str) -> String {
    let mut text = format!(
        "version: 1\ninterfaces: [{{name: eth0}}]\nservices:\n  - name: web\n    address: {VIP_L2}\n    protocol: tcp\n    \
         port: 80\n    pool: web\n{more}pools:\n  - name: web\n    forwarding: l2\n    backends:\n"
    );
    for number in 1..=backends {
        let _ = writeln!(text, "      - {{name: b{number}, address: {}}}", address(number));
    }
    text
}

fn apply(rig: &Rig, text: &str) -> anyhow::Result<Run> {
    let path = rig.write_text(text)?.display().to_string();
    rig.lb(["apply", path.as_str()])
}

#[test]
fn what_stops_half_way_goes_forward_and_not_back() -> anyhow::Result<()> {
    let rig = Rig::new(4, 12)?;
    rig.write_text(&config(3, ""))?;
    rig.run(&[])?;
    freeze_ranges(&rig)?;
    let range =
        format!("  - {{name: many, address: {VIP_L2}, protocol: tcp, ports: [\"8000-8999\"], pool: web}}\n");
    apply(&rig, &config(4, &range))?.expect(1)?.says(&["between two configs"])?;
    // Slots are marked by then; they change hands with the second step, which is taken though the rest still fails.
    let owns = |b: &serde_json::Value| b["state"] == "up" && b["slots"].as_u64() > Some(800);
    rig.wait_backend(4, "it has its slots", owns)?;
    let kept = Download::start_from(&rig, "b4", 40_000..40_060)?;
    let error = rig.status()?["last_error"].to_string();
    ensure!(error.contains("between two configs"), "{error}");
    // Without what the kernel refuses there is nothing left to do.
    apply(&rig, &config(4, ""))?.expect(0)?;
    ensure!(rig.status()?["last_error"].is_null(), "{:#}", rig.status()?);
    rig.wait_backend(4, "it still has them", owns)?;
    kept.finish()
}
