//! Probes by a datagram and its answer. Must not know what is in them.

use std::time::Duration;

use tokio::time;

use super::answer::Needle;
use super::dial::Dial;
use super::failure::{Failure, excerpt};
use super::progress::{Progress, Stage};
use super::{Prober, Probing};
use crate::model::Exchange;

/// How long a probe waits for a refusal where silence passes: long enough for "port unreachable" from within a site.
const REFUSAL: Duration = Duration::from_millis(200);

/// The largest datagram there is (RFC 768: a length of 16 bits).
const LARGEST: usize = 65_535;

/// Sends a datagram, an empty one if nothing else is given. With something to expect, the first answer must contain
/// it. Without, any answer passes, and silence too, which is known only when the waiting is over: after 200 ms, or the
/// probe's timeout if that is shorter. Only a refusal (ICMP port unreachable) or another ICMP error fails then.
pub(super) struct Datagram {
    send: Vec<u8>,
    expect: Option<Needle>,
}

impl Datagram {
    pub(super) fn new(exchange: &Exchange) -> Self {
        let send = exchange.send.clone().unwrap_or_default();
        Self { send, expect: exchange.expect.clone().map(Needle::new) }
    }

    async fn exchange(&self, dial: &Dial, progress: &Progress) -> Result<(), Failure> {
        let socket = dial.udp()?;
        progress.at(Stage::Send);
        socket.send(&self.send).await.map_err(|e| Failure::from_datagram(&e, Stage::Send))?;
        let Some(needle) = &self.expect else {
            progress.at(Stage::Silence);
            return match time::timeout(REFUSAL, socket.recv(&mut [0])).await {
                Ok(Err(error)) => Err(Failure::from_datagram(&error, Stage::Answer)),
                Ok(Ok(_)) | Err(_) => Ok(()),
            };
        };
        progress.at(Stage::Answer);
        let mut buffer = vec![0; LARGEST];
        let length = socket.recv(&mut buffer).await;
        let length = length.map_err(|e| Failure::from_datagram(&e, Stage::Answer))?;
        let answer = buffer.get(..length).unwrap_or_default();
        match needle.is_in(answer) {
            true => Ok(()),
            false => Err(Failure::Unexpected { wanted: needle.missing(), got: excerpt(answer) }),
        }
    }
}

impl Prober for Datagram {
    fn probe<'a>(&'a self, dial: &'a Dial, progress: &'a Progress) -> Probing<'a> {
        Box::pin(self.exchange(dial, progress))
    }
}
