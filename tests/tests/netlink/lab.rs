//! Namespaces around one bridge; gone when dropped. Addresses are from the documentation ranges.

use std::fs::File;
use std::future::Future;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use lb_userspace::netlink::Mac;
use nix::libc;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, SockaddrLike, sendto, socket};

static LABS: AtomicU32 = AtomicU32::new(0);
const HOSTS: [&str; 4] = ["sw", "lb", "b1", "gw"];

/// One bridge (`sw`) and the hosts on it.
pub struct Lab {
    prefix: String,
}

impl Lab {
    pub fn new() -> Self {
        assert!(nix::unistd::Uid::effective().is_root(), "these tests need root");
        let number = LABS.fetch_add(1, Ordering::Relaxed);
        let lab = Self { prefix: format!("h-net-{}-{number}", std::process::id()) };
        lab.namespace("sw");
        ip(&lab.ns("sw"), "link add br0 type bridge mcast_snooping 0");
        ip(&lab.ns("sw"), "link set dev br0 up");
        lab
    }

    /// The namespace of a host.
    pub fn ns(&self, host: &str) -> String {
        format!("{}-{host}", self.prefix)
    }

    /// A new host with `eth0` on the bridge; the bridge's port has the host's name.
    pub fn host(&self, host: &str, address: &str, mac: Mac) {
        let ns = self.ns(host);
        self.namespace(host);
        ip(&ns, "link set dev lo up");
        self.wire(host, address, mac);
    }

    /// Gives a host IPv6 with these addresses, and no others.
    pub fn add_ipv6(&self, host: &str, addresses: &[&str]) {
        let ns = self.ns(host);
        for setting in ["addr_gen_mode=1", "accept_ra=0", "disable_ipv6=0"] {
            output(&ns, &format!("sysctl -qw net.ipv6.conf.eth0.{setting}"));
        }
        for address in addresses {
            ip(&ns, &format!("addr add {address} dev eth0 nodad"));
        }
    }

    /// A counter of the IPv6 packets that came to a host's `eth0`.
    pub fn ipv6_received(&self, host: &str, counter: &str) -> u64 {
        let table = output(&self.ns(host), "cat /proc/net/dev_snmp6/eth0");
        let value = |line: &str| line.strip_prefix(counter)?.trim().parse().ok();
        table.lines().find_map(value).expect(counter)
    }

    pub fn wire(&self, host: &str, address: &str, mac: Mac) {
        self.plug(host, address, mac, "");
    }

    pub fn wire_with_index(&self, host: &str, address: &str, mac: Mac, index: u32) {
        self.plug(host, address, mac, &format!("index {index}"));
    }

    /// Without IPv6, whose interfaces start talking by themselves.
    fn namespace(&self, host: &str) {
        run(&format!("ip netns add {}", self.ns(host)));
        output(&self.ns(host), "sysctl -qw net.ipv6.conf.default.disable_ipv6=1");
    }

    fn plug(&self, host: &str, address: &str, mac: Mac, index: &str) {
        let (sw, ns) = (self.ns("sw"), self.ns(host));
        let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
        ip(&ns, &format!("link add eth0 address {mac} {index} type veth peer name {host} netns {sw}"));
        ip(&sw, &format!("link set dev {host} master br0 up"));
        ip(&ns, &format!("addr add {address} dev eth0"));
        ip(&ns, "link set dev eth0 up");
    }

    /// Frames that came to a host's `eth0`; nothing but ARP is sent in these tests (a snooping bridge would
    /// speak IGMP).
    pub fn arp_received(&self, host: &str) -> u64 {
        let path = "cat /sys/class/net/eth0/statistics/rx_packets";
        output(&self.ns(host), path).trim().parse().unwrap()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for host in HOSTS {
            let name = self.ns(host);
            let _ = Command::new("ip").args(["netns", "del", &name]).stderr(Stdio::null()).status();
        }
    }
}

/// Runs the future on a thread of its own inside the namespace: its runtime has only that thread.
pub fn within(ns: &str, future: impl Future<Output = ()> + Send) {
    std::thread::scope(|scope| {
        let inside = scope.spawn(|| {
            let namespace = File::open(format!("/run/netns/{ns}")).unwrap();
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future);
        });
        if let Err(panic) = inside.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// `ip` inside the namespace.
pub fn ip(ns: &str, arguments: &str) {
    run(&format!("ip -n {ns} {arguments}"));
}

/// `ip -batch` inside the namespace.
pub fn ip_batch(ns: &str, lines: &str) {
    let mut child = Command::new("ip").args(["-n", ns, "-batch", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

/// A command's output inside the namespace.
pub fn output(ns: &str, command: &str) -> String {
    let output = Command::new("ip").args(["netns", "exec", ns]).args(command.split(' ')).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Sends a whole frame out of a host's `eth0`.
pub fn send_frame(ns: &str, frame: &[u8]) {
    within(ns, async {
        let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::empty(), None).unwrap();
        let index = nix::net::if_::if_nametoindex("eth0").unwrap();
        let raw = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: 0,
            sll_ifindex: index.try_into().unwrap(),
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        let len = size_of_val(&raw) as libc::socklen_t;
        // SAFETY: the pointer is to a whole `sockaddr_ll` of our own, alive during the call, which copies it.
        let address = unsafe { LinkAddr::from_raw((&raw const raw).cast(), Some(len)) }.unwrap();
        sendto(socket.as_raw_fd(), frame, &address, MsgFlags::empty()).unwrap();
    });
}

/// Notifications the kernel had no room for.
pub fn netlink_drops(ns: &str) -> u64 {
    let table = output(ns, "cat /proc/net/netlink");
    let drops = |line: &str| line.split_whitespace().nth(8)?.parse::<u64>().ok();
    table.lines().filter_map(drops).sum()
}

/// CPU time of this thread so far.
pub fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(stat.split(' ').next().unwrap().parse().unwrap())
}

fn run(command: &str) {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}
