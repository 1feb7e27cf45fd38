//! Bounded reading: collects an answer until it holds what is wanted. Must not know the protocol.

use tokio::io::{AsyncRead, AsyncReadExt};

use super::failure::{Failure, excerpt};
use super::progress::{Progress, Stage};

/// How much of an answer or body is read, in bytes.
pub(super) const LIMIT: usize = 64 * 1024;

/// What an answer must contain.
#[derive(Clone, Debug)]
pub(super) struct Needle(Vec<u8>);

/// An answer as far as it has come, of at most [`LIMIT`] bytes.
#[derive(Debug, Default)]
pub(super) struct Answer {
    bytes: Vec<u8>,
    searched: usize,
}

impl Needle {
    pub(super) fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    pub(super) fn is_in(&self, bytes: &[u8]) -> bool {
        self.0.is_empty() || bytes.windows(self.0.len()).any(|window| window == self.0)
    }

    /// What an answer without it lacks, as a predicate.
    pub(super) fn missing(&self) -> String {
        format!("does not contain `{}`", excerpt(&self.0))
    }
}

impl Answer {
    /// Adds what has come, up to the limit.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let room = LIMIT.saturating_sub(self.bytes.len());
        self.bytes.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes.len() >= LIMIT
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether it contains `needle`; bytes that were searched before are not searched again.
    pub(super) fn contains(&mut self, needle: &Needle) -> bool {
        let from = self.searched.saturating_sub(needle.0.len());
        self.searched = self.bytes.len();
        needle.is_in(self.bytes.get(from..).unwrap_or_default())
    }

    /// Reads until `needle` has come.
    pub(super) async fn until(
        needle: &Needle,
        from: &mut (impl AsyncRead + Unpin),
        progress: &Progress,
    ) -> Result<(), Failure> {
        let mut answer = Self::default();
        let mut from = from.take(LIMIT as u64);
        progress.at(Stage::Answer);
        loop {
            let read = from.read_buf(&mut answer.bytes).await;
            let read = read.map_err(|e| Failure::from_io(&e, progress.stage()))?;
            if answer.contains(needle) {
                return Ok(());
            }
            match (read, answer.bytes.is_empty()) {
                (0, true) => return Err(Failure::Closed { stage: Stage::Answer }),
                (0, false) => {
                    return Err(Failure::Unexpected {
                        wanted: needle.missing(),
                        got: excerpt(&answer.bytes),
                    });
                }
                _ => progress.at(Stage::Rest),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn found_across_pieces() {
        let needle = Needle::new("PONG");
        let mut answer = Answer::default();
        for (piece, found) in [("xxP", false), ("O", false), ("NG", true)] {
            answer.push(piece.as_bytes());
            assert_eq!(answer.contains(&needle), found, "{piece}");
        }
    }

    #[test]
    fn no_more_than_the_limit_is_kept() {
        let mut answer = Answer::default();
        for _ in 0..100 {
            answer.push(&[b'x'; 1000]);
        }
        assert!(answer.is_full());
        assert_eq!(answer.bytes().len(), LIMIT);
    }

    #[test]
    fn everything_contains_nothing() {
        assert!(Needle::new("").is_in(b""));
        assert!(!Needle::new("a").is_in(b""));
    }
}
