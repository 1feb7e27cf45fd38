//! `lb decap`: the backend's side of a tunnel.

mod args;

use std::process::ExitCode;
use std::time::Duration;

use lb_common::abi::VerdictKind;
use lb_common::wire::{ipv4, ipv6, shim};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::interval;

pub(super) use args::DecapArgs;

use super::error::Failure;
use crate::dataplane::{Decap, DecapLists, Facts, Mode, Mss};
use crate::model::Prefix;
use crate::netlink::{Link, links};
use args::Clamp;

/// How often the counters and the interface are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// A TCP header without options, in bytes.
const TCP_LEN: u32 = 20;
/// The least MSS that the kernel works with (`TCP_MIN_MSS`, include/net/tcp.h).
const LEAST_MSS: u16 = 88;

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

/// Bytes that a tunnel adds at most: the outer header of the sources' larger family, and GUE's with UDP's, which is more
/// than GRE's. The balancer's GUE has no optional fields.
fn overhead(sources: &[Prefix], gue_port: u16) -> u32 {
    let is_v6 = sources.iter().any(|prefix| prefix.network.is_ipv6());
    let outer = if is_v6 { ipv6::LEN } else { ipv4::LEN };
    let shim = if gue_port == 0 { shim::GRE_LEN } else { shim::UDP_LEN + shim::GUE_LEN };
    (outer + shim) as u32
}

/// What fits a packet of this size in a tunnel, for each inner family.
fn fitting(mtu: u32, overhead: u32) -> Option<Mss> {
    let of = |header: usize| {
        let left = mtu.checked_sub(overhead + header as u32 + TCP_LEN)?;
        let left = u16::try_from(left).unwrap_or(u16::MAX);
        (left >= LEAST_MSS).then_some(left)
    };
    Some(Mss { v4: of(ipv4::LEN)?, v6: of(ipv6::LEN)? })
}

/// The largest MSS, where one is asked for.
fn mss(args: &DecapArgs, link: &Link) -> Result<Option<Mss>, Failure> {
    match args.clamp_mss {
        None => Ok(None),
        Some(Clamp::To(value)) => Ok(Some(Mss { v4: value, v6: value })),
        Some(Clamp::Auto) => {
            let too_small =
                || Failure::bad_input(format!("{}: no TCP fits an MTU of {}", link.name, link.mtu));
            fitting(link.mtu, overhead(&args.from, args.gue_port)).map(Some).ok_or_else(too_small)
        }
    }
}

fn attach(args: &DecapArgs, link: &Link) -> Result<Decap, Failure> {
    let mac = link.mac.ok_or_else(|| Failure::bad_input(format!("{} has no Ethernet address", link.name)))?;
    let lists = DecapLists { mac, gue_port: args.gue_port, vips: &args.vip, sources: &args.from };
    let mut decap = Decap::load(&lists)?;
    // Before tunnels are accepted, so that the first answer is clamped too.
    if let Some(mss) = mss(args, link)? {
        let own = std::slice::from_ref(&args.interface);
        let interfaces = if args.clamp_on.is_empty() { own } else { &args.clamp_on };
        decap.clamp(interfaces, mss)?;
        tracing::info!(?interfaces, "MSS at most {} with IPv4, {} with IPv6", mss.v4, mss.v6);
    }
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
    let vips: Vec<String> = args.vip.iter().map(Prefix::to_string).collect();
    tracing::info!(interface = args.interface, vips = vips.join(" "), "decapsulating");
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
                    Ok(now) if now.mtu != attached_to.mtu => {
                        follow_mtu(args, &now, &mut decap);
                        attached_to = now;
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
    if args.clamp_mss.is_some() {
        for (reason, segments) in decap.clamp_counters()? {
            tracing::info!("{:>12} {:<20} {}", segments, reason.name(), reason.explanation());
        }
    }
    Ok(())
}

/// What fits the tunnel follows the interface's MTU, without attaching anew.
fn follow_mtu(args: &DecapArgs, link: &Link, decap: &mut Decap) {
    let changed = match mss(args, link) {
        Ok(None) => return,
        Ok(Some(mss)) => decap.set_mss(mss).map(|()| mss).map_err(Failure::from),
        Err(failure) => Err(failure),
    };
    match changed {
        Ok(mss) => tracing::info!("MTU {}: MSS at most {} with IPv4, {} with IPv6", link.mtu, mss.v4, mss.v6),
        Err(error) => tracing::error!(%error, "the largest MSS stays as it was"),
    }
}

/// Says when packets have been refused since the last look: someone injects, or a list is wrong.
fn report_refused(decap: &Decap, reported: u64) -> Result<u64, Failure> {
    let refused: Vec<_> = decap
        .counters()?
        .into_iter()
        .filter(|(reason, packets)| *packets > 0 && reason.verdict() == VerdictKind::Drop)
        .collect();
    let total = refused.iter().map(|(_, packets)| packets).sum();
    if total > reported {
        let words: Vec<String> = refused.iter().map(|(reason, n)| format!("{} {n}", reason.name())).collect();
        tracing::warn!(total, "tunnel packets refused: {}", words.join(", "));
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    #[test]
    fn what_fits_depends_on_the_largest_tunnel_that_is_accepted() {
        let v4 = Prefix::host(Ipv4Addr::new(192, 0, 2, 1).into());
        let v6 = Prefix::host(Ipv6Addr::LOCALHOST.into());
        assert_eq!(overhead(&[v4], 0), 24, "GRE");
        assert_eq!(overhead(&[v4], 6080), 32, "UDP and GUE");
        assert_eq!(overhead(&[v4, v6], 0), 44);
        assert_eq!(overhead(&[v6], 6080), 52);
        assert_eq!(fitting(1500, 32), Some(Mss { v4: 1428, v6: 1408 }));
        assert_eq!(fitting(1500, 52), Some(Mss { v4: 1408, v6: 1388 }));
        assert_eq!(fitting(65536, 24), Some(Mss { v4: 65472, v6: 65452 }));
        assert_eq!(fitting(200, 52), Some(Mss { v4: 108, v6: 88 }));
        assert_eq!(fitting(199, 52), None);
        assert_eq!(fitting(0, 52), None);
    }
}
