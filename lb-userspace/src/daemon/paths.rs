//! What routers say of the ways to tunnelled backends: the largest packet that gets there (path MTU discovery, RFC 1191,
//! RFC 8201). The kernel does not learn it from packets that it has not sent. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::reconcile::Desired;

/// For so long is believed what was learnt: a better way would not be noticed otherwise (RFC 1191 section 6.3).
const BELIEVED: Duration = Duration::from_secs(600);
/// The least that is believed, in bytes: anybody can forge such a message (Linux: `net.ipv4.route.min_pmtu`; RFC 8200
/// section 5).
const LEAST_V4: u32 = 552;
const LEAST_V6: u32 = 1280;

/// Path MTUs by backend, outer header included.
#[derive(Debug, Default)]
pub(super) struct PathMtus(BTreeMap<IpAddr, (u32, Instant)>);

impl PathMtus {
    /// Somebody says that no more than `mtu` bytes fit; whether that is news.
    pub(super) fn learn(&mut self, backend: IpAddr, mtu: u32, now: Instant) -> bool {
        let mtu = mtu.max(if backend.is_ipv4() { LEAST_V4 } else { LEAST_V6 });
        let before = self.0.get(&backend).map(|(known, _)| *known);
        if before.is_some_and(|known| known < mtu) {
            return false;
        }
        self.0.insert(backend, (mtu, now));
        before != Some(mtu)
    }

    /// Forgets what is too old; whether anything was.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        let before = self.0.len();
        self.0.retain(|_, (_, at)| now.saturating_duration_since(*at) < BELIEVED);
        self.0.len() != before
    }

    /// Lowers the MTUs of tunnels. What is not tunnelled goes no way that has routers.
    pub(super) fn limit(&self, desired: &mut Desired) {
        let backends = desired.services.iter_mut().flat_map(|service| &mut service.backends);
        for backend in backends.filter(|backend| backend.tunnel.is_some()) {
            if let (Some(hop), Some((mtu, _))) = (&mut backend.next_hop, self.0.get(&backend.address)) {
                hop.mtu = hop.mtu.min(*mtu);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 9));
    const V6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9));

    fn known(paths: &PathMtus, backend: IpAddr) -> Option<u32> {
        paths.0.get(&backend).map(|(mtu, _)| *mtu)
    }

    #[test]
    fn the_smallest_counts_for_ten_minutes() {
        let (mut paths, start) = (PathMtus::default(), Instant::now());
        assert!(paths.learn(V4, 1400, start));
        assert!(!paths.learn(V4, 1450, start), "another way of several");
        assert!(paths.learn(V4, 1300, start + BELIEVED / 2));
        assert!(!paths.learn(V4, 1300, start + BELIEVED / 2), "nothing new");
        assert!(!paths.expire(start + BELIEVED));
        assert_eq!(known(&paths, V4), Some(1300));
        assert!(paths.expire(start + BELIEVED * 3 / 2));
        assert_eq!(known(&paths, V4), None);
    }

    #[test]
    fn absurd_values_are_not_believed() {
        let (mut paths, start) = (PathMtus::default(), Instant::now());
        for (backend, least) in [(V4, 552), (V6, 1280)] {
            assert!(paths.learn(backend, 68, start));
            assert_eq!(known(&paths, backend), Some(least));
        }
    }
}
