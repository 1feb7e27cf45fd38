//! Probes by a TCP connection, and by what is said over it. Must not know how the connection is made.

use tokio::io::AsyncWriteExt;

use super::answer::{Answer, Needle};
use super::dial::Dial;
use super::failure::Failure;
use super::progress::{Progress, Stage};
use super::{Prober, Probing};
use crate::model::Exchange;

/// Connects; sends and reads if there is something to.
pub(super) struct Connection {
    send: Option<Vec<u8>>,
    expect: Option<Needle>,
}

impl Connection {
    pub(super) fn new(exchange: &Exchange) -> Self {
        Self { send: exchange.send.clone(), expect: exchange.expect.clone().map(Needle::new) }
    }
}

impl Prober for Connection {
    fn probe<'a>(&'a self, dial: &'a Dial, progress: &'a Progress) -> Probing<'a> {
        Box::pin(async move {
            let mut stream = dial.tcp().await?;
            if let Some(bytes) = &self.send {
                progress.at(Stage::Send);
                stream.write_all(bytes).await.map_err(|e| Failure::from_io(&e, Stage::Send))?;
            }
            match &self.expect {
                Some(needle) => Answer::until(needle, &mut stream, progress).await,
                None => Ok(()),
            }
        })
    }
}
