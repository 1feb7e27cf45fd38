//! Refused attaches: the operator reads the kernel's own words, also where a BPF link gives an error number only.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::thread;

use anyhow::{Context, ensure};
use aya::programs::Xdp;
use lb_tests::system::{Config, Rig, Run};
use lb_userspace::lab::Role;
use lb_userspace::netlink::{XdpMode, refusal};
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, setns};

fn ip(rig: &Rig, line: &str) -> anyhow::Result<()> {
    rig.on(Role::Balancer, "ip", line.split_whitespace())?.expect(0).map(drop)
}

fn attach(rig: &Rig, interface: &'static str) -> anyhow::Result<Run> {
    let config = Config { interface, mode: "native", ..Config::l2(&[(1, 1)]) };
    let path = rig.write(&config)?.display().to_string();
    rig.lb(["attach", interface, "--config", &path])
}

/// A veth with fewer receive queues than its peer has transmit queues; with as many it is taken.
#[test]
fn a_veth_with_too_few_queues() -> anyhow::Result<()> {
    let rig = Rig::new(1, 1)?;
    rig.attaches_to("x0");
    ip(&rig, "link add x0 numrxqueues 1 numtxqueues 1 type veth peer name x1 numrxqueues 1 numtxqueues 4")?;
    ip(&rig, "link set x0 up")?;
    ip(&rig, "link set x1 up")?;
    let words = "veth: XDP expects number of rx queues not less than peer tx queues";
    attach(&rig, "x0")?.expect(1)?.says(&["LB012", words, "(certain)", "PEER tx N"])?;
    rig.expect_nothing()?;
    ip(&rig, "link del x0")?;
    ip(&rig, "link add x0 numrxqueues 4 numtxqueues 1 type veth peer name x1 numrxqueues 1 numtxqueues 4")?;
    ip(&rig, "link set x0 up")?;
    attach(&rig, "x0")?.expect(0)?;
    rig.detach()?;
    rig.expect_nothing()
}

/// A driver without native XDP.
#[test]
fn a_bridge() -> anyhow::Result<()> {
    let rig = Rig::new(1, 1)?;
    ip(&rig, "link add br7 type bridge")?;
    ip(&rig, "link set br7 up")?;
    let words = "Underlying driver does not support XDP in native mode";
    attach(&rig, "br7")?.expect(1)?.says(&["LB017", words, "(certain)", "mode: generic"])?;
    rig.expect_nothing()
}

/// What `lb` asks for words with leaves nothing behind, also where the kernel has nothing against it; and it gets those
/// for a program without multi-buffer support, which ours is not.
#[test]
fn asking_leaves_nothing_attached() -> anyhow::Result<()> {
    let rig = Rig::new(1, 1)?;
    ip(&rig, "link add x0 mtu 1500 type veth peer name x1 mtu 1500")?;
    ip(&rig, "link set x0 up")?;
    let object = fs::read(rig.file("pass.o")).context("the lab's stub")?;
    let name = b"xdp.frags";
    let at = object.windows(name.len()).position(|window| window == name).context("the section's name")?;
    let mut plain = object.clone();
    plain[at + 3] = 0; // "xdp"

    let ask = |object: &[u8]| -> anyhow::Result<Option<String>> {
        let netns = File::open(rig.lab.netns(Role::Balancer).path())?;
        let asked = thread::scope(|scope| {
            let asking = scope.spawn(|| -> anyhow::Result<Option<String>> {
                setns(netns, CloneFlags::CLONE_NEWNET)?;
                let mut loaded = aya::Ebpf::load(object)?;
                let program: &mut Xdp = loaded.program_mut("pass").context("no program")?.try_into()?;
                program.load()?;
                Ok(refusal(program.fd()?.as_fd(), if_nametoindex("x0")?, XdpMode::Native)?)
            });
            asking.join()
        });
        asked.map_err(|_| anyhow::anyhow!("panicked"))?
    };
    ensure!(ask(&plain)?.is_none());
    rig.expect_nothing()?;
    ip(&rig, "link set x1 mtu 9000")?;
    let said = ask(&plain)?.context("a peer's MTU of 9000 was taken without frags")?;
    ensure!(said.contains("Peer MTU is too large to set XDP"), "{said}");
    ensure!(ask(&object)?.is_none(), "with frags it is no matter");
    rig.expect_nothing()
}
