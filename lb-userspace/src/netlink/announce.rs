//! Telling the segment who answers for addresses this host does not own: gratuitous ARP and unsolicited neighbour
//! advertisements.

use std::net::IpAddr;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::error::Error;
use super::socket::{FrameSocket, Protocol};
use super::{BROADCAST, Mac, arp, ndp};

/// How often everything is said: frames get lost, and a port that just came up may not forward yet.
const ROUNDS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(200);

/// Announces `addresses` as being at `mac` on the interface: three times, 200 ms apart; IPv4 ones each time as request
/// and as reply. The frames' Ethernet source is `mac`, so that switches learn it too.
pub async fn announce(ifindex: u32, mac: Mac, addresses: &[IpAddr]) -> Result<(), Error> {
    let mut sockets = Vec::new();
    for protocol in [Protocol::Arp, Protocol::Ndp] {
        let own: Vec<IpAddr> = addresses.iter().copied().filter(|a| Protocol::of(*a) == protocol).collect();
        if !own.is_empty() {
            sockets.push((FrameSocket::open(ifindex, protocol)?, own));
        }
    }
    let mut ticks = interval(PAUSE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for _ in 0..ROUNDS {
        ticks.tick().await;
        for (socket, addresses) in &sockets {
            for &address in addresses {
                let sent = say(socket, mac, address);
                sent.map_err(|source| Error::Announce { ifindex, address, source })?;
            }
        }
    }
    Ok(())
}

fn say(socket: &FrameSocket, mac: Mac, address: IpAddr) -> std::io::Result<()> {
    match address {
        IpAddr::V4(address) => {
            let packets = arp::announcements(mac, address);
            packets.iter().try_for_each(|packet| socket.send(&arp::frame(packet, BROADCAST)))
        }
        IpAddr::V6(address) => socket.send(&ndp::announcement(mac, address)),
    }
}
