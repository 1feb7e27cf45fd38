//! Spans of time on the command line: how they are written, and how long they may be.

use std::time::Duration;

use crate::config;

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const WEEK: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How long a drain, or the operator's word, may take: what `drain_deadline` takes in a config.
pub(super) fn of_drain(text: &str) -> Result<Duration, String> {
    between(text, SECOND, WEEK, "1s to 168h")
}

/// How long an attach waits for `lb confirm`.
pub(super) fn to_confirm(text: &str) -> Result<Duration, String> {
    between(text, SECOND, DAY, "1s to 24h")
}

fn between(text: &str, least: Duration, most: Duration, range: &str) -> Result<Duration, String> {
    config::duration(text, least..=most)
        .ok_or_else(|| format!("a time from {range} is wanted, a whole number with its unit: 90s, 10m or 2h"))
}

/// Seconds in full: `1h 30m`, `90s` as `1m 30s`.
pub(super) fn exact(seconds: u64) -> String {
    let parts = [(seconds / 3600, "h"), (seconds % 3600 / 60, "m"), (seconds % 60, "s")];
    let parts: Vec<String> =
        parts.iter().filter(|(count, _)| *count > 0).map(|(count, unit)| format!("{count}{unit}")).collect();
    if parts.is_empty() { "0s".to_owned() } else { parts.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units_and_bounds() {
        assert_eq!(of_drain("60s"), Ok(Duration::from_secs(60)));
        assert_eq!(of_drain("1500ms"), Ok(Duration::from_millis(1500)));
        assert_eq!(of_drain("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(of_drain("168h"), Ok(WEEK));
        let bad =
            ["60", "s", "-5s", "+5s", "1d", "", "0s", "999ms", "169h", "1000000h", "1m30s", "5 m", "1.5m"];
        for bad in bad {
            let told = of_drain(bad).unwrap_err();
            assert!(told.contains("1s to 168h") && told.contains("10m"), "{bad}: {told}");
        }
        assert!(of_drain(&format!("{}h", u64::MAX)).is_err());
        assert!(to_confirm("24h").is_ok() && to_confirm("25h").is_err() && to_confirm("0s").is_err());
    }

    #[test]
    fn nothing_of_a_time_is_left_out() {
        for (seconds, text) in [(0, "0s"), (90, "1m 30s"), (600, "10m"), (5400, "1h 30m"), (604_800, "168h")]
        {
            assert_eq!(exact(seconds), text);
        }
    }
}
