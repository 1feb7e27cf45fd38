//! Settings of the host's network stack that get in the way: reverse path filters, connection tracking. Facts are read
//! from files; findings are made of them by pure functions.

use super::{Diagnosis, Finding, Remedy, Root, Severity};

/// Filled to this share, connection tracking is about to refuse.
const FULL: f64 = 0.8;
/// The reverse path filter that asks for the very interface.
const STRICT: u8 = 1;
/// The one that asks for any route.
const LOOSE: u8 = 2;

/// What is known about the stack.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct NetStack {
    /// Interfaces that packets of services and backends come in by, with the reverse path filter in force.
    pub filters: Vec<(String, u8)>,
    /// Entries of connection tracking, and their limit.
    pub tracked: Option<(u64, u64)>,
}

impl NetStack {
    /// Looks at the current network namespace.
    pub fn read(root: &Root, interfaces: &[String]) -> Self {
        let filter = |name: &str| root.number::<u8>(&format!("/proc/sys/net/ipv4/conf/{name}/rp_filter"));
        // The larger one counts (Documentation/networking/ip-sysctl.rst).
        let all = filter("all").unwrap_or(0);
        let of = |name: &String| Some((name.clone(), filter(name)?.max(all)));
        let tracking = |name: &str| root.number(&format!("/proc/sys/net/netfilter/nf_conntrack_{name}"));
        Self {
            filters: interfaces.iter().filter_map(of).collect(),
            tracked: tracking("count").zip(tracking("max")),
        }
    }

    /// What is to be said about it.
    pub fn findings(&self) -> Vec<Diagnosis> {
        self.reverse_path().into_iter().chain(self.tracking()).collect()
    }

    /// With one interface a strict filter lets everything through that can come.
    fn reverse_path(&self) -> Vec<Diagnosis> {
        let strict = self.filters.iter().filter(|(_, filter)| *filter == STRICT && self.filters.len() > 1);
        let strict: Vec<Diagnosis> = strict
            .map(|(name, _)| {
                let finding = Finding::new("LB234", Severity::Warning, name, "rp_filter is strict");
                let finding = finding.why(
                    "answers to checks and ICMP errors that come in by another interface than their route are dropped without a word",
                );
                let setting = format!("net.ipv4.conf.{}.rp_filter", name.replace('.', "/"));
                Diagnosis::mended_by(finding, Remedy::sysctl(&setting, LOOSE))
            })
            .collect();
        match strict.is_empty() {
            true => vec![Finding::ok("LB234", "stack", "no strict rp_filter in the way").into()],
            false => strict,
        }
    }

    fn tracking(&self) -> Option<Diagnosis> {
        let (entries, most) = self.tracked?;
        if entries == 0 {
            return Some(Finding::ok("LB235", "stack", "no connections are tracked").into());
        }
        let what = format!("{entries} of {most} connections are tracked (nf_conntrack)");
        let hint = "nft add rule inet raw prerouting ip daddr VIP notrack   (a chain of hook prerouting, priority raw)";
        let full = entries as f64 >= most as f64 * FULL;
        Some(match full {
            true => Finding::new("LB235", Severity::Warning, "stack", what)
                .why("when it is full, new connections of this host fail, checks of backends among them")
                .fix(format!("sysctl -w net.netfilter.nf_conntrack_max={}; or track less: {hint}", most.saturating_mul(4)))
                .into(),
            false => Finding::new("LB235", Severity::Notice, "stack", what)
                .why("what lb forwards never gets there; what it leaves to the host (`other_ports: pass`, generic probes) does, and costs")
                .fix(hint)
                .into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bad(stack: &NetStack) -> Vec<(&'static str, Severity)> {
        let found = stack.findings().into_iter().map(|found| found.finding);
        found.filter(|f| f.severity > Severity::Ok).map(|f| (f.code, f.severity)).collect()
    }

    #[test]
    fn a_strict_filter_matters_where_there_are_two_ways() {
        let of = |filters: &[(&str, u8)]| NetStack {
            filters: filters.iter().map(|(name, filter)| ((*name).to_owned(), *filter)).collect(),
            tracked: None,
        };
        assert_eq!(bad(&of(&[("eth0", 1)])), []);
        assert_eq!(bad(&of(&[("eth0", 0), ("eth1", 2)])), []);
        let found = of(&[("eth0", 2), ("eth1.7", 1)]);
        assert_eq!(bad(&found), [("LB234", Severity::Warning)]);
        assert_eq!(found.findings()[0].finding.fix, "echo 2 > /proc/sys/net/ipv4/conf/eth1.7/rp_filter");
    }

    #[test]
    fn tracking_is_told_and_a_full_table_warned_of() {
        let of = |tracked| NetStack { tracked, ..NetStack::default() };
        assert_eq!(bad(&of(None)), []);
        assert_eq!(bad(&of(Some((0, 65_536)))), []);
        assert_eq!(bad(&of(Some((40_000, 65_536)))), [("LB235", Severity::Notice)]);
        assert_eq!(bad(&of(Some((60_000, 65_536)))), [("LB235", Severity::Warning)]);
    }

    /// Read from files, mended in files, gone.
    #[tokio::test]
    async fn a_strict_filter_is_mended() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::below(directory.path());
        for (name, filter) in [("all", "0"), ("eth0", "1"), ("eth1", "0")] {
            let path = directory.path().join(format!("proc/sys/net/ipv4/conf/{name}"));
            std::fs::create_dir_all(&path).unwrap();
            std::fs::write(path.join("rp_filter"), filter).unwrap();
        }
        let read = || NetStack::read(&root, &["eth0".to_owned(), "eth1".to_owned()]);
        assert_eq!(bad(&read()), [("LB234", Severity::Warning)]);
        for remedy in read().findings().into_iter().filter_map(|found| found.remedy) {
            remedy.apply(&root).await.unwrap();
        }
        assert_eq!(bad(&read()), []);
    }
}
