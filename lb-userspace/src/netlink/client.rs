//! Questions to the kernel over a netlink socket of its own. Must not keep anything between questions.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::pin::pin;

use futures_util::{Stream, TryStreamExt};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::link::LinkExtentMask;
use rtnetlink::{Handle, LinkUnspec};
use tokio::task::JoinSet;

use super::error::{Error, RouteError};
use super::links::Snapshot;
use super::neighbours::{Neighbour, Neighbours};
use super::route::{self, Route};
use super::statistics::{self, Statistics};

/// A netlink socket in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Netlink {
    handle: Handle,
    _connection: JoinSet<()>,
}

/// The interfaces of the current network namespace, now.
pub async fn links() -> Result<Snapshot, Error> {
    Netlink::open()?.links().await
}

impl Netlink {
    /// Opens it; must be called inside a tokio runtime.
    pub fn open() -> Result<Self, Error> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(Error::Open)?;
        let mut tasks = JoinSet::new();
        tasks.spawn(connection);
        Ok(Self { handle, _connection: tasks })
    }

    /// What requests are made with.
    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// All interfaces with their addresses.
    pub async fn links(&self) -> Result<Snapshot, Error> {
        let mask = vec![LinkExtentMask::SkipStats];
        let links = self.handle.link().get().set_filter_mask(AddressFamily::Unspec, mask).execute();
        let links = list("interfaces", links).await?;
        let addresses = list("addresses", self.handle.address().get().execute()).await?;
        Ok(Snapshot::new(&links, &addresses))
    }

    /// What all interfaces have counted, by their index.
    pub async fn statistics(&self) -> Result<BTreeMap<u32, Statistics>, Error> {
        let links = list("counters of interfaces", self.handle.link().get().execute()).await?;
        Ok(statistics::by_index(&links))
    }

    /// Brings an interface up.
    pub async fn bring_up(&self, ifindex: u32) -> Result<(), Error> {
        let message = LinkUnspec::new_with_index(ifindex).up().build();
        self.handle.link().set(message).execute().await.map_err(|source| Error::BringUp { ifindex, source })
    }

    /// All neighbour entries, of IPv4 and IPv6.
    pub async fn neighbours(&self) -> Result<Neighbours, Error> {
        let mut found = Neighbours::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let request = self.handle.neighbours().get().set_address_family(family);
            let messages = list("neighbours", request.execute()).await?;
            let entries = messages.iter().filter_map(Neighbour::from_message);
            found.extend(entries.filter_map(|(hop, neighbour)| Some((hop, neighbour?))));
        }
        Ok(found)
    }

    /// The way to `address`, through the interface `oif` where one is named. For IPv4 a named interface counts as
    /// having the address on link when no route through it matches (the kernel's own rule).
    pub async fn route_to(&self, address: IpAddr, oif: Option<u32>) -> Result<Route, RouteError> {
        let mut answers = pin!(self.handle.route().get(route::question(address, oif)).execute());
        match answers.try_next().await {
            Ok(Some(message)) => route::answer(address, &message),
            Ok(None) => Err(RouteError::NoInterface(address)),
            Err(source) => Err(route::refusal(address, source)),
        }
    }
}

pub(super) async fn list<T>(
    table: &'static str,
    messages: impl Stream<Item = Result<T, rtnetlink::Error>>,
) -> Result<Vec<T>, Error> {
    messages.try_collect().await.map_err(|source| Error::List { table, source })
}
