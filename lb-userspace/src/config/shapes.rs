//! Which keys each section of a config may have. What is written under them is `schema`'s.

use super::decode::Shape;

pub(super) static CONFIG: Shape = Shape {
    what: "the config",
    keys: &[
        "version",
        "interfaces",
        "vips",
        "services",
        "pools",
        "limits",
        "cluster",
        "on_change",
        "defaults",
    ],
    later: &["include"],
};

pub(super) static VIP: Shape =
    Shape { what: "a vip", keys: &["address", "advertise", "echo", "other_ports"], later: &[] };

pub(super) static SERVICE: Shape = Shape {
    what: "a service",
    keys: &[
        "name",
        "address",
        "addresses",
        "protocol",
        "protocols",
        "port",
        "ports",
        "quic",
        "allow",
        "deny",
        "rate_limit",
        "algorithm",
        "tracking",
        "idle",
        "affinity",
        "max_unsettled",
        "on_remove",
        "drain_deadline",
        "slow_start",
        "ring_size",
        "pool",
        "forwarding",
        "backends",
        "health_check",
        "health",
        "agent_check",
        "all_down",
        "max_failed",
        "min_active",
    ],
    later: &["nat"],
};

pub(super) static POOL: Shape = Shape {
    what: "a pool",
    keys: &[
        "name",
        "forwarding",
        "backends",
        "health_check",
        "health",
        "agent_check",
        "on_remove",
        "drain_deadline",
        "slow_start",
    ],
    later: &["nat"],
};

pub(super) static BACKEND: Shape = Shape {
    what: "a backend",
    keys: &[
        "name",
        "address",
        "weight",
        "drain",
        "mac",
        "interface",
        "vlan",
        "server_id",
        "forwarding",
        "group",
        "backup",
        "health_check",
    ],
    later: &["port", "nat"],
};

pub(super) static LIMITS: Shape = Shape {
    what: "`limits`",
    keys: &[
        "ring_slots",
        "services",
        "backends",
        "flows",
        "udp_flows",
        "affinity",
        "receiving_cpus",
        "probes",
    ],
    later: &[],
};

pub(super) static DEFAULTS: Shape = Shape {
    what: "`defaults`",
    keys: &[
        "health_check",
        "health",
        "algorithm",
        "tracking",
        "idle",
        "affinity",
        "max_unsettled",
        "on_remove",
        "drain_deadline",
        "slow_start",
    ],
    later: &[],
};

pub(super) static CLUSTER: Shape = Shape { what: "`cluster`", keys: &["key_file"], later: &[] };
