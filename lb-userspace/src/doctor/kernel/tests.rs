//! Kernels that cannot be had here, from what they show in files.

use std::fs;

use super::*;

/// What is found where something is changed.
type Case = (&'static str, Severity, fn(&mut Kernel));

/// A machine as it should be.
fn good() -> Kernel {
    Kernel {
        release: "6.1.0-18-amd64".into(),
        btf: true,
        jit: Some(1),
        jit_harden: Some(0),
        bpffs: "/sys/fs/bpf".into(),
        bpffs_mounted: true,
        clock: Some("tsc".into()),
        clocks: vec!["tsc".into(), "hpet".into()],
        capabilities: Some(0x1ff_ffff_ffff),
        locked_memory: None,
    }
}

/// Codes of what is worse than fine.
fn bad(kernel: &Kernel) -> Vec<(&'static str, Severity)> {
    let findings = kernel.findings();
    let findings = findings.iter().map(|found| &found.finding);
    findings.filter(|f| f.severity > Severity::Ok).map(|f| (f.code, f.severity)).collect()
}

#[test]
fn each_fault_is_found_and_nothing_else() {
    let cases: [Case; 9] = [
        ("LB200", Severity::Problem, |k| k.release = "5.17.9".into()),
        ("LB201", Severity::Notice, |k| k.btf = false),
        ("LB202", Severity::Warning, |k| k.jit = Some(0)),
        ("LB203", Severity::Warning, |k| k.jit_harden = Some(2)),
        ("LB204", Severity::Problem, |k| k.bpffs_mounted = false),
        ("LB205", Severity::Problem, |k| k.capabilities = Some(1 << 12 | 1 << 39)),
        ("LB205", Severity::Problem, |k| k.capabilities = Some(1 << 21)),
        ("LB207", Severity::Warning, |k| k.clock = Some("hpet".into())),
        ("LB207", Severity::Warning, |k| (k.clock, k.clocks) = (Some("acpi_pm".into()), vec![])),
    ];
    assert_eq!(bad(&good()), []);
    for (code, severity, break_it) in cases {
        let mut kernel = good();
        break_it(&mut kernel);
        assert_eq!(bad(&kernel), [(code, severity)]);
    }
}

#[test]
fn locked_memory_matters_on_old_kernels_only() {
    let limited = Kernel { locked_memory: Some(8 << 20), ..good() };
    assert_eq!(bad(&limited), []);
    let old = Kernel { release: "5.10.0-28-amd64".into(), ..limited };
    assert_eq!(bad(&old), [("LB200", Severity::Problem), ("LB206", Severity::Problem)]);
}

#[test]
fn administrators_rights_stand_for_the_newer_ones() {
    assert_eq!(bad(&Kernel { capabilities: Some(1 << 21 | 1 << 12), ..good() }), []);
}

/// Read from files, mended in files, gone.
#[tokio::test]
async fn settings_are_mended() {
    let directory = tempfile::tempdir().unwrap();
    let root = Root::below(directory.path());
    let clocks = "/sys/devices/system/clocksource/clocksource0";
    let files = [
        ("/proc/sys/kernel/osrelease", "6.12.9\n"),
        ("/proc/sys/net/core/bpf_jit_enable", "0\n"),
        ("/proc/sys/net/core/bpf_jit_harden", "0\n"),
        ("/proc/self/status", "Name:\tlb\nCapEff:\t000001ffffffffff\n"),
        (
            "/proc/self/limits",
            "Limit    Soft Limit  Hard Limit  Units\nMax locked memory  8388608  8388608  bytes\n",
        ),
        (&format!("{clocks}/current_clocksource"), "hpet\n"),
        (&format!("{clocks}/available_clocksource"), "tsc hpet acpi_pm \n"),
        ("/sys/kernel/btf/vmlinux", ""),
    ];
    for (path, text) in files {
        let path = directory.path().join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let read = || Kernel { bpffs_mounted: true, ..Kernel::read(&root, Path::new("/nowhere")) };
    let found = read();
    assert_eq!(found.locked_memory, Some(8 << 20));
    assert_eq!(bad(&found), [("LB202", Severity::Warning), ("LB207", Severity::Warning)]);
    for remedy in found.findings().into_iter().filter_map(|found| found.remedy) {
        remedy.apply(&root).await.unwrap();
    }
    assert_eq!(bad(&read()), []);
    assert_eq!(read().clock.as_deref(), Some("tsc"));
}
