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
        NotIp = 0, Pass, "not_ip", "Neither IP nor a question for a service address's MAC address.";
        OtherMac = 1, Pass, "other_mac", "Not addressed to this interface's MAC address (flooded or multicast).";
        OtherProtocol = 2, Pass, "other_protocol", "IP, but nothing that a service takes, such as ICMP for the host.";
        NotAService = 3, Pass, "not_a_service", "TCP, UDP or SCTP for an address and port that is no service's.";
        Malformed = 4, Drop, "malformed", "Addressed to a service address (other_ports: drop), but lengths or header fields contradict each other.";
        Fragment = 5, Drop, "fragment", "A fragment for a service address that cannot be placed: a later one without its first, or one of a ping.";
        OtherPort = 6, Drop, "other_port", "For a service address, but a port that no service has (other_ports: drop).";
        NoBackend = 7, Drop, "no_backend", "The service has no backend in the flow's slot.";
        NoNextHop = 8, Drop, "no_next_hop", "The backend's next hop (route or MAC address) is not known.";
        TooBig = 9, Drop, "too_big", "The packet, encapsulated, does not fit the MTU of the way out, and its sender has been told often enough, or cannot be.";
        NoHeadroom = 10, Drop, "no_headroom", "The driver left no room in front of the packet for the headers.";
        ArpAnswered = 11, Transmit, "arp_answered", "An ARP request for a service address, answered.";
        MalformedElsewhere = 12, Pass, "malformed_elsewhere", "Malformed IP that is not for a service address.";
        ProbeReply = 13, Transmit, "probe_reply", "The answer to a health probe through a service's path, brought to the prober.";
        ProbeSent = 14, Transmit, "probe_sent", "A health probe, sent to its backend through the service's path.";
        StrayProbe = 15, Drop, "stray_probe", "From the prober's namespace, but no probe that is under way.";
        NdpAnswered = 16, Transmit, "ndp_answered", "A neighbour solicitation for a service address, answered.";
        EchoAnswered = 17, Transmit, "echo_answered", "An echo request (ping) to a service address, answered.";
        EchoLimited = 18, Drop, "echo_limited", "An echo request beyond the rate at which a service address answers.";
        IcmpForwarded = 19, Transmit, "icmp_forwarded", "An ICMP error about a service's flow, sent to the backend that owns the flow.";
        IcmpElsewhere = 20, Pass, "icmp_elsewhere", "An ICMP error to a service address about a packet that is no service's.";
        TooBigAnswered = 21, Transmit, "too_big_answered", "Too big for the way to the backend: the sender was told the MTU that fits (ICMP).";
        Denied = 22, Drop, "denied", "The source is not admitted by the service's allow and deny lists.";
        SourceFlowLimit = 23, Drop, "source_flow_limit", "More new flows from the source prefix than rate_limit.per_source allows.";
        SourcePacketLimit = 24, Drop, "source_packet_limit", "More packets from the source prefix than rate_limit.per_source allows.";
        FlowLimit = 25, Drop, "flow_limit", "More new flows than the service's rate_limit allows.";
        PacketLimit = 26, Drop, "packet_limit", "More packets than the service's rate_limit allows.";
        LongHeaders = 27, Drop, "long_headers", "For a service address (other_ports: drop), with more IPv6 extension headers than are looked through.";
        NoStage = 28, Pass, "no_stage", "The program for rare packets is not in place: left to the host.";
        NoEgress = 29, Drop, "no_egress", "The interface that the backend is behind takes no redirected packets.";
        FlowAtRisk = 30, Transmit, "flow_at_risk", "A packet of a flow that nobody has recorded, though all that live are, in a slot that is about to settle or of a service that records all flows: sent to the slot's owner before. If the flow lives, it was silent for longer than the service's idle time, or its record was pushed out (limits.flows), and it may have moved.";
        FlowNotRecorded = 31, Transmit, "flow_not_recorded", "A flow table took no record of a flow, which may move when its slot settles.";
    }
}

impl Reason {
    /// Whether such packets are also counted for a backend: the reason says something about their flow. Counted per
    /// service, like drops.
    pub const fn is_note(self) -> bool {
        matches!(self, Self::FlowAtRisk | Self::FlowNotRecorded)
    }
}

reasons! {
    /// Outcomes of the decapsulator.
    DecapReason {
        Decapsulated = 0, Pass, "decapsulated", "Outer header stripped, inner packet passed up.";
        NotATunnel = 1, Pass, "not_a_tunnel", "Neither IP in IP, nor GRE, nor UDP to the GUE port.";
        OtherMac = 2, Pass, "other_mac", "Not addressed to this interface's MAC address.";
        Malformed = 3, Drop, "malformed", "Lengths or header fields contradict each other.";
        ForeignSource = 4, Drop, "foreign_source", "The outer source is in no --from prefix.";
        ForeignDestination = 5, Drop, "foreign_destination", "The inner destination is no --vip address.";
        OuterFragment = 6, Drop, "outer_fragment", "A fragment of a tunnel packet: raise the MTU between balancer and backend.";
        OuterChecksum = 7, Drop, "outer_checksum", "The outer IPv4 header's checksum is wrong.";
        OtherHeader = 8, Drop, "other_header", "GRE or GUE of a kind that no balancer sends: GRE with optional fields, a GUE control message, or no IP packet in it.";
        Congested = 9, Drop, "congested", "Marked as congested on the way through the tunnel, but the inner packet's sender does not know such marks (RFC 6040).";
    }
}

reasons! {
    /// What became of the SYN segments that leave from a decapsulator's service addresses.
    ClampReason {
        Lowered = 0, Pass, "mss_lowered", "The MSS option was lowered to what fits the tunnel.";
        LowEnough = 1, Pass, "mss_low_enough", "The MSS option was not larger than what fits the tunnel.";
        NoOption = 2, Pass, "mss_absent", "There was no MSS option: the other end assumes 536 bytes, with IPv6 1220.";
        NotWritten = 3, Pass, "mss_not_written", "The kernel could not change the segment, which went as it was.";
    }
}
