//! What kernels and drivers really say.

use super::*;

fn code(kernel: &str, errno: i32, facts: &Facts) -> &'static str {
    Refusal::explain(facts, Mode::Native, kernel.into(), Some(errno)).code
}

/// Messages as kernels 6.1 to 6.18 print them.
#[test]
fn kernels_words_are_understood() {
    let plain = Facts { interface: "eth0".into(), mtu: 1500, ..Facts::default() };
    let jumbo = Facts { mtu: 9000, ..plain.clone() };
    let occupied = Facts { foreign_program: Some(7), ..plain.clone() };
    let veth = Facts { driver: Some("veth".into()), ..plain.clone() };
    let unsupported = "Operation not supported (os error 95)";
    let cases = [
        ("LB011", "virtio_net: MTU too large to enable XDP without frags.", 22, &plain),
        ("LB011", "veth: Peer MTU is too large to set XDP.", 34, &plain),
        ("LB011", "Numerical result out of range (os error 34)", 34, &plain),
        ("LB012", "veth: XDP expects number of rx queues not less than peer tx queues.", 22, &plain),
        ("LB012", "No space left on device (os error 28)", 28, &veth),
        ("LB014", "virtio_net: Can't set XDP while host is implementing GRO_HW/CSUM", 95, &plain),
        ("LB010", "Device or resource busy (os error 16)", 16, &plain),
        ("LB010", "Device or resource busy (os error 16)", 16, &occupied),
        ("LB011", unsupported, 95, &jumbo),
        ("LB017", unsupported, 95, &plain),
        ("LB015", "Operation not permitted (os error 1)", 1, &plain),
        ("LB018", "Input/output error (os error 5)", 5, &plain),
    ];
    for (wanted, kernel, errno, facts) in cases {
        assert_eq!(code(kernel, errno, facts), wanted, "{kernel}");
    }
}

#[test]
fn a_refusal_says_what_where_why_and_what_to_do() {
    let facts = Facts { interface: "eth0".into(), driver: Some("ena".into()), mtu: 1500, ..Facts::default() };
    let refusal = Refusal::explain(&facts, Mode::Native, "no room for XDP queues".into(), Some(12));
    let expected = "LB013 attach refused: eth0 (ena), native
  kernel: no room for XDP queues
  cause:  the driver has no transmit queues left for XDP (certain)
  fix:    ethtool -L eth0 combined N   with fewer channels; or mode: generic";
    assert_eq!(refusal.to_string(), expected);
}

/// Facts about an interface of this driver.
fn of(driver: &str, mtu: u32) -> Facts {
    Facts { interface: "eth0".into(), driver: Some(driver.into()), mtu, foreign_program: None }
}

/// Words from the drivers' sources, with numbers filled in, and what the remedy must name.
#[test]
fn drivers_words_are_understood() {
    let cases = [
        (
            "virtio_net",
            "LB014",
            "Can't set XDP while host is implementing GRO_HW, disable GRO_HW first",
            95,
            "ctrl_guest_offloads=on",
        ),
        (
            "virtio_net",
            "LB014",
            "Can't set XDP while host is implementing LRO/CSUM, disable LRO/CSUM first",
            95,
            "rx-gro-hw off",
        ),
        ("virtio_net", "LB011", "virtio_net: MTU too large to enable XDP", 22, "Linux 6.3"),
        (
            "virtio_net",
            "LB017",
            "XDP expects header/data in single page, any_header_sg required",
            22,
            "machine type",
        ),
        ("veth", "LB011", "veth: Peer MTU is too large to set XDP", 34, "PEER mtu 1500"),
        (
            "veth",
            "LB012",
            "veth: XDP expects number of rx queues not less than peer tx queues",
            28,
            "PEER tx N",
        ),
        (
            "ice",
            "LB011",
            "ice: MTU is too large for linear frames and XDP prog does not support frags",
            95,
            "mtu 1500",
        ),
        ("ice", "LB013", "ice: Not enough Tx resources for XDP", 12, "fewer channels"),
        ("ice", "LB017", "ice: XDP can be loaded only on PF or SF VSI", 22, "physical function"),
        ("ice", "LB017", "Please provide working DDP firmware package in order to use XDP", 95, "firmware"),
        (
            "i40e",
            "LB011",
            "i40e: MTU too large for linear frames and XDP prog does not support frags",
            22,
            "mtu 1500",
        ),
        ("ixgbe", "LB017", "Invalid argument (os error 22)", 22, "sriov_numvfs"),
        ("ixgbe", "LB013", "Cannot allocate memory (os error 12)", 12, "generic"),
        ("mlx5_core", "LB014", "can't set XDP while HW-GRO/LRO is on, disable them first", 22, "lro off"),
        ("mlx5_core", "LB014", "can't set XDP while LRO is on, disable LRO first", 22, "lro off"),
        (
            "mlx5_core",
            "LB011",
            "MTU(9000) > 3498, too big for an XDP program not aware of multi buffer",
            22,
            "mtu 3498",
        ),
        (
            "ena",
            "LB011",
            "Failed to set xdp program, the current MTU is larger than the maximum allowed MTU.",
            22,
            "mtu 3498",
        ),
        (
            "ena",
            "LB013",
            "Failed to set xdp program, the Rx/Tx channel count should be at most half of the maximum",
            22,
            "half of the maximum",
        ),
        (
            "bnxt_en",
            "LB013",
            "ethtool rx/tx channels must be combined to support XDP.",
            95,
            "combined N rx 0 tx 0",
        ),
        ("bnxt_en", "LB014", "XDP is disallowed when HDS is enabled.", 95, "tcp-data-split off"),
        ("bnxt_en", "LB013", "Unable to reserve enough TX rings to support XDP.", 12, "fewer channels"),
        ("bnxt_en", "LB011", "MTU 9000 larger than 3500 without XDP frag support.", 95, "mtu 1500"),
        ("hv_netvsc", "LB014", "XDP: not support LRO", 95, "lro off"),
        ("bond", "LB017", "No native XDP support for the current bonding mode", 95, "balance-xor"),
        ("bond", "LB017", "Operation not supported (os error 95)", 95, "layer3+4"),
        (
            "vlan",
            "LB017",
            "Underlying driver does not support XDP in native mode",
            95,
            "interface under eth0",
        ),
    ];
    for (driver, code, kernel, errno, remedy) in cases {
        let refusal = Refusal::explain(&of(driver, 9001), Mode::Native, kernel.into(), Some(errno));
        assert_eq!(refusal.code, code, "{driver}: {kernel}");
        assert!(refusal.fix.contains(remedy), "{driver}: {kernel}: {}", refusal.fix);
        assert!(!format!("{refusal}").contains(['{', '}']), "{refusal}");
    }
}

/// Each row is reachable: none stands behind a wider one.
#[test]
fn no_row_hides_another() {
    for (index, row) in ROWS.iter().enumerate() {
        let text = row.words.join(" ");
        let driver = row.drivers.first().copied();
        let first = ROWS.iter().position(|other| other.fits(driver, &text, row.errno));
        assert_eq!(first, Some(index), "{:?} {:?}", row.drivers, row.words);
    }
}

#[test]
fn a_kernel_that_would_crash_is_not_asked() {
    let refused = |driver: &str, now, most, cpus| {
        Refusal::of_virtio_queues(&of(driver, 1500), now, most, cpus).map(|refusal| refusal.code)
    };
    assert_eq!(refused("virtio_net", 4, 4, 2), Some("LB013"));
    assert_eq!(refused("virtio_net", 4, 5, 2), Some("LB013"));
    assert_eq!(refused("virtio_net", 4, 6, 2), None, "one more for each");
    assert_eq!(refused("virtio_net", 2, 2, 2), None, "shared by all, under a lock");
    assert_eq!(refused("virtio_net", 1, 1, 8), None);
    assert_eq!(refused("veth", 4, 4, 2), None);
}
