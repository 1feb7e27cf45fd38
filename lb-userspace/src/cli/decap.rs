//! `lb decap`: the backend's side of a tunnel.

use std::process::ExitCode;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::interval;

use super::args::DecapArgs;
use super::error::Failure;
use crate::dataplane::{Decap, Facts, Mode};
use crate::netlink::{Link, links};

/// How often the counters and the interface are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Runs until SIGTERM or SIGINT; then nothing is attached any more.
pub(super) fn run(args: &DecapArgs) -> Result<ExitCode, Failure> {
    let runtime = Builder::new_current_thread().enable_all().build().map_err(Failure::failed)?;
    runtime.block_on(follow(args))?;
    Ok(ExitCode::SUCCESS)
}

async fn link(name: &str) -> Result<Link, Failure> {
    let links = links().await.map_err(Failure::failed)?;
    let missing = || Failure::bad_input(format!("there is no interface {name} in this network namespace"));
    links.by_name(name).cloned().ok_or_else(missing)
}

fn attach(args: &DecapArgs, link: &Link) -> Result<Decap, Failure> {
    let mac = link.mac.ok_or_else(|| Failure::bad_input(format!("{} has no Ethernet address", link.name)))?;
    let mut decap = Decap::load(mac, &args.vip, &args.from)?;
    let facts = Facts {
        interface: link.name.clone(),
        driver: link.kind.clone(),
        mtu: link.mtu,
        foreign_program: link.xdp.as_ref().map(|xdp| xdp.program_id),
    };
    decap.attach(link.ifindex, &facts, if args.generic { Mode::Generic } else { Mode::Native })?;
    Ok(decap)
}

async fn follow(args: &DecapArgs) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Failure::failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::failed)?;
    let mut attached_to = link(&args.interface).await?;
    let mut decap = attach(args, &attached_to)?;
    tracing::info!(interface = args.interface, vips = ?args.vip, "decapsulating");
    let mut look = interval(LOOK);
    let mut reported = 0;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = look.tick() => {
                match link(&args.interface).await {
                    Ok(now) if (now.mac, now.ifindex) != (attached_to.mac, attached_to.ifindex) => {
                        tracing::warn!(interface = args.interface, "the interface changed: attaching anew");
                        decap.detach();
                        match attach(args, &Link { xdp: None, ..now.clone() }) {
                            Ok(anew) => (decap, attached_to, reported) = (anew, now, 0),
                            Err(error) => tracing::error!(%error, "not attached; trying again"),
                        }
                    }
                    Ok(_) => {}
                    // Gone for a moment, or netlink is busy: what is attached stays.
                    Err(error) => tracing::warn!(%error, "interface not found"),
                }
                reported = report_refused(&decap, reported)?;
            }
        }
    }
    for (reason, packets) in decap.counters()? {
        tracing::info!("{:>12} {:<20} {}", packets, reason.name(), reason.explanation());
    }
    Ok(())
}

/// Says when packets have been refused since the last look: someone injects, or a list is wrong.
fn report_refused(decap: &Decap, reported: u64) -> Result<u64, Failure> {
    let refused: Vec<_> = decap
        .counters()?
        .into_iter()
        .filter(|(reason, packets)| *packets > 0 && reason.verdict() == lb_common::abi::VerdictKind::Drop)
        .collect();
    let total = refused.iter().map(|(_, packets)| packets).sum();
    if total > reported {
        let words: Vec<String> = refused.iter().map(|(reason, n)| format!("{} {n}", reason.name())).collect();
        tracing::warn!(total, "tunnel packets refused: {}", words.join(", "));
    }
    Ok(total)
}
