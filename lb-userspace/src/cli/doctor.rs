//! `lb doctor`: what is wrong with this machine, why, and what to do; with `--fix` it does what it can.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::args::{Context, Output};
use super::attach::runtime;
use super::backend_host;
use super::error::Failure;
use super::output;
use crate::config;
use crate::daemon::{self, Instance, Saved, next_hops};
use crate::doctor::{Diagnosis, Question, Report, Root};
use crate::model::Model;

#[derive(Args, Debug)]
pub(super) struct DoctorArgs {
    /// The interface; otherwise those of the config, or those attached to
    #[arg(value_name = "IFACE")]
    interface: Option<String>,
    /// The config whose backends and interfaces are looked at; otherwise the one in force
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Mend what can be mended, and look again
    #[arg(long)]
    fix: bool,
    /// How long counters are watched
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Look for /proc and /sys in this directory
    #[arg(long, value_name = "DIR", hide = true, default_value = "/")]
    root: PathBuf,
    /// Look at this machine as a backend instead: what follows is as for `lb backend check`
    #[arg(long, value_name = "OPTIONS", num_args = 1.., allow_hyphen_values = true)]
    backend: Vec<String>,
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// What `--fix` did.
#[derive(Serialize)]
struct Mended {
    code: &'static str,
    place: String,
    did: String,
    /// Why it failed; `null`: it did not.
    error: Option<String>,
}

/// What is printed.
#[derive(Serialize)]
struct Outcome {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    fixed: Vec<Mended>,
    #[serde(flatten)]
    report: Report,
}

/// `lb doctor`.
pub(super) fn run(context: &Context, args: &DoctorArgs) -> Result<ExitCode, Failure> {
    if !args.backend.is_empty() {
        return backend_host::doctor(&args.backend);
    }
    let outcome = runtime()?.block_on(examine(context, args))?;
    output::print(args.output, &outcome, || text(&outcome))?;
    Ok(ExitCode::from(outcome.report.exit_code()))
}

async fn examine(context: &Context, args: &DoctorArgs) -> Result<Outcome, Failure> {
    let root = Root::below(&args.root);
    let mut found = look(context, args, &root).await?;
    let mut fixed = Vec::new();
    if args.fix {
        fixed = mend(&found, &root).await;
        if !fixed.is_empty() {
            found = look(context, args, &root).await?;
        }
    }
    let findings = found.into_iter().map(|found| found.finding).collect();
    Ok(Outcome { fixed, report: Report { findings } })
}

async fn look(context: &Context, args: &DoctorArgs, root: &Root) -> Result<Vec<Diagnosis>, Failure> {
    // Without a BPF file system there is none; the findings say so.
    let instance = context.instance().ok();
    let model = model(args, instance.as_ref())?;
    let question = Question {
        root,
        bpffs: &context.bpffs,
        pins: instance.as_ref().map(|instance| &instance.pins),
        interfaces: args.interface.iter().cloned().collect(),
        targets: model.as_ref().map(next_hops).unwrap_or_default(),
        model: model.as_ref(),
        span: Duration::from_secs(args.seconds),
    };
    question.examine().await.map_err(Failure::failed)
}

/// The config that was named, or the one in force.
fn model(args: &DoctorArgs, instance: Option<&Instance>) -> Result<Option<Model>, Failure> {
    if let Some(path) = &args.config {
        return Ok(Some(config::load(path).map_err(daemon::Error::from)?.model));
    }
    let saved = match instance.filter(|instance| instance.pins.is_live()) {
        Some(instance) => Saved::load(&instance.state)?,
        None => None,
    };
    Ok(saved.and_then(|saved| config::parse(&saved.origin, &saved.config).ok()).map(|loaded| loaded.model))
}

async fn mend(found: &[Diagnosis], root: &Root) -> Vec<Mended> {
    let mut mended = Vec::new();
    for Diagnosis { finding, remedy } in found {
        let Some(remedy) = remedy else { continue };
        let error = remedy.apply(root).await.err().map(|error| error.to_string());
        mended.push(Mended {
            code: finding.code,
            place: finding.place.clone(),
            did: remedy.to_string(),
            error,
        });
    }
    mended
}

fn text(outcome: &Outcome) -> String {
    let line = |mended: &Mended| {
        let Mended { code, place, did, error } = mended;
        match error {
            None => format!("fixed    {code}  {place}: {did}\n"),
            Some(error) => format!("FAILED   {code}  {place}: {did}: {error}\n"),
        }
    };
    outcome.fixed.iter().map(line).collect::<String>() + &outcome.report.to_string()
}
