//! What kernels and drivers say when they refuse an XDP program, what it means, and what helps. Data only; the first row
//! that fits counts. Words are those of the drivers' `ndo_bpf` (extack or log) in Linux 5.18 to 6.18.

use super::libc_errno::{EINVAL, ENOMEM, ENOSPC, EOPNOTSUPP, ERANGE};

/// A refusal that is known. In `cause` and `fix`, `{name}` stands for the interface and `{mtu}` for its MTU.
pub(super) struct Row {
    /// Drivers or kinds that say it; none: any.
    pub(super) drivers: &'static [&'static str],
    /// All of these are in the kernel's words, in lower case.
    pub(super) words: &'static [&'static str],
    /// The error number; `None`: any. A row without words applies where the kernel gave none.
    pub(super) errno: Option<i32>,
    pub(super) code: &'static str,
    pub(super) cause: &'static str,
    pub(super) fix: &'static str,
}

const fn said(
    words: &'static [&'static str],
    code: &'static str,
    cause: &'static str,
    fix: &'static str,
) -> Row {
    Row { drivers: &[], words, errno: None, code, cause, fix }
}

const fn by(drivers: &'static [&'static str], row: Row) -> Row {
    Row { drivers, ..row }
}

const fn silent(
    drivers: &'static [&'static str],
    errno: i32,
    code: &'static str,
    cause: &'static str,
    fix: &'static str,
) -> Row {
    Row { drivers, words: &[], errno: Some(errno), code, cause, fix }
}

const SMALLER_MTU: &str = "ip link set dev {name} mtu 1500; or mode: generic (slower)";
const OTHER_MODE: &str = "`lb doctor {name}` says whose it is; `ip link set dev {name} xdpgeneric off` (or xdpdrv off) takes it away";

pub(super) const ROWS: &[Row] = &[
    // The stack itself (net/core/dev.c).
    said(
        &["native and generic xdp can't be active"],
        "LB010",
        "a program is attached in the other mode (certain)",
        OTHER_MODE,
    ),
    said(&["already attached"], "LB010", "another XDP program is attached (certain)", OTHER_MODE),
    said(
        &["can't replace active bpf xdp link"],
        "LB010",
        "another program is attached by a link (certain)",
        "`lb doctor {name}` says whose it is; end the process that holds the link",
    ),
    by(
        &["vlan"],
        said(
            &["does not support xdp in native mode"],
            "LB017",
            "VLAN devices have no native XDP (certain)",
            "attach to the interface under {name}: lb reads and writes tags itself; or mode: generic",
        ),
    ),
    said(
        &["does not support xdp in native mode"],
        "LB017",
        "the driver has no native XDP (certain)",
        "mode: generic (slower); or another NIC",
    ),
    // bond
    by(
        &["bond"],
        said(
            &["bonding mode"],
            "LB017",
            "this bond's mode has no native XDP (certain)",
            "mode balance-rr, active-backup, balance-xor or 802.3ad, without xmit_hash_policy vlan+srcmac; or mode: generic",
        ),
    ),
    by(
        &["bond"],
        said(
            &["does not support xdp"],
            "LB017",
            "a port of the bond has no native XDP (certain)",
            "take that port out, or mode: generic",
        ),
    ),
    silent(
        &["bond"],
        EOPNOTSUPP,
        "LB017",
        "the bond's mode or xmit_hash_policy has no native XDP, or a port's driver (likely)",
        "xmit_hash_policy layer3+4; or attach to the ports; or mode: generic",
    ),
    // virtio_net
    said(
        &["while host is implementing"],
        "LB014",
        "the hypervisor merges segments, and the guest may not switch that off (certain)",
        "ethtool -K {name} rx-gro-hw off; where that is [fixed], start the guest with ctrl_guest_offloads=on, or guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_ufo=off,guest_csum=off; or mode: generic",
    ),
    said(
        &["any_header_sg"],
        "LB017",
        "the hypervisor's virtio device is too old for XDP (certain)",
        "a newer machine type; or mode: generic",
    ),
    by(
        &["virtio_net"],
        said(
            &["mtu too large to enable xdp"],
            "LB011",
            "the MTU of {mtu} is too large for native XDP in this kernel's virtio_net: before 6.3 about 4060 at most (certain)",
            "ip link set dev {name} mtu 1500; or Linux 6.3 and later, which take 9000; or mode: generic (slower)",
        ),
    ),
    // veth
    said(
        &["rx queues", "peer tx queues"],
        "LB012",
        "a veth with XDP needs at least as many receive queues as its peer has transmit queues (certain)",
        "ethtool -L {name} rx N   (N = the peer's transmit queues), or fewer at the peer: ethtool -L PEER tx N",
    ),
    silent(
        &["veth"],
        ENOSPC,
        "LB012",
        "a veth with XDP needs at least as many receive queues as its peer has transmit queues (certain)",
        "ethtool -L {name} rx N   (N = the peer's transmit queues), or fewer at the peer: ethtool -L PEER tx N",
    ),
    said(
        &["peer mtu is too large"],
        "LB011",
        "the MTU of the veth's peer is too large for native XDP (certain)",
        "ip link set dev PEER mtu 1500, in the peer's namespace; or mode: generic (slower)",
    ),
    // ena
    by(
        &["ena"],
        said(
            &["current mtu"],
            "LB011",
            "the MTU of {mtu} is too large: ena takes 3498 at most with XDP, and AWS sets 9001 (certain)",
            "ip link set dev {name} mtu 3498; or mode: generic (slower)",
        ),
    ),
    by(
        &["ena"],
        said(
            &["channel count"],
            "LB013",
            "ena needs a second transmit queue for each channel: at most half of the channels may be in use (certain)",
            "ethtool -L {name} combined N   (half of the maximum that `ethtool -l {name}` shows)",
        ),
    ),
    // ice, i40e, ixgbe
    by(
        &["ice"],
        said(
            &["ddp firmware"],
            "LB017",
            "the NIC runs in safe mode, without its DDP package (certain)",
            "install the ice firmware (linux-firmware, firmware-intel-misc), then reload the driver",
        ),
    ),
    by(
        &["ice"],
        said(
            &["only on pf"],
            "LB017",
            "ice has XDP on physical functions only (certain)",
            "attach to the physical function; or mode: generic",
        ),
    ),
    by(
        &["ice", "i40e", "ixgbe"],
        said(
            &["tx resources"],
            "LB013",
            "not enough transmit queues: XDP wants one for each CPU (certain)",
            "ethtool -L {name} combined N   with fewer channels, or fewer VFs; or mode: generic",
        ),
    ),
    said(
        &["does not support frags"],
        "LB011",
        "the MTU of {mtu} is too large for this driver without multi-buffer XDP (certain)",
        SMALLER_MTU,
    ),
    silent(
        &["ixgbe"],
        EINVAL,
        "LB017",
        "ixgbe refuses XDP with SR-IOV or DCB on, and with an MTU over about 3 KB (likely)",
        "echo 0 > /sys/class/net/{name}/device/sriov_numvfs; ip link set dev {name} mtu 1500; or mode: generic",
    ),
    silent(
        &["ixgbe"],
        ENOMEM,
        "LB013",
        "more CPUs than ixgbe has transmit queues for XDP (likely)",
        "mode: generic, or fewer CPUs",
    ),
    // mlx5
    said(
        &["hw-gro/lro is on"],
        "LB014",
        "receive offloads merge packets before XDP sees them (certain)",
        "ethtool -K {name} lro off rx-gro-hw off",
    ),
    by(
        &["mlx5_core"],
        said(
            &["mtu("],
            "LB011",
            "the MTU of {mtu} is too large for native XDP with this driver's receive queues (certain)",
            "ip link set dev {name} mtu 3498; or a kernel of 5.19 or later, whose mlx5 takes multi-buffer programs; or mode: generic (slower)",
        ),
    ),
    // bnxt_en
    said(
        &["must be combined"],
        "LB013",
        "the driver wants channels that receive and transmit (certain)",
        "ethtool -L {name} combined N rx 0 tx 0",
    ),
    said(
        &["hds is enabled"],
        "LB014",
        "header-data split is on: XDP would see headers only (certain)",
        "ethtool -G {name} tcp-data-split off",
    ),
    said(
        &["enough tx rings"],
        "LB013",
        "the driver has no transmit queues left for XDP (certain)",
        "ethtool -L {name} combined N   with fewer channels; or mode: generic",
    ),
    // Others
    said(
        &["jumbo frames not supported"],
        "LB011",
        "the MTU of {mtu} is too large for native XDP on this driver (certain)",
        SMALLER_MTU,
    ),
    said(
        &["mtu"],
        "LB011",
        "the MTU of {mtu} (or its peer's) is too large for native XDP on this driver (certain)",
        SMALLER_MTU,
    ),
    silent(
        &[],
        ERANGE,
        "LB011",
        "the MTU of {mtu} (or its peer's) is too large for native XDP on this driver (certain)",
        SMALLER_MTU,
    ),
    said(
        &["channel"],
        "LB013",
        "the driver has no transmit queues left for XDP (certain)",
        "ethtool -L {name} combined N   with fewer channels; or mode: generic",
    ),
    said(
        &["queue"],
        "LB013",
        "the driver has no transmit queues left for XDP (certain)",
        "ethtool -L {name} combined N   with fewer channels; or mode: generic",
    ),
    said(
        &["lro"],
        "LB014",
        "receive offloads merge packets before XDP sees them (certain)",
        "ethtool -K {name} lro off rx-gro-hw off",
    ),
    said(
        &["gro"],
        "LB014",
        "receive offloads merge packets before XDP sees them (certain)",
        "ethtool -K {name} lro off rx-gro-hw off",
    ),
];
