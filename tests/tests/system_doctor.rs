//! `lb doctor` on a balancer with faults: each is made, found, mended (by `--fix` where that does it) and gone; and
//! nothing is changed without `--fix`.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use lb_tests::system::{Config, Rig, Run, Service, address, binary, until};
use lb_userspace::lab::{Interrupt, Role, VIP_IPIP, VIP_L2};
use nix::sys::signal::Signal;
use serde_json::Value;

fn ip(rig: &Rig, line: &str) -> anyhow::Result<()> {
    rig.on(Role::Balancer, "ip", line.split_whitespace())?.expect(0).map(drop)
}

/// A lab with a second interface on the balancer, `x0`, whose peer is up.
fn rig() -> anyhow::Result<Rig> {
    let rig = Rig::new(2, 1)?;
    ip(&rig, "link add x0 type veth peer name x1")?;
    ip(&rig, "link set x0 up")?;
    ip(&rig, "link set x1 up")?;
    Ok(rig)
}

/// `lb doctor`, whatever its exit code.
fn doctor(rig: &Rig, args: &[&str]) -> anyhow::Result<Value> {
    rig.lb(["doctor", "--seconds", "1", "--output", "json"].iter().chain(args))?.json()
}

/// What it says with this code that is worse than a notice, as severity and words.
fn bad(said: &Value, code: &str) -> Vec<String> {
    let findings = said["findings"].as_array().into_iter().flatten();
    let found =
        findings.filter(|f| f["code"] == code && ["warning", "problem"].iter().any(|s| f["severity"] == *s));
    found.map(|f| format!("{} {}: {}", f["severity"], f["place"], f["what"])).collect()
}

fn expect(said: &Value, code: &str, words: &str) -> anyhow::Result<()> {
    let found = bad(said, code);
    ensure!(found.iter().any(|found| found.contains(words)), "{code} {words:?} is not in {said:#}");
    Ok(())
}

/// Nothing bad, and the check was made.
fn expect_gone(said: &Value, code: &str) -> anyhow::Result<()> {
    let checked = said["findings"].as_array().into_iter().flatten().any(|f| f["code"] == code);
    ensure!(checked && bad(said, code).is_empty(), "{code} is not gone: {said:#}");
    Ok(())
}

fn expect_fixed(said: &Value, code: &str) -> anyhow::Result<()> {
    let fixed = said["fixed"].as_array().into_iter().flatten();
    let done = fixed.filter(|fixed| fixed["code"] == code && fixed["error"].is_null()).count();
    ensure!(done > 0, "{code} was not fixed: {said:#}");
    expect_gone(said, code)
}

/// The balancer's interfaces without their counters.
fn links(rig: &Rig) -> anyhow::Result<String> {
    Ok(rig.on(Role::Balancer, "ip", ["-json", "addr"])?.expect(0)?.out)
}

#[test]
fn an_interface_that_is_down_is_brought_up() -> anyhow::Result<()> {
    let rig = rig()?;
    expect_gone(&doctor(&rig, &["x0"])?, "LB211")?;
    ip(&rig, "link set x0 down")?;
    let before = links(&rig)?;
    let run = rig.lb(["doctor", "x0", "--seconds", "1"])?.expect(2)?;
    run.says(&["PROBLEM", "LB211", "x0: is down", "fix (--fix does it): ip link set dev x0 up"])?;
    ensure!(links(&rig)? == before, "the doctor changed something without --fix");
    expect_fixed(&doctor(&rig, &["x0", "--fix"])?, "LB211")?;
    // A lost carrier is for people.
    ip(&rig, "link set x1 down")?;
    let said = doctor(&rig, &["x0", "--fix"])?;
    expect(&said, "LB211", "no carrier")?;
    ip(&rig, "link set x1 up")?;
    expect_gone(&doctor(&rig, &["x0"])?, "LB211")
}

#[test]
fn a_missing_bpf_file_system_is_mounted() -> anyhow::Result<()> {
    let rig = rig()?;
    let directory = rig.file("bpffs");
    fs::create_dir(&directory)?;
    let directory = directory.to_str().context("UTF-8")?;
    let (lb, fixed) = (binary()?, format!("{directory}.fixed"));
    // A mount namespace of its own: nothing stays mounted.
    let script = format!(
        "L='{} --bpffs {directory} doctor x0 --seconds 1 --output json'; $L; $L --fix > {fixed}; exit 0",
        lb.display()
    );
    let run = rig.on(Role::Balancer, "unshare", ["--mount", "sh", "-c", &script])?.expect(0)?;
    expect(&run.json()?, "LB204", "no BPF file system")?;
    expect_fixed(&serde_json::from_str(&fs::read_to_string(fixed)?)?, "LB204")
}

#[test]
fn another_program_and_whose_it_is() -> anyhow::Result<()> {
    let rig = rig()?;
    // Attached over netlink: nobody holds it.
    rig.lab.attach_stub(Role::Balancer, "x0")?;
    let said = doctor(&rig, &["x0"])?;
    expect(&said, "LB212", "another XDP program: id ")?;
    expect(&said, "LB212", "pass")?;
    ensure!(said.to_string().contains("ip link set dev x0 xdp off"), "{said:#}");
    ip(&rig, "link set x0 xdp off")?;
    ensure!(bad(&doctor(&rig, &["x0"])?, "LB212").is_empty());

    // Attached by a link that a process holds.
    let decap = rig.lb_command(["decap", "x0", "--vip", "203.0.113.20", "--from", "203.0.113.5"]);
    let decap = rig.lab.spawn("decap", &decap)?;
    until("lb decap attached", Duration::from_secs(20), || {
        decap.check_running()?;
        Ok(decap.log_tail(50).contains("decapsulating").then_some(()))
    })?;
    let said = doctor(&rig, &["x0"])?;
    expect(&said, "LB212", "lb_decap")?;
    expect(&said, "LB212", &format!("({})", decap.id()))?;
    decap.signal(Signal::SIGTERM)?;
    decap.wait(Duration::from_secs(10), &Interrupt::never())?;
    ensure!(bad(&doctor(&rig, &["x0"])?, "LB212").is_empty());
    Ok(())
}

#[test]
fn interfaces_that_are_no_good() -> anyhow::Result<()> {
    let rig = rig()?;
    expect(&doctor(&rig, &["nothere"])?, "LB210", "no such interface")?;
    expect(&doctor(&rig, &["lo"])?, "LB210", "no Ethernet address")?;
    expect_gone(&doctor(&rig, &["x0"])?, "LB210")?;
    ip(&rig, "link add br7 type bridge")?;
    ip(&rig, "link set x0 master br7")?;
    expect(&doctor(&rig, &["x0"])?, "LB219", "a port of br7")?;
    ip(&rig, "link set x0 nomaster")?;
    ensure!(bad(&doctor(&rig, &["x0"])?, "LB219").is_empty());
    Ok(())
}

#[test]
fn backends_that_cannot_be_reached() -> anyhow::Result<()> {
    let rig = rig()?;
    let with = |addresses: &[std::net::Ipv4Addr], forwarding| -> anyhow::Result<Value> {
        let backends = addresses.iter().map(|address| (*address, 1)).collect();
        let service = Service { name: "web", address: VIP_L2, port: 80, forwarding, backends };
        let path = rig.write(&Config::new([service]))?;
        doctor(&rig, &["--config", path.to_str().context("UTF-8")?])
    };
    expect(&with(&[address(1), address(99)], "l2")?, "LB230", "203.0.113.119: no ARP answer")?;
    expect_gone(&with(&[address(1), address(2)], "l2")?, "LB230")?;
    ip(&rig, "route add unreachable 192.0.2.77")?;
    expect(&with(&[[192, 0, 2, 77].into()], "ipip")?, "LB231", "192.0.2.77: no way")?;
    ip(&rig, "route del unreachable 192.0.2.77")?;
    expect(&with(&[[203, 0, 113, 5].into()], "ipip")?, "LB236", "203.0.113.5")?;
    ip(&rig, "route add 192.0.2.77 via 203.0.113.21")?;
    let said = with(&[[192, 0, 2, 77].into()], "ipip")?;
    ensure!(bad(&said, "LB231").is_empty() && bad(&said, "LB230").is_empty(), "{said:#}");
    Ok(())
}

#[test]
fn packets_that_leave_where_nothing_is_attached() -> anyhow::Result<()> {
    let rig = rig()?;
    let on = |interfaces: &str| -> anyhow::Result<Value> {
        let yaml = Config::l2(&[(1, 1)]).yaml().replace("[{name: eth0, mode: auto}]", interfaces);
        let path = rig.write_text(&yaml)?;
        doctor(&rig, &["--config", path.to_str().context("UTF-8")?])
    };
    expect(&on("[{name: x0}]")?, "LB232", "\"eth0\"")?;
    expect_gone(&on("[{name: x0}, {name: eth0}]")?, "LB232")
}

#[test]
fn a_tunnel_that_clients_packets_do_not_fit() -> anyhow::Result<()> {
    let rig = rig()?;
    let path = rig.write(&Config::new([Service::web(VIP_IPIP, "ipip", &[(1, 1), (2, 1)])]))?;
    let path = path.to_str().context("UTF-8")?;
    ip(&rig, "link set eth0 mtu 1500")?;
    let said = doctor(&rig, &["--config", path])?;
    expect(
        &said,
        "LB233",
        "MTU 1500 less 20 bytes of headers leaves client packets of 1480 bytes; up to 1500 may come",
    )?;
    ensure!(said.to_string().contains("MTU of 1520 or more"), "{said:#}");
    ip(&rig, "link set eth0 mtu 1600")?;
    expect_gone(&doctor(&rig, &["--config", path])?, "LB233")
}

#[test]
fn a_strict_reverse_path_filter_is_loosened() -> anyhow::Result<()> {
    let rig = rig()?;
    let setting = "/proc/sys/net/ipv4/conf/x0/rp_filter";
    let filter = |rig: &Rig| -> anyhow::Result<String> {
        Ok(rig.on(Role::Balancer, "cat", [setting])?.expect(0)?.out.trim().to_owned())
    };
    let yaml =
        Config::l2(&[(1, 1)]).yaml().replace("[{name: eth0, mode: auto}]", "[{name: eth0}, {name: x0}]");
    let path = rig.write_text(&yaml)?;
    let path = path.to_str().context("UTF-8")?;
    expect_gone(&doctor(&rig, &["--config", path])?, "LB234")?;
    rig.on(Role::Balancer, "sysctl", ["-qw", "net.ipv4.conf.x0.rp_filter=1"])?.expect(0)?;
    expect(&doctor(&rig, &["--config", path])?, "LB234", "\"x0\"")?;
    ensure!(filter(&rig)? == "1", "changed without --fix");
    expect_fixed(&doctor(&rig, &["--config", path, "--fix"])?, "LB234")?;
    ensure!(filter(&rig)? == "2");
    Ok(())
}

/// The running data plane is looked at without a config: whose program it is, and in which mode.
#[test]
fn what_is_attached_is_known() -> anyhow::Result<()> {
    let rig = rig()?;
    let attach = |mode| -> anyhow::Result<Value> {
        let path = rig.write(&Config { mode, ..Config::l2(&[(1, 1)]) })?.display().to_string();
        rig.lb(["attach", "eth0", "--config", &path])?.expect(0)?;
        doctor(&rig, &[])
    };
    let said = attach("generic")?;
    expect(&said, "LB218", "generic mode")?;
    expect_gone(&said, "LB230")?;
    rig.detach()?;
    let said = attach("native")?;
    ensure!(bad(&said, "LB218").is_empty(), "{said:#}");
    expect_gone(&said, "LB212")?;
    rig.detach()?;
    rig.expect_nothing()
}

/// Settings that a namespace does not have, in files of the test's own.
#[test]
fn settings_of_the_whole_machine() -> anyhow::Result<()> {
    let rig = rig()?;
    let root = rig.file("root");
    let clocks = "sys/devices/system/clocksource/clocksource0";
    let write = |path: &str, text: &str| -> anyhow::Result<()> {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
        Ok(fs::write(path, text)?)
    };
    for (path, text) in [
        ("proc/sys/kernel/osrelease", "6.1.0"),
        ("proc/sys/net/core/bpf_jit_enable", "0"),
        ("proc/sys/net/core/bpf_jit_harden", "2"),
        ("proc/self/status", "CapEff:\t0000000000000000"),
        (&format!("{clocks}/current_clocksource"), "hpet"),
        (&format!("{clocks}/available_clocksource"), "hpet tsc"),
        ("proc/sys/net/netfilter/nf_conntrack_count", "65000"),
        ("proc/sys/net/netfilter/nf_conntrack_max", "65536"),
    ] {
        write(path, text)?;
    }
    let look = |more: &[&str]| -> anyhow::Result<Value> {
        let root = root.to_str().context("UTF-8")?;
        doctor(&rig, &[&["x0", "--root", root], more].concat())
    };
    let said = look(&[])?;
    for (code, words) in [
        ("LB202", "interpreted"),
        ("LB203", "bpf_jit_harden is 2"),
        ("LB205", "CAP_BPF"),
        ("LB207", "hpet"),
        ("LB235", "65000 of 65536"),
    ] {
        expect(&said, code, words)?;
    }
    let fixed = look(&["--fix"])?;
    expect_fixed(&fixed, "LB202")?;
    expect_fixed(&fixed, "LB207")?;
    write("proc/sys/net/netfilter/nf_conntrack_count", "0")?;
    write("proc/self/status", "CapEff:\t000001ffffffffff")?;
    write("proc/sys/net/core/bpf_jit_harden", "1")?;
    let said = look(&[])?;
    expect_gone(&said, "LB235")?;
    expect_gone(&said, "LB205")?;
    ensure!(bad(&said, "LB203").is_empty(), "{said:#}");
    write("proc/sys/kernel/osrelease", "5.15.0-91-generic")?;
    expect(&look(&[])?, "LB200", "5.15.0-91-generic")
}

#[test]
fn each_code_is_explained() -> anyhow::Result<()> {
    let rig = Rig::new(1, 1)?;
    for code in ["LB200", "LB204", "LB212", "LB220", "LB233", "LB235"] {
        let explained: Run = rig.lb(["explain", code])?.expect(0)?;
        explained.says(&[code, "fix:"])?;
    }
    Ok(())
}
