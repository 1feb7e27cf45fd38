//! Gratuitous ARP: telling the segment who answers for addresses this host does not own.

use std::net::IpAddr;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::super::error::Error;
use super::super::{BROADCAST, Mac};
use super::packet::{announcements, frame};
use super::socket::ArpSocket;

/// How often everything is said: frames get lost, and a port that just came up may not forward yet.
const ROUNDS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(200);

/// Announces `addresses` as being at `mac` on the interface: three times, 200 ms apart, each time as request
/// and as reply. The frames' Ethernet source is `mac`, so that switches learn it too.
pub async fn announce(ifindex: u32, mac: Mac, addresses: &[IpAddr]) -> Result<(), Error> {
    let socket = ArpSocket::open(ifindex)?;
    let mut ticks = interval(PAUSE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for _ in 0..ROUNDS {
        ticks.tick().await;
        for &address in addresses {
            let IpAddr::V4(v4) = address else { continue };
            for packet in announcements(mac, v4) {
                socket.send(&frame(&packet, BROADCAST)).map_err(|source| Error::Announce {
                    ifindex,
                    address,
                    source,
                })?;
            }
        }
    }
    Ok(())
}
