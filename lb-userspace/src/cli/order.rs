//! `lb drain`, `lb disable`, `lb enable`: the operator's word about a backend.

use std::process::ExitCode;

use super::args::{Context, DrainArgs, OrderArgs};
use super::error::Failure;
use super::output;
use crate::daemon::{self, Order, Request, Saved, Word};

/// `lb drain`.
pub(super) fn drain(context: &Context, args: &DrainArgs) -> Result<ExitCode, Failure> {
    let deadline = args.deadline.map(|time| Saved::now() + time.as_secs().max(1));
    let meant = give(context, &args.order, Word::Drain, deadline)?;
    if args.wait { super::waiting::until_empty(context, &meant) } else { Ok(ExitCode::SUCCESS) }
}

/// `lb disable`.
pub(super) fn run(context: &Context, args: &OrderArgs, word: Word) -> Result<ExitCode, Failure> {
    give(context, args, word, None)?;
    Ok(ExitCode::SUCCESS)
}

/// Gives the word to the daemon, or does its work where none runs; whom it is about, as POOL/ADDRESS.
fn give(
    context: &Context,
    args: &OrderArgs,
    word: Word,
    deadline: Option<u64>,
) -> Result<Vec<String>, Failure> {
    let instance = context.instance()?;
    let order = Order {
        backend: args.backend.clone(),
        word,
        until: args.until.map(|time| Saved::now() + time.as_secs().max(1)),
        deadline,
        reason: args.reason.clone(),
        force: args.force,
    };
    let meant = match daemon::request(&instance.socket, &Request::Order(order.clone()))? {
        Some(reply) => match reply.error {
            Some((message, true)) => return Err(Failure::bad_input(message)),
            Some((message, false)) => return Err(Failure::failed(message)),
            None => reply.steps,
        },
        None => {
            eprintln!(
                "no daemon runs: nothing probes, and a backend that was down stays down until `lb run`"
            );
            super::attach::runtime()?.block_on(daemon::order_once(&instance, &order))?
        }
    };
    let done = match word {
        Word::Drain => "draining: no new flows, flows it has stay",
        Word::Disable => "disabled: no flows",
        Word::Enable => "enabled: as the config and its checks say",
    };
    output::text(&meant.iter().map(|backend| format!("{backend} {done}\n")).collect::<String>())?;
    Ok(meant)
}
