//! The model: live flows and their backends.

use std::fmt;

use lb_common::abi::{Slot, SlotState};

use super::packet::{From, Speech, Word, client, key};
use super::world::World;
use super::{CLOSING, IDLE, Rng};

/// A flow that lives.
#[derive(Clone, Debug)]
pub struct Client {
    pub(super) speech: Speech,
    pub(super) from: From,
    /// Who has it.
    pub(super) backend: u8,
    /// Decides how it behaves.
    coins: u64,
    /// The event with which it began.
    pub(super) begun: u64,
    began_at: u64,
    spoke_at: u64,
    /// After how many seconds of silence it speaks at the latest.
    patience: u64,
    /// Whether there was a FIN.
    ends: bool,
    /// Whether there was an RST, and nothing since.
    is_reset: bool,
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { speech, from: (address, port), backend, began_at, spoke_at, .. } = self;
        let (began, spoke) = (began_at - 1000, spoke_at - 1000);
        write!(f, "{speech:?} {address}:{port} on {backend}, begun {began} s, last heard {spoke} s")
    }
}

impl Client {
    /// What it says now, if anything.
    fn says(&self, now: u64) -> Option<Word> {
        let mut rng = Rng(self.coins ^ now);
        let repeats = self.coins.is_multiple_of(5);
        match now - self.began_at {
            1 if repeats => Some(Word::Hello),
            1 => None,
            2 => Some(Word::Data),
            _ if now - self.spoke_at >= self.patience || rng.below(20) == 0 => Some(Word::Data),
            _ => None,
        }
    }
}

impl World {
    pub(super) fn open(&mut self, coins: u64) {
        let from = client((coins >> 32) as u32 & 0xff_ffff);
        let services = &self.setup.services;
        let speech = services[Rng(coins).below(services.len() as u64) as usize];
        if !self.clients.iter().any(|client| client.from == from) {
            self.begin(speech, from, coins);
        }
    }

    fn begin(&mut self, speech: Speech, from: From, coins: u64) {
        let begun = self.plane.events;
        let backend = self.send(speech, from, Word::Hello);
        // One of ten does not go on, and whom nobody answers cannot.
        let answered = backend.filter(|number| self.is_up(*number));
        let Some(backend) = answered.filter(|_| coins % 10 != 1) else { return };
        let patience = [IDLE - 2, IDLE / 2, IDLE / 4, 3][(coins >> 8) as usize % 4];
        let (began_at, spoke_at) = (self.now, self.now);
        self.outcome.flows += 1;
        self.clients.push(Client {
            speech,
            from,
            backend,
            coins,
            begun,
            began_at,
            spoke_at,
            patience,
            ends: false,
            is_reset: false,
        });
    }

    /// A flow says something, and its backend must hear it.
    fn say(&mut self, n: usize, word: Word) {
        let Client { speech, from, backend, .. } = self.clients[n];
        let receiver = self.send(speech, from, word);
        self.outcome.packets += 1;
        if receiver != Some(backend) {
            self.outcome.broken += 1;
            let client = &self.clients[n];
            self.wrong(format!("BROKEN: {word:?} of {client} went to {receiver:?}"));
        }
        // It goes on where it is, or as another flow.
        match receiver.filter(|number| self.is_up(*number)) {
            Some(receiver) => {
                self.outcome.flows += u64::from(receiver != backend);
                let now = self.now;
                let client = &mut self.clients[n];
                (client.backend, client.spoke_at) = (receiver, now);
                client.is_reset = word == Word::Rst;
            }
            None => drop(self.clients.swap_remove(n)),
        }
    }

    /// All that have something to say do.
    pub(super) fn talk(&mut self) {
        for n in (0..self.clients.len()).rev() {
            if let Some(word) = self.clients[n].says(self.now) {
                self.say(n, word);
            }
        }
    }

    /// The flow that is meant, which is the same one whichever others there are, but for few.
    fn nth(&self, n: u16) -> Option<usize> {
        let distance = |client: &Client| (client.coins as u16).wrapping_sub(n);
        (0..self.clients.len()).min_by_key(|index| distance(&self.clients[*index]))
    }

    /// A flow is no more; its port may be used again.
    fn gone(&mut self, n: usize) {
        let client = self.clients.swap_remove(n);
        self.closed.push((client.speech, client.from));
        if self.closed.len() > 32 {
            self.closed.remove(0);
        }
    }

    pub(super) fn close(&mut self, n: u16) {
        let Some(n) = self.nth(n) else { return };
        let before = self.clients.len();
        self.say(n, Word::Fin);
        if self.clients.len() == before {
            self.say(n, Word::Data);
        }
        if self.clients.len() == before {
            self.gone(n);
        }
    }

    pub(super) fn half_close(&mut self, n: u16) {
        let Some(n) = self.nth(n) else { return };
        let before = self.clients.len();
        self.say(n, Word::Fin);
        if self.clients.len() == before {
            self.clients[n].ends = true;
            self.hurry(n);
        }
    }

    /// What is closing must be heard of more often.
    fn hurry(&mut self, n: usize) {
        let client = &mut self.clients[n];
        client.patience = client.patience.min(CLOSING - 2);
    }

    pub(super) fn reset(&mut self, n: u16) {
        let Some(n) = self.nth(n) else { return };
        let before = self.clients.len();
        self.say(n, Word::Rst);
        if self.clients.len() == before {
            self.gone(n);
        }
    }

    pub(super) fn vanish(&mut self, n: u16) {
        if let Some(n) = self.nth(n) {
            self.gone(n);
        }
    }

    pub(super) fn reuse(&mut self, n: u16) {
        let distance = |index: &usize| self.closed[*index].1.1.wrapping_sub(n);
        if let Some(nearest) = (0..self.closed.len()).min_by_key(distance) {
            let (speech, from) = self.closed.remove(nearest);
            self.begin(speech, from, Rng(n.into()).word());
        }
    }

    /// What cannot be told from true is left out, or counts as true: a FIN, after which the flow must be heard of more
    /// often; a SYN behind it, or behind an RST while the flow is silent; a SYN of a flow that nobody has heard of since
    /// its slot was marked.
    pub(super) fn spoof(&mut self, n: u16, word: Word) {
        let Some(n) = self.nth(n) else { return };
        let Client { speech, from, ends, is_reset, .. } = self.clients[n];
        let is_port_reuse = word == Word::Hello && (ends || is_reset || !self.is_known(speech, from));
        if speech != Speech::Tcp || is_port_reuse {
            return;
        }
        self.send(speech, from, word);
        match word {
            Word::Fin => {
                self.clients[n].ends = true;
                self.hurry(n);
            }
            Word::Rst => self.clients[n].is_reset = true,
            Word::Hello | Word::Data => {}
        }
    }

    /// Whether the balancer knows of a flow that has not ended: a record that is closing is of an earlier one.
    fn is_known(&self, speech: Speech, from: From) -> bool {
        let key = key(speech, from);
        let settled = |slot: Slot| slot.state() == SlotState::Settled;
        self.plane.slot(speech, &key).is_some_and(|(_, slot)| settled(slot))
            || self.plane.tables.recorded(&key).is_some_and(|flow| !flow.is_closing())
    }
}
