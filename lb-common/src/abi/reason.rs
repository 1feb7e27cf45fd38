//! Why a packet was treated as it was: the number is the counter's index, the name its label.

/// Counters per service and per program: room for this many reasons.
pub const REASON_SLOTS: u32 = 64;

/// What a reason's packets experience.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum VerdictKind {
    /// Left to the host's network stack, untouched.
    Pass,
    /// Dropped.
    Drop,
    /// Sent out.
    Transmit,
}

impl VerdictKind {
    /// `pass`, `drop` or `tx`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Drop => "drop",
            Self::Transmit => "tx",
        }
    }
}

/// Declares a dense, append-only enum of reasons with names, verdicts and explanations.
macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $number:literal, $verdict:ident, $label:literal, $help:literal;)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        #[repr(u32)]
        pub enum $name {
            $(#[doc = $help] $variant = $number,)+
        }

        impl $name {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Label of the counter.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $label),+ }
            }

            /// What happens to such packets.
            pub const fn verdict(self) -> VerdictKind {
                match self { $(Self::$variant => VerdictKind::$verdict),+ }
            }

            /// What it means, in a sentence.
            pub const fn explanation(self) -> &'static str {
                match self { $(Self::$variant => $help),+ }
            }
        }
    };
}

reasons! {
    /// Outcomes of the balancer other than a forwarded packet (those are counted per backend).
    Reason {
        NotIpv4 = 0, Pass, "not_ipv4", "Neither IPv4 nor an ARP request for a service address.";
        OtherMac = 1, Pass, "other_mac", "Not addressed to this interface's MAC address (flooded or multicast).";
        OtherProtocol = 2, Pass, "other_protocol", "IPv4, but neither TCP nor UDP.";
        NotAService = 3, Pass, "not_a_service", "TCP or UDP for an address and port that is no service's.";
        Malformed = 4, Drop, "malformed", "Addressed to a service address (other_ports: drop), but lengths or header fields contradict each other.";
        Fragment = 5, Drop, "fragment", "A fragment for a service address (other_ports: drop): without ports it has no flow.";
        OtherPort = 6, Drop, "other_port", "For a service address, but a port that no service has (other_ports: drop).";
        NoBackend = 7, Drop, "no_backend", "The service has no backend in the flow's slot.";
        NoNextHop = 8, Drop, "no_next_hop", "The backend's next hop (route or MAC address) is not known.";
        TooBig = 9, Drop, "too_big", "The packet, encapsulated, does not fit the MTU of the egress interface.";
        NoHeadroom = 10, Drop, "no_headroom", "The driver left no room in front of the packet for the outer header.";
        ArpAnswered = 11, Transmit, "arp_answered", "An ARP request for a service address, answered.";
        MalformedElsewhere = 12, Pass, "malformed_elsewhere", "Malformed IPv4 that is not for a service address.";
        ProbeReply = 13, Transmit, "probe_reply", "The answer to a health probe through a service's path, brought to the prober.";
        ProbeSent = 14, Transmit, "probe_sent", "A health probe, sent to its backend through the service's path.";
        StrayProbe = 15, Drop, "stray_probe", "From the prober's namespace, but no probe that is under way.";
    }
}

reasons! {
    /// Outcomes of the decapsulator.
    DecapReason {
        Decapsulated = 0, Pass, "decapsulated", "Outer header stripped, inner packet passed up.";
        NotATunnel = 1, Pass, "not_a_tunnel", "Not an IPIP packet.";
        OtherMac = 2, Pass, "other_mac", "Not addressed to this interface's MAC address.";
        Malformed = 3, Drop, "malformed", "Lengths or header fields contradict each other.";
        ForeignSource = 4, Drop, "foreign_source", "The outer source is in no --from prefix.";
        ForeignDestination = 5, Drop, "foreign_destination", "The inner destination is no --vip address.";
        OuterFragment = 6, Drop, "outer_fragment", "A fragment of a tunnel packet: raise the MTU between balancer and backend.";
    }
}
