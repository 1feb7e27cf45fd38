//! What a probe is waiting for, so that its failure can say so. Must not know any protocol.

use std::cell::Cell;

/// What a probe is waiting for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Stage {
    /// The connection.
    #[default]
    Connect,
    /// The TLS handshake.
    Handshake,
    /// Room to send.
    Send,
    /// The first byte of an answer.
    Answer,
    /// The rest of an answer.
    Rest,
    /// The status and header of a response.
    Header,
    /// The body of a response.
    Body,
    /// An ICMP echo reply.
    Echo,
    /// Nothing that has to come: a probe that is still here when its time is over has passed.
    Silence,
}

/// Where a probe notes what it is waiting for.
#[derive(Debug, Default)]
pub struct Progress(Cell<Stage>);

impl Stage {
    /// What is missing when the time is over, in words.
    pub(super) fn missing(self) -> &'static str {
        match self {
            Self::Connect => "no answer to the connection request",
            Self::Handshake => "TLS handshake not complete",
            Self::Send => "request could not be sent",
            Self::Answer | Self::Silence => "no answer",
            Self::Rest => "no complete answer",
            Self::Header => "no complete response header",
            Self::Body => "no complete response body",
            Self::Echo => "no echo reply",
        }
    }

    /// When something happened, in words.
    pub(super) fn when(self) -> &'static str {
        match self {
            Self::Connect => "while connecting",
            Self::Handshake => "during the TLS handshake",
            Self::Send => "while the request was sent",
            Self::Answer | Self::Silence => "before an answer",
            Self::Rest => "before the answer was complete",
            Self::Header => "before the response header was complete",
            Self::Body => "before the response body was complete",
            Self::Echo => "before an echo reply",
        }
    }
}

impl Progress {
    /// Notes what is waited for from here on.
    pub fn at(&self, stage: Stage) {
        self.0.set(stage);
    }

    /// What is being waited for.
    pub fn stage(&self) -> Stage {
        self.0.get()
    }
}
