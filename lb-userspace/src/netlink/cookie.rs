//! What tells a network namespace from all others, earlier ones too. Must not know what it is for.

use std::io;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// A number that no other network namespace has had since the machine was started; inode numbers are given again.
pub fn namespace_cookie() -> io::Result<u64> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let mut cookie = 0_u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the descriptor is open, and both pointers are to variables of our own of the sizes that the kernel is told
    // and writes (`SO_NETNS_COOKIE`, net/core/sock.c).
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    Errno::result(result)?;
    Ok(cookie)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_keeps_its_number() {
        let cookie = namespace_cookie().unwrap();
        assert!(cookie > 0);
        assert_eq!(namespace_cookie().unwrap(), cookie);
    }
}
