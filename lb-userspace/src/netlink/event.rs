//! The kernel's notifications: which exist for us, and what each one means. Decides nothing about them.

use std::pin::Pin;

use futures_util::{Stream, StreamExt, future};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::sys::socket::{setsockopt, sockopt};
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::sys::AsyncSocket;
use tokio::task::JoinSet;

use super::error::Error;
use super::neighbours::Neighbour;
use super::nexthop::Hop;

const GROUPS: [MulticastGroup; 6] = [
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv6Route,
];

/// Bytes of notifications the kernel may hold for us; its default of about 200 KB overflows when a routing
/// daemon loads a table.
const RECEIVE_BUFFER_BYTES: usize = 1 << 20;

/// What a notification means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// A neighbour entry is now this; `None`: gone, or without anything to say.
    Neighbour(Hop, Option<Neighbour>),
    /// This interface was deleted: sockets bound to it are dead, even if its index is used again.
    LinkGone(u32),
    /// Links, addresses or routes changed, or notifications were lost: everything has to be read anew.
    Everything,
}

/// The stream of notifications.
pub(super) struct Events {
    changes: Pin<Box<dyn Stream<Item = Change> + Send>>,
    _connection: JoinSet<()>,
}

impl Events {
    /// Subscribes; must be called inside a tokio runtime.
    pub(super) fn subscribe() -> Result<Self, Error> {
        let (mut connection, _, messages) =
            rtnetlink::new_multicast_connection(&GROUPS).map_err(Error::Open)?;
        let socket = connection.socket_mut().socket_mut();
        // A smaller buffer only means more resynchronisations.
        if let Err(error) = setsockopt(socket, sockopt::RcvBufForce, &RECEIVE_BUFFER_BYTES) {
            tracing::debug!(%error, "netlink receive buffer stays at its default");
        }
        let mut tasks = JoinSet::new();
        tasks.spawn(connection);
        let changes = messages.filter_map(|(message, _)| future::ready(change(&message.payload)));
        Ok(Self { changes: Box::pin(changes), _connection: tasks })
    }

    /// The next change; `None` when the socket is broken. Safe to cancel.
    pub(super) async fn next(&mut self) -> Option<Change> {
        self.changes.next().await
    }
}

fn change(payload: &NetlinkPayload<RouteNetlinkMessage>) -> Option<Change> {
    let message = match payload {
        NetlinkPayload::InnerMessage(message) => message,
        NetlinkPayload::Overrun(_) => return Some(Change::Everything),
        _ => return None,
    };
    match message {
        RouteNetlinkMessage::NewNeighbour(entry) => {
            Neighbour::from_message(entry).map(|(hop, neighbour)| Change::Neighbour(hop, neighbour))
        }
        RouteNetlinkMessage::DelNeighbour(entry) => {
            Neighbour::from_message(entry).map(|(hop, _)| Change::Neighbour(hop, None))
        }
        // A bridge tells of its ports in the same group, under its own family.
        RouteNetlinkMessage::NewLink(link) if link.header.interface_family == AddressFamily::Unspec => {
            Some(Change::Everything)
        }
        RouteNetlinkMessage::DelLink(link) if link.header.interface_family == AddressFamily::Unspec => {
            Some(Change::LinkGone(link.header.index))
        }
        RouteNetlinkMessage::NewAddress(_)
        | RouteNetlinkMessage::DelAddress(_)
        | RouteNetlinkMessage::NewRoute(_)
        | RouteNetlinkMessage::DelRoute(_) => Some(Change::Everything),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_route::link::LinkMessage;

    fn deleted(family: AddressFamily) -> Option<Change> {
        let mut link = LinkMessage::default();
        link.header.index = 5;
        link.header.interface_family = family;
        change(&NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link)))
    }

    #[test]
    fn a_port_leaving_its_bridge_is_no_deleted_link() {
        assert_eq!(deleted(AddressFamily::Unspec), Some(Change::LinkGone(5)));
        assert_eq!(deleted(AddressFamily::Bridge), None);
    }

    #[test]
    fn an_overrun_asks_for_everything() {
        assert_eq!(change(&NetlinkPayload::Overrun(Vec::new())), Some(Change::Everything));
    }
}
