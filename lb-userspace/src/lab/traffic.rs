//! Real requests by a stock client, and what came of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::error::LabError;
use super::interrupt::Interrupt;
use super::topology::{Role, Topology};

/// Which backends answered a number of requests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spread {
    /// Requests made.
    pub requested: u64,
    /// Answers by backend.
    pub by_backend: BTreeMap<String, u64>,
    /// Different client ports that the backends saw: connections.
    pub connections: u64,
}

impl Spread {
    /// Requests `http://VIP/` that often with curl from the client, each over a connection of its own, at
    /// most 16 at a time. Unanswered requests are part of the result, not an error.
    pub fn measure(
        lab: &Topology,
        vip: Ipv4Addr,
        requests: u64,
        interrupt: &Interrupt,
    ) -> Result<Self, LabError> {
        static RUN: AtomicU32 = AtomicU32::new(0);
        let run = RUN.fetch_add(1, Ordering::Relaxed);
        let mut curl = lab.command(Role::Client, "curl");
        // The servers close after each answer, so nothing is ever reused.
        curl.args(["-q", "-s", "--noproxy", "*", "--connect-timeout", "2", "--max-time", "5"]);
        // With --parallel a progress meter comes even with -s; it must not mix with the pages.
        curl.args(["--stderr", "/dev/null"]);
        curl.args(["--parallel", "--parallel-immediate", "--parallel-max", "16"]);
        curl.arg(format!("http://{vip}/?[1-{requests}]"));
        let process = lab.spawn(&format!("curl-{run}"), &curl)?;
        process.wait(Duration::from_secs(60), interrupt)?;
        let pages = fs::read_to_string(process.log()).map_err(LabError::io("read curl's output"))?;
        let _ = fs::remove_file(process.log());
        Ok(Self::from_pages(requests, &pages))
    }

    /// Counts pages of the form `backend NAME`, `client ADDRESS:PORT`.
    fn from_pages(requested: u64, pages: &str) -> Self {
        let mut spread = Self { requested, ..Self::default() };
        let mut clients = BTreeSet::new();
        for line in pages.lines() {
            if let Some(name) = line.strip_prefix("backend ") {
                *spread.by_backend.entry(name.to_owned()).or_default() += 1;
            } else if let Some(client) = line.strip_prefix("client ") {
                clients.insert(client);
            }
        }
        spread.connections = clients.len() as u64;
        spread
    }

    /// Requests that got their page.
    pub fn answered(&self) -> u64 {
        self.by_backend.values().sum()
    }

    /// What a backend answered.
    pub fn of(&self, backend: &str) -> u64 {
        self.by_backend.get(backend).copied().unwrap_or(0)
    }

    /// An error unless all requests were answered, each over a connection of its own.
    pub fn check_complete(&self) -> Result<(), LabError> {
        if self.answered() != self.requested {
            let text = format!("{} of {} requests were answered", self.answered(), self.requested);
            return Err(LabError::unexpected(text));
        }
        if self.connections != self.requested {
            let text = format!("{} requests came over {} connections", self.requested, self.connections);
            return Err(LabError::unexpected(text));
        }
        Ok(())
    }

    /// An error where a backend's count is further from its weight's share than chance explains: five
    /// standard deviations of a binomial, one false alarm in a million runs.
    pub fn check_weights<'a>(
        &self,
        weights: impl IntoIterator<Item = (&'a str, u16)>,
    ) -> Result<(), LabError> {
        let weights: BTreeMap<&str, f64> =
            weights.into_iter().map(|(name, w)| (name, f64::from(w))).collect();
        let (total, sum) = (self.answered() as f64, weights.values().sum::<f64>().max(1.0));
        let names: BTreeSet<&str> =
            weights.keys().copied().chain(self.by_backend.keys().map(String::as_str)).collect();
        for name in names {
            let share = weights.get(name).copied().unwrap_or(0.0) / sum;
            let (expected, allowed) = (total * share, 5.0 * (total * share * (1.0 - share)).sqrt());
            if (self.of(name) as f64 - expected).abs() > allowed {
                let text = format!(
                    "{name} answered {} of {total} requests; its weight says {expected:.0} ± {allowed:.0}",
                    self.of(name)
                );
                return Err(LabError::unexpected(text));
            }
        }
        Ok(())
    }
}

/// What the switch counted at a machine's port (`lb`, `b1`, …): bytes sent to it, bytes received from it.
pub fn port_bytes(lab: &Topology, port: &str) -> Result<(u64, u64), LabError> {
    let text = lab.exec(Role::Fabric, "ip", ["-json", "-s", "link", "show", "dev", port])?;
    let odd = |_| LabError::io("read ip's JSON")(std::io::Error::from(std::io::ErrorKind::InvalidData));
    let json: serde_json::Value = serde_json::from_str(&text).map_err(odd)?;
    let of = |direction: &str| json[0]["stats64"][direction]["bytes"].as_u64().unwrap_or(0);
    Ok((of("tx"), of("rx")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(counts: &[(&str, u64)]) -> Spread {
        let by_backend: BTreeMap<_, _> =
            counts.iter().map(|&(name, count)| (name.to_owned(), count)).collect();
        let total = by_backend.values().sum();
        Spread { requested: total, by_backend, connections: total }
    }

    #[test]
    fn pages_are_counted_by_backend_and_connection() {
        let pages = "backend b1\nclient 198.51.100.2:4000\nbackend b2\nclient 198.51.100.2:4001\nbackend b1\nclient 198.51.100.2:4000\n";
        let spread = Spread::from_pages(4, pages);
        assert_eq!((spread.of("b1"), spread.of("b2"), spread.of("b3")), (2, 1, 0));
        assert_eq!((spread.answered(), spread.connections), (3, 2));
        assert_eq!(spread.check_complete().unwrap_err().to_string(), "3 of 4 requests were answered");
    }

    #[test]
    fn chance_is_allowed_and_bias_is_not() {
        let even = [("b1", 1), ("b2", 1), ("b3", 1)];
        assert!(spread(&[("b1", 110), ("b2", 85), ("b3", 105)]).check_weights(even).is_ok());
        assert!(spread(&[("b1", 200), ("b2", 50), ("b3", 50)]).check_weights(even).is_err());
        assert!(
            spread(&[("b1", 200), ("b2", 50), ("b3", 50)])
                .check_weights([("b1", 4), ("b2", 1), ("b3", 1)])
                .is_ok()
        );
    }

    #[test]
    fn a_backend_without_weight_may_not_answer_at_all() {
        let spread = spread(&[("b1", 50), ("b2", 49), ("b3", 1)]);
        assert!(spread.check_weights([("b1", 1), ("b2", 1)]).is_err());
    }
}
