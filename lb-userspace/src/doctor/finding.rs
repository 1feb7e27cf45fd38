//! What a check has found, for people and for machines. Pure.

use std::fmt;

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Works; worth knowing.
    Notice,
    /// Works, but worse than it could, or fails under load or after a change.
    Warning,
    /// Traffic does not flow, or will not.
    Problem,
}

/// One result of one check.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Finding {
    /// Stable code, explained by `lb explain CODE`.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What it is about: an interface, a backend, `kernel`, …
    pub place: String,
    /// What was found.
    pub what: String,
    /// Why it matters; empty where all is well.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// What to do, as commands where there are some; empty where there is nothing to be done.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub fix: String,
    /// Whether `--fix` does it.
    pub fixable: bool,
}

impl Finding {
    /// All is well.
    pub fn ok(code: &'static str, place: impl Into<String>, what: impl Into<String>) -> Self {
        Self::new(code, Severity::Ok, place, what)
    }

    /// A finding without reason and remedy yet.
    pub fn new(
        code: &'static str,
        severity: Severity,
        place: impl Into<String>,
        what: impl Into<String>,
    ) -> Self {
        Self {
            code,
            severity,
            place: place.into(),
            what: what.into(),
            why: String::new(),
            fix: String::new(),
            fixable: false,
        }
    }

    /// Why it matters.
    pub fn why(self, why: impl Into<String>) -> Self {
        Self { why: why.into(), ..self }
    }

    /// What an operator can do.
    pub fn fix(self, fix: impl Into<String>) -> Self {
        Self { fix: fix.into(), ..self }
    }

    /// What an operator can do, and `--fix` does.
    pub fn fixable(self, fix: impl Into<String>) -> Self {
        Self { fix: fix.into(), fixable: true, ..self }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.severity {
            Severity::Ok => "ok",
            Severity::Notice => "notice",
            Severity::Warning => "warning",
            Severity::Problem => "PROBLEM",
        };
        write!(f, "{mark:<8} {}  {}: {}", self.code, self.place, self.what)?;
        if !self.why.is_empty() {
            write!(f, "\n           why: {}", self.why)?;
        }
        if !self.fix.is_empty() {
            let how = if self.fixable { "fix (--fix does it)" } else { "fix" };
            write!(f, "\n           {how}: {}", self.fix)?;
        }
        Ok(())
    }
}

/// All findings of a run.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Report {
    /// In the order of the checks.
    pub findings: Vec<Finding>,
}

impl Report {
    /// The worst there is; [`Severity::Ok`] where nothing was found.
    pub fn worst(&self) -> Severity {
        self.findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Ok)
    }

    /// Exit code: 0 nothing worse than a notice, 1 warnings, 2 problems.
    pub fn exit_code(&self) -> u8 {
        match self.worst() {
            Severity::Ok | Severity::Notice => 0,
            Severity::Warning => 1,
            Severity::Problem => 2,
        }
    }
}

impl fmt::Display for Report {
    /// Each finding, then how many of each kind; ends with a new line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            writeln!(f, "{finding}")?;
        }
        let count = |severity| self.findings.iter().filter(|finding| finding.severity == severity).count();
        let [ok, notices, warnings, problems] =
            [Severity::Ok, Severity::Notice, Severity::Warning, Severity::Problem].map(count);
        writeln!(f, "{problems} problems, {warnings} warnings, {notices} notices, {ok} checks ok")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_finding_decides() {
        let of = |severities: &[Severity]| Report {
            findings: severities.iter().map(|s| Finding::new("LB200", *s, "kernel", "it")).collect(),
        };
        assert_eq!(of(&[]).exit_code(), 0);
        assert_eq!(of(&[Severity::Ok, Severity::Notice]).exit_code(), 0);
        assert_eq!(of(&[Severity::Warning, Severity::Ok]).exit_code(), 1);
        assert_eq!(of(&[Severity::Warning, Severity::Problem, Severity::Notice]).exit_code(), 2);
    }

    #[test]
    fn a_finding_says_what_why_and_how() {
        let finding = Finding::new("LB201", Severity::Warning, "eth0", "LRO is on")
            .why("native XDP is refused")
            .fixable("ethtool -K eth0 lro off");
        let report = Report { findings: vec![finding, Finding::ok("LB200", "kernel", "6.18")] };
        assert_eq!(
            report.to_string(),
            "warning  LB201  eth0: LRO is on\n           why: native XDP is refused\n           \
             fix (--fix does it): ethtool -K eth0 lro off\nok       LB200  kernel: 6.18\n\
             0 problems, 1 warnings, 0 notices, 1 checks ok\n"
        );
    }
}
