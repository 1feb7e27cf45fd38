//! Commands that change a data plane: run, attach, apply.

use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;
use tokio::runtime::{Builder, Runtime};

use super::args::{ApplyArgs, AttachArgs, Context, Output};
use super::error::{BAD_INPUT, Failure};
use super::{blast, confirm, output};
use crate::daemon::{self, Applied, Blast, Candidate, Reply, Request};
use crate::dataplane::attached;
use crate::model::Interface;

/// A runtime on this thread: tasks stay in the network namespace that was entered.
pub(super) fn runtime() -> Result<Runtime, Failure> {
    Builder::new_current_thread().enable_all().build().map_err(Failure::failed)
}

/// `lb run`.
pub(super) fn run(context: &Context, config: PathBuf, watch: bool) -> Result<ExitCode, Failure> {
    let instance = context.instance()?;
    confirm::none_pending(&instance)?;
    runtime()?.block_on(daemon::run(&instance, &daemon::Options { config, watch }))?;
    Ok(ExitCode::SUCCESS)
}

/// `lb attach`.
pub(super) fn attach(context: &Context, args: &AttachArgs) -> Result<ExitCode, Failure> {
    let instance = context.instance()?;
    confirm::none_pending(&instance)?;
    if args.confirm.is_some() && !attached(&instance.pins).is_empty() {
        return Err(Failure::failed(
            "--confirm undoes a first attach, but lb is attached already; use `lb apply`",
        ));
    }
    // Where nothing forwards yet there is nothing for the guard rails to protect.
    let candidate = Candidate::read(&args.config, !instance.pins.is_live())?;
    let listed = candidate.loaded.model.interfaces.iter().find(|listed| listed.name == args.interface);
    let wanted = [listed.cloned().unwrap_or_else(|| Interface::named(&args.interface))];
    if let Some(patience) = args.confirm {
        confirm::arm(context, &instance, &args.interface, patience)?;
    }
    let attached = runtime()?.block_on(daemon::attach_once(&instance, candidate, &wanted));
    let applied = attached.inspect_err(|_| confirm::disarm(&instance))?;
    print(output_of(&applied), Output::Table, false)?;
    let mut next =
        "forwarding, unattended: nothing follows neighbours or the config; `lb run` does\n".to_owned();
    if let Some(patience) = args.confirm {
        next +=
            &format!("undone {} s after the start unless you run: lb confirm\n", patience.as_secs().max(1));
    }
    output::text(&next)?;
    Ok(ExitCode::SUCCESS)
}

/// What `lb apply` prints.
#[derive(Serialize)]
struct Changes {
    generation: u64,
    steps: Vec<String>,
    warnings: Vec<String>,
    /// What guard rails have against it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    objections: Vec<String>,
    /// What a dry run says would become of flows.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    blast: Vec<Blast>,
}

fn output_of(applied: &Applied) -> Changes {
    Changes {
        generation: applied.generation,
        steps: applied.steps.clone(),
        warnings: applied.warnings.iter().map(ToString::to_string).collect(),
        objections: applied.objections.iter().map(ToString::to_string).collect(),
        blast: applied.blast.clone(),
    }
}

fn print(changes: Changes, output: Output, dry_run: bool) -> Result<(), Failure> {
    output::print(output, &changes, || {
        let mut lines = changes.warnings.clone();
        lines.extend(changes.steps.iter().cloned());
        lines.extend(changes.blast.iter().map(blast::text));
        lines.extend(changes.objections.iter().map(|said| format!("guard rails object:\n{said}")));
        lines.push(match (dry_run, changes.steps.is_empty()) {
            (true, _) => format!("dry run: {} steps, nothing changed", changes.steps.len()),
            (false, true) => format!("nothing to change, generation {}", changes.generation),
            (false, false) => {
                format!("{} steps done, generation {}", changes.steps.len(), changes.generation)
            }
        });
        lines.join("\n") + "\n"
    })
}

/// `lb apply`: the daemon does it if there is one.
pub(super) fn apply(context: &Context, args: &ApplyArgs) -> Result<ExitCode, Failure> {
    let instance = context.instance()?;
    let candidate = Candidate::read(&args.file, args.force)?;
    let asked = Request::Apply {
        origin: candidate.origin.clone(),
        text: candidate.loaded.text.clone(),
        dry_run: args.dry_run,
        force: args.force,
    };
    let changes = match daemon::request(&instance.socket, &asked)? {
        Some(reply) => from_daemon(reply)?,
        None => output_of(&runtime()?.block_on(daemon::apply_once(&instance, candidate, args.dry_run))?),
    };
    let refused = !changes.objections.is_empty();
    print(changes, args.output, args.dry_run)?;
    Ok(if refused { ExitCode::from(BAD_INPUT) } else { ExitCode::SUCCESS })
}

fn from_daemon(reply: Reply) -> Result<Changes, Failure> {
    match reply.error {
        Some((message, true)) => Err(Failure::bad_input(message)),
        Some((message, false)) => Err(Failure::failed(message)),
        None => Ok(Changes {
            generation: reply.generation,
            steps: reply.steps,
            warnings: reply.warnings,
            objections: reply.objections,
            blast: reply.blast,
        }),
    }
}
