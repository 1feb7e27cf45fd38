//! What passes a port of the lab's switch: tcpdump's file, read by etherparse, which knows nothing of the balancer.
//!
//! Looked at on the switch, because a program on the machine itself sees a packet before a capture there does.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use lb_userspace::lab::{Interrupt, Process, Role};
use nix::sys::signal::Signal;

use super::{Rig, until};

/// A running tcpdump.
#[derive(Debug)]
pub struct Capture {
    process: Process,
    file: PathBuf,
}

/// The outermost headers of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Source and destination address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Protocol number behind the IP header and its extensions.
    pub protocol: u8,
    /// Ports, if it is UDP or TCP and no later fragment.
    pub ports: Option<(u16, u16)>,
    /// Length of the IP packet in bytes.
    pub length: usize,
    /// What is behind the UDP header; empty for others.
    pub datagram: Vec<u8>,
}

impl Capture {
    /// Starts it at a port of the switch (`b1`, `lb`, `router`), for what matches `filter`.
    pub fn start(rig: &Rig, port: &str, filter: &str) -> anyhow::Result<Self> {
        let file = rig.file(&format!("{port}.pcap"));
        let mut tcpdump = rig.lab.command(Role::Fabric, "tcpdump");
        tcpdump.args(["-Z", "root", "-U", "-n", "--immediate-mode", "-Q", "out", "-i", port, "-w"]);
        let process = rig.lab.spawn(&format!("tcpdump-{port}"), tcpdump.arg(&file).arg(filter))?;
        until("tcpdump listening", Duration::from_secs(5), || {
            process.check_running()?;
            Ok(process.log_tail(5).contains("listening on").then_some(()))
        })?;
        Ok(Self { process, file })
    }

    /// Ends it; what it saw.
    pub fn finish(self) -> anyhow::Result<Vec<Seen>> {
        // What was sent just now may still be on its way to the file.
        std::thread::sleep(Duration::from_millis(100));
        self.process.signal(Signal::SIGINT)?;
        self.process.wait(Duration::from_secs(5), &Interrupt::never())?;
        let bytes = fs::read(&self.file).context("reading tcpdump's file")?;
        ensure!(bytes.len() >= 24, "tcpdump wrote no file header");
        let mut rest = &bytes[24..];
        let mut seen = Vec::new();
        while let Some((header, after)) = rest.split_at_checked(16) {
            let length = u32::from_le_bytes([header[8], header[9], header[10], header[11]]) as usize;
            let (frame, after) = after.split_at_checked(length).context("tcpdump's file is cut off")?;
            seen.extend(look(frame)?);
            rest = after;
        }
        Ok(seen)
    }
}

/// The headers of a frame; none if it is not IP.
fn look(frame: &[u8]) -> anyhow::Result<Option<Seen>> {
    let packet = SlicedPacket::from_ethernet(frame).with_context(|| format!("odd frame {frame:02x?}"))?;
    let (source, destination, protocol, length) = match &packet.net {
        Some(NetSlice::Ipv4(ip)) => {
            let header = ip.header();
            let addresses = (header.source_addr().into(), header.destination_addr().into());
            (addresses.0, addresses.1, ip.payload_ip_number().0, usize::from(header.total_len()))
        }
        Some(NetSlice::Ipv6(ip)) => {
            let header = ip.header();
            let addresses = (header.source_addr().into(), header.destination_addr().into());
            (addresses.0, addresses.1, ip.payload().ip_number.0, usize::from(header.payload_length()) + 40)
        }
        _ => return Ok(None),
    };
    let (ports, datagram) = match &packet.transport {
        Some(TransportSlice::Udp(udp)) => {
            (Some((udp.source_port(), udp.destination_port())), udp.payload().to_vec())
        }
        Some(TransportSlice::Tcp(tcp)) => (Some((tcp.source_port(), tcp.destination_port())), Vec::new()),
        _ => (None, Vec::new()),
    };
    Ok(Some(Seen { source, destination, protocol, ports, length, datagram }))
}
