//! Multicast groups of interfaces: neighbours ask for an IPv6 address in its solicited-node group, and a NIC lets only
//! those groups in that somebody has joined. The host joins them for its own addresses; for service addresses, which it
//! does not have, we do. Unlike a socket's, this membership outlives the process, as forwarding does.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;

use lb_common::wire::ndp::{multicast_mac, solicited_node};
use nix::errno::Errno;
use nix::libc;
use nix::net::if_::if_indextoname;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::Mac;
use super::error::Error;

/// Index of an interface, and the MAC address of a group.
pub type Membership = (u32, Mac);

/// The kernel's `struct ifreq` (include/uapi/linux/if.h) with a hardware address.
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    address: libc::sockaddr,
    padding: [u8; 8],
}

const _: () = assert!(size_of::<Request>() == size_of::<libc::ifreq>());

nix::ioctl_write_ptr_bad!(siocaddmulti, 0x8931, Request);
nix::ioctl_write_ptr_bad!(siocdelmulti, 0x8932, Request);

/// The groups in which neighbours ask for these addresses on these interfaces (RFC 4861 section 7.2.2); IPv4 has none.
pub fn groups(addresses: impl IntoIterator<Item = (IpAddr, u32)>) -> BTreeSet<Membership> {
    let group = |(address, ifindex)| match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(address) => Some((ifindex, multicast_mac(solicited_node(address.octets())))),
    };
    addresses.into_iter().filter_map(group).collect()
}

/// Leaves those of `ours` that are not wanted, and joins the wanted ones that nobody is in; which are ours then, and what
/// failed.
pub fn keep(
    ours: &BTreeSet<Membership>,
    wanted: &BTreeSet<Membership>,
) -> (BTreeSet<Membership>, Vec<Error>) {
    let mut failures: Vec<Error> = ours.difference(wanted).filter_map(|group| leave(*group).err()).collect();
    let mut kept: BTreeSet<Membership> = ours.intersection(wanted).copied().collect();
    let mut fresh = wanted.difference(ours).peekable();
    if fresh.peek().is_none() {
        return (kept, failures);
    }
    // What others have joined is theirs to leave.
    let theirs = joined().unwrap_or_else(|error| {
        failures.push(error);
        BTreeSet::new()
    });
    for group in fresh.filter(|group| !theirs.contains(group)) {
        match join(*group) {
            Ok(()) => {
                kept.insert(*group);
            }
            Err(error) => failures.push(error),
        }
    }
    (kept, failures)
}

/// Groups that somebody has joined this way, us or others, in the namespace of the calling thread. The kernel does not
/// count: who leaves one leaves it for all (net/core/dev_addr_lists.c, `global_use`).
fn joined() -> Result<BTreeSet<Membership>, Error> {
    let text = std::fs::read_to_string("/proc/thread-self/net/dev_mcast").map_err(Error::Groups)?;
    Ok(text.lines().filter_map(line).collect())
}

/// Joins a group.
fn join((ifindex, group): Membership) -> Result<(), Error> {
    // SAFETY: the request lives until the call returns, and has the kernel's layout.
    let joined = ask(ifindex, group, |fd, request| unsafe { siocaddmulti(fd, request) });
    joined.map_err(|source| Error::Group { ifindex, source })
}

/// Leaves a group. One that nobody is in, or whose interface is gone, has been left.
pub fn leave((ifindex, group): Membership) -> Result<(), Error> {
    // SAFETY: as in `join`.
    let left = ask(ifindex, group, |fd, request| unsafe { siocdelmulti(fd, request) });
    match left {
        Err(error) if [libc::ENOENT, libc::ENXIO, libc::ENODEV].map(Some).contains(&error.raw_os_error()) => {
            Ok(())
        }
        other => other.map_err(|source| Error::Group { ifindex, source }),
    }
}

/// Index, name, users, whether somebody has joined it by address, address in hexadecimal.
fn line(line: &str) -> Option<Membership> {
    let [ifindex, _, _, "1", address] = line.split_whitespace().collect::<Vec<_>>()[..] else { return None };
    let [.., a, b, c, d, e, f] = u64::from_str_radix(address, 16).ok()?.to_be_bytes();
    Some((ifindex.parse().ok()?, [a, b, c, d, e, f])).filter(|_| address.len() == 12)
}

fn ask(
    ifindex: u32,
    group: Mac,
    call: impl FnOnce(i32, *const Request) -> Result<i32, Errno>,
) -> io::Result<()> {
    let found = if_indextoname(ifindex)?;
    let mut name = [0; libc::IFNAMSIZ];
    name.iter_mut().zip(found.as_bytes()).for_each(|(to, from)| *to = *from);
    let mut data = [0; 14];
    data.iter_mut().zip(group).for_each(|(to, from)| *to = from as libc::c_char);
    let address = libc::sockaddr { sa_family: libc::AF_UNSPEC as libc::sa_family_t, sa_data: data };
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    call(socket.as_raw_fd(), &Request { name, address, padding: [0; 8] })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_joined_by_address_counts() {
        let text = "2    eth0            1     1     3333ff000010\n2    eth0            1     0     333300000001\n\
                    3    ib0             1     1     00ffffffff12401b0000000000000001\n";
        assert_eq!(text.lines().filter_map(line).collect::<Vec<_>>(), [(2, [0x33, 0x33, 0xff, 0, 0, 0x10])]);
    }

    #[test]
    fn addresses_with_the_same_end_share_a_group() {
        let all = ["2001:db8::10", "2001:db8:1::10", "2001:db8::11", "203.0.113.10"];
        let expected =
            BTreeSet::from([(7, [0x33, 0x33, 0xff, 0, 0, 0x10]), (7, [0x33, 0x33, 0xff, 0, 0, 0x11])]);
        assert_eq!(groups(all.map(|address| (address.parse().unwrap(), 7))), expected);
    }
}
