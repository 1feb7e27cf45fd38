//! A second server segment: the balancer's `eth1` and an `eth1` of each backend on a switch of their own. Requests come in
//! on `eth0` and leave on `eth1`; answers go the usual way.

use std::fmt::Write;
use std::net::Ipv4Addr;

use lb_userspace::lab::Role;

use super::Rig;

/// A backend's address on the second segment.
pub fn second_address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, 20 + number)
}

impl Rig {
    /// Builds it beside the first one.
    pub fn add_second_segment(&self, backends: u8) -> anyhow::Result<()> {
        let mut machines = vec![(Role::Balancer, "lb1".to_owned(), Ipv4Addr::new(192, 0, 2, 5))];
        machines.extend((1..=backends).map(|n| (Role::Backend(n), format!("b{n}x"), second_address(n))));
        let mut switch = "ip link add br1 type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n\
                          ip link set br1 up\n"
            .to_owned();
        for (role, port, _) in &machines {
            let netns = self.lab.netns(*role);
            let (netns, queues) = (netns.name(), "numtxqueues 2 numrxqueues 2");
            let _ = writeln!(
                switch,
                "ip link add {port} mtu 1600 {queues} type veth peer name eth1 netns {netns} mtu 1600 {queues}\n\
                 ethtool -K {port} tx off tso off gso off >/dev/null\n\
                 ip link set {port} master br1 up"
            );
        }
        self.script(Role::Fabric, &switch)?;
        for (role, _, address) in &machines {
            self.script(
                *role,
                &format!(
                    "ethtool -K eth1 tx off tso off gso off >/dev/null\n\
                     ip addr add {address}/24 dev eth1\nip link set eth1 up"
                ),
            )?;
        }
        // What is redirected to the balancer's end arrives at the switch only past a program.
        Ok(self.lab.attach_stub(Role::Fabric, "lb1")?)
    }

    /// Runs a shell script on a machine; any failing line fails it.
    pub fn script(&self, role: Role, script: &str) -> anyhow::Result<()> {
        self.on(role, "sh", ["-euc", script])?.expect(0).map(drop)
    }
}
