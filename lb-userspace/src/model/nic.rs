//! How an interface shall be set: only what is named is changed.

/// Settings of an interface; `None`: left as they are.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct InterfaceSettings {
    /// Largest layer-3 packet, in bytes.
    pub mtu: Option<u32>,
    /// How many queues.
    pub queues: Option<QueueCount>,
    /// Which queues get how much.
    pub rss: Option<Spread>,
    /// What the NIC's hash of UDP packets covers.
    pub udp_hash: Option<UdpHash>,
    /// Whether both directions of a connection get to the same queue.
    pub symmetric: Option<Toggle>,
    /// Sizes of the descriptor rings.
    pub rings: Option<RingSizes>,
    /// How long interrupts wait.
    pub coalesce: Option<Waiting>,
    /// Which CPUs work on a receive queue's packets.
    pub rps: Option<Steering>,
    /// Which CPUs send through which queue.
    pub xps: Option<Steering>,
    /// Which CPUs interrupts are delivered to; never `Off`.
    pub irq_affinity: Option<Steering>,
    /// What to do about offloads that native XDP does not get on with; never `Off`.
    pub offloads: Option<Steering>,
    /// What was changed stays when the program is detached.
    pub keep: bool,
}

/// A number of queues.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum QueueCount {
    /// One for each CPU near the interface, as far as driver and XDP allow.
    Auto,
    /// This many.
    Exactly(u32),
}

/// How received packets are spread over queues.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Spread {
    /// Over all, each the same.
    Equal,
    /// By these weights, first queue first; not all of them 0.
    Weights(Vec<u32>),
    /// Over these queues, each the same; at least one.
    Queues(Vec<u32>),
}

/// Header fields in the NIC's hash of UDP packets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum UdpHash {
    /// Addresses only: fragments stay with their flow.
    Addresses,
    /// Addresses and ports: flows between the same hosts are spread.
    Ports,
}

/// Something that is on or off.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Toggle {
    /// On.
    On,
    /// Off.
    Off,
}

/// Sizes of descriptor rings; `None`: left as it is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct RingSizes {
    /// Receiving, in descriptors.
    pub rx: Option<u32>,
    /// Sending, in descriptors.
    pub tx: Option<u32>,
}

/// How long interrupts wait for more packets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Waiting {
    /// As the driver sees fit.
    Adaptive,
    /// This long; `None`: left as it is.
    Fixed {
        /// When receiving, in microseconds.
        rx_usecs: Option<u32>,
        /// When sending, in microseconds.
        tx_usecs: Option<u32>,
    },
}

/// Whether something is arranged by `lb`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Steering {
    /// By what the machine is like.
    Auto,
    /// Switched off.
    Off,
}

impl InterfaceSettings {
    /// Whether nothing is to be set.
    pub fn is_empty(&self) -> bool {
        *self == Self { keep: self.keep, ..Self::default() }
    }
}
