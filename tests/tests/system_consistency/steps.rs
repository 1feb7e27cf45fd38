//! After whichever single step of a plan the process dies that carries it out.
//!
//! A process that is killed leaves what its steps have done, and its successor knows nothing but the maps. So here every
//! successor opens the pinned maps anew, and remembers nothing.

use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, ensure};
use lb_tests::system::{Crowd, Many, Rig, Wish, inside};
use lb_userspace::config;
use lb_userspace::daemon::{Instance, Machine, assemble, next_hops};
use lb_userspace::dataplane::{DataPlane, KernelPlane, monotonic_ns};
use lb_userspace::health::fleet::Uses;
use lb_userspace::lab::Role;
use lb_userspace::netlink::{links, resolve};
use lb_userspace::reconcile::{Desired, History, Memo, Step, plan};

/// How far a process got.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// All was done, in so many steps.
    Done(usize),
    /// It died before this one.
    Died(String),
}

/// What a config means on the balancer.
fn desired(config: &Many) -> anyhow::Result<Desired> {
    let model = config::parse("steps.yaml", &config.yaml())?.model;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("runtime")?;
    runtime.block_on(async {
        let resolutions = resolve(next_hops(&model), Duration::from_secs(2)).await?;
        let links = links().await?;
        let attached = links.by_name("eth0").context("no eth0")?;
        let machine = Machine { links: &links, resolutions: &resolutions };
        Ok(assemble(&model, &[attached], machine, &Uses::new()).desired)
    })
}

/// A step as those that a process can die between: stores of slots are many.
fn halves(step: Step) -> Vec<Step> {
    let Step::WriteSlots { start, words } = step else { return vec![step] };
    let half = words.len() / 2;
    let keep = |first: bool| {
        let word = |(index, word): (usize, &_)| if (index < half) == first { *word } else { None };
        words.iter().enumerate().map(word).collect()
    };
    vec![Step::WriteSlots { start, words: keep(true) }, Step::WriteSlots { start, words: keep(false) }]
}

/// A process that brings the data plane to a config and dies after so many steps.
fn process(rig: &Rig, config: &Many, life: usize) -> anyhow::Result<End> {
    let work = || -> anyhow::Result<End> {
        let run = Path::new("/run/lb");
        let instance = Instance::current(Path::new("/sys/fs/bpf"), run, run)?;
        let _lock = instance.pins.lock()?;
        let (mut plane, mut desired) = (KernelPlane::open(&instance.pins)?, desired(config)?);
        let (mut memo, mut history, mut done) = (Memo::default(), History::default(), 0);
        loop {
            let observed = plane.observe()?;
            desired.generation = observed.control.generation;
            let plan = plan(&observed, &desired, &mut memo, &history)
                .map_err(|errors| anyhow::anyhow!("{errors:?}"))?;
            for step in plan.steps.iter().cloned().flat_map(halves) {
                if done == life {
                    return Ok(End::Died(step.to_string()));
                }
                plane.execute(&step)?;
                done += 1;
            }
            history.note(&observed, &plan);
            match plan.due_ns {
                Some(due_ns) => sleep(Duration::from_nanos(due_ns.saturating_sub(monotonic_ns()))),
                None if plan.steps.is_empty() => return Ok(End::Done(done)),
                None => {}
            }
        }
    };
    inside(&rig.lab.netns(Role::Balancer), work)?
}

#[test]
fn nothing_breaks_after_whichever_step_a_process_dies() -> anyhow::Result<()> {
    let before = Many::new(&[(1, 1), (2, 1), (3, 1)]);
    let after = Many::new(&[(1, 3), (2, 1), (3, 1), (4, 2)]).drain(3);
    let crowd = Crowd::unattended(4, &before, Wish::default())?;
    let mut died = 0;
    for life in 1.. {
        let end = process(&crowd.rig, &after, life)?;
        crowd.load.note(&format!("{life} steps forward: {end:?}"));
        crowd.load.watch(Duration::from_millis(300))?;
        if matches!(end, End::Done(_)) {
            break;
        }
        died += 1;
        ensure!(life < 100, "no end");
        // Back as far as the same number of steps leads: the next one finds a half-made state of either.
        let end = process(&crowd.rig, &Many { backends: with_b4(&before), ..before.clone() }, life)?;
        crowd.load.note(&format!("{life} steps back: {end:?}"));
        crowd.load.watch(Duration::from_millis(300))?;
    }
    println!("died {died} times");
    ensure!(died > 5, "a change has {died} steps only");
    crowd.rig.write_text(&after.yaml())?;
    crowd.rig.run(&[])?;
    crowd.wait_settled()?;
    crowd.finish().map(drop)
}

/// The backends with b4 as one that gets little: what has left altogether is another test's.
fn with_b4(config: &Many) -> Vec<(u8, u16)> {
    config.backends.iter().copied().map(|(number, _)| (number, 9)).chain([(4, 1)]).collect()
}
