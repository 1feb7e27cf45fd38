//! `lb drain`, `lb disable`, `lb enable`: the operator's word about a backend, and what is said of its consequences.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use super::args::{Context, DrainArgs, OrderArgs};
use super::error::Failure;
use super::time::exact;
use super::{output, waiting};
use crate::config;
use crate::daemon::{self, Instance, Order, Request, Saved, Word};
use crate::model::{FlowRules, Model, Tracking};

/// `lb drain`.
pub(super) fn drain(context: &Context, args: &DrainArgs) -> Result<ExitCode, Failure> {
    let instance = context.instance()?;
    let waits = if args.wait { Some(waiting::Forced::until_now(&instance)?) } else { None };
    let (meant, attended) = give(&instance, &args.order, Word::Drain, args.deadline)?;
    output::text(&drained(&instance, &meant, args.deadline, attended)?)?;
    match waits {
        Some(forced) => waiting::until_empty(context, &meant, forced),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// `lb disable` and `lb enable`.
pub(super) fn run(context: &Context, args: &OrderArgs, word: Word) -> Result<ExitCode, Failure> {
    let (meant, _) = give(&context.instance()?, args, word, None)?;
    let done = match word {
        Word::Enable => "enabled: as the config and its checks say",
        Word::Drain | Word::Disable => "disabled: no flows",
    };
    output::text(&meant.iter().map(|backend| format!("{backend} {done}\n")).collect::<String>())?;
    Ok(ExitCode::SUCCESS)
}

/// Gives the word to the daemon, or does its work where none runs; whom it is about, as POOL/ADDRESS, and whether a
/// daemon has taken it.
fn give(
    instance: &Instance,
    args: &OrderArgs,
    word: Word,
    deadline: Option<Duration>,
) -> Result<(Vec<String>, bool), Failure> {
    let end = |time: Duration| Saved::now() + time.as_secs().max(1);
    let order = Order {
        backend: args.backend.clone(),
        word,
        until: args.until.map(end),
        deadline: deadline.map(end),
        reason: args.reason.clone(),
        force: args.force,
    };
    match daemon::request(&instance.socket, &Request::Order(order.clone()))? {
        Some(reply) => match reply.error {
            Some((message, true)) => Err(Failure::bad_input(message)),
            Some((message, false)) => Err(Failure::failed(message)),
            None => Ok((reply.steps, true)),
        },
        None => {
            eprintln!(
                "no daemon runs: nothing probes, a backend that was down stays down until `lb run`; drains, deadlines \
                 and --until do not end by themselves, only with the next `lb apply` or `lb run`"
            );
            let done = super::attach::runtime()?.block_on(daemon::order_once(instance, &order))?;
            Ok((done, false))
        }
    }
}

/// What the operator is told of backends that drain from now on, by what their services do with flows.
fn drained(
    instance: &Instance,
    meant: &[String],
    asked: Option<Duration>,
    attended: bool,
) -> Result<String, Failure> {
    let saved = Saved::load(&instance.state)?.unwrap_or_default();
    let listed = config::parse(&saved.origin, &saved.config).ok().map(|loaded| loaded.model);
    let model = listed.map(|listed| saved.drains.join(&listed));
    let line = |backend: &String| {
        let fates = model.as_ref().map(|model| fates(model, &saved, backend, asked)).unwrap_or_default();
        let told: BTreeSet<String> = fates.iter().map(|(_, fate)| fate.words(attended)).collect();
        match told.first() {
            Some(one) if told.len() == 1 => format!("{backend} draining: no new flows, {one}\n"),
            None => format!("{backend} draining: no new flows\n"),
            Some(_) => fates
                .iter()
                .map(|(name, fate)| {
                    format!("{backend} draining in {name}: no new flows, {}\n", fate.words(attended))
                })
                .collect(),
        }
    };
    Ok(meant.iter().map(line).collect())
}

/// What becomes of the flows of a backend that drains.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Fate {
    /// They are not recorded.
    Untracked,
    /// They move after so many seconds.
    Deadline(u64),
    /// Nothing but the longest time that a slot may stay unsettled, in seconds, ends them.
    Unsettled(u64),
    /// They stay.
    Stay,
}

impl Fate {
    fn of(rules: FlowRules, left: Option<u64>) -> Self {
        // Where every flow is recorded it is found also in slots that have settled.
        let most = Some(rules.max_unsettled.as_secs()).filter(|_| !rules.records_all());
        match (left, most) {
            _ if rules.tracking == Tracking::Never => Self::Untracked,
            (Some(left), Some(most)) if most < left => Self::Unsettled(most),
            (Some(left), _) => Self::Deadline(left),
            (None, Some(most)) => Self::Unsettled(most),
            (None, None) => Self::Stay,
        }
    }

    fn words(self, attended: bool) -> String {
        let next = if attended { "" } else { " and until the next `lb apply` or `lb run`" };
        match self {
            Self::Untracked => "and `tracking` is never: its flows move now".to_owned(),
            Self::Deadline(0) => "and its time is over: its flows move now".to_owned(),
            Self::Deadline(left) => format!("flows it has stay for {}{next}, then they move", exact(left)),
            Self::Unsettled(most) => {
                format!("flows it has stay until they end, for {} at most (`max_unsettled`)", exact(most))
            }
            Self::Stay => "flows it has stay until they end".to_owned(),
        }
    }
}

/// What becomes of the flows of a backend (POOL/ADDRESS), by service.
fn fates(model: &Model, saved: &Saved, meant: &str, asked: Option<Duration>) -> BTreeSet<(String, Fate)> {
    let ends = saved.drains.deadlines(model, &saved.overrides);
    let mut fates = BTreeSet::new();
    for service in &model.services {
        let named = |address| format!("{}/{address}", service.pool) == meant;
        let Some(backend) = service.backends.iter().find(|backend| named(backend.address)) else { continue };
        let word = saved.overrides.iter().find(|w| w.pool == service.pool && w.backend == backend.address);
        let begun = word.map_or_else(Saved::now, |word| word.since);
        let end = ends.get(&(service.id, backend.address)).map(|end| end.saturating_sub(begun));
        let left = asked.map(|asked| asked.as_secs().max(1)).or(end);
        fates.insert((service.name.clone(), Fate::of(service.flows, left)));
    }
    fates
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saved(service: &str, word: &str) -> (Model, Saved) {
        let text = format!(
            "version: 1\nservices:\n  - {{name: web, address: 198.51.100.1, protocol: tcp, port: 80, pool: p{service}}}\n  \
             - {{name: dns, address: 198.51.100.1, protocol: udp, port: 53, pool: p, tracking: never}}\n\
             pools: [{{name: p, forwarding: l2, backends: [{{address: 192.0.2.1}}, {{address: 192.0.2.2}}]}}]\n"
        );
        let words = serde_json::from_str(&format!(
            "[{{\"pool\": \"p\", \"backend\": \"192.0.2.1\", \"word\": \"drain\", \"since\": 100{word}}}]"
        ));
        let model = config::parse("test.yaml", &text).unwrap().model;
        (model, Saved { overrides: words.unwrap(), ..Saved::default() })
    }

    #[test]
    fn what_is_said_of_a_drain_depends_on_tracking_and_time() {
        let told = |service: &str, word: &str, asked: Option<u64>, attended| {
            let (model, saved) = saved(service, word);
            let fates = fates(&model, &saved, "p/192.0.2.1", asked.map(Duration::from_secs));
            let of = |name: &str| fates.iter().find(|(found, _)| found == name).unwrap().1.words(attended);
            assert!(of("dns").contains("its flows move now"), "{}", of("dns"));
            of("web")
        };
        assert!(told("", "", None, true).contains("6h at most (`max_unsettled`)"));
        assert!(told(", tracking: always", "", None, true).ends_with("stay until they end"));
        assert!(told("", ", \"deadline\": 700", Some(600), true).ends_with("for 10m, then they move"));
        assert!(told(", drain_deadline: 90s", "", None, true).contains("for 1m 30s, then they move"));
        let alone = told("", ", \"deadline\": 700", Some(600), false);
        assert!(alone.contains("10m and until the next `lb apply`"), "{alone}");
        let capped = told(", max_unsettled: 20m", ", \"deadline\": 3700", Some(3600), true);
        assert!(capped.contains("20m at most (`max_unsettled`)"), "{capped}");
        assert!(told(", tracking: always, max_unsettled: 20m", "", Some(3600), true).contains("for 1h,"));
    }
}
