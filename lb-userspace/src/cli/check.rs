//! `lb check`: every probe of a config once. `lb events`: every change, as it happens.

use std::io::Write;
use std::process::ExitCode;

use super::args::{CheckArgs, Context};
use super::attach::runtime;
use super::backends::millis;
use super::error::Failure;
use super::output::{self, Table};
use crate::daemon::{self, Candidate, Checked, Request};

/// Exit code where a probe failed or could not be made.
const FAILED: u8 = 1;

/// `lb check`.
pub(super) fn run(context: &Context, args: &CheckArgs) -> Result<ExitCode, Failure> {
    let instance = context.instance()?;
    let candidate = Candidate::read(&args.file, true)?;
    let asked = Request::Check { origin: candidate.origin.clone(), text: candidate.loaded.text.clone() };
    let checked = match daemon::request(&instance.socket, &asked)? {
        Some(reply) => match reply.error {
            Some((message, true)) => return Err(Failure::bad_input(message)),
            Some((message, false)) => return Err(Failure::failed(message)),
            None => reply.checked,
        },
        None => runtime()?.block_on(daemon::check_once(&instance, candidate))?,
    };
    output::print(args.output, &checked, || text(&checked))?;
    let bad = checked.iter().any(|row| row.passed != Some(true) && row.kind != "none");
    Ok(if bad { ExitCode::from(FAILED) } else { ExitCode::SUCCESS })
}

fn text(checked: &[Checked]) -> String {
    let mut table = Table::new(["SERVICE", "BACKEND", "CHECK", "VIA", "RESULT", "TIME", "REASON"]);
    for row in checked {
        let name = row.name.as_ref().map_or_else(String::new, |name| format!(" ({name})"));
        let result = match row.passed {
            Some(true) => "ok",
            Some(false) => "FAILED",
            None => "-",
        };
        table.row([
            format!("{} {}", row.service, row.id),
            format!("{}{name}", row.backend),
            row.kind.clone(),
            row.via.clone(),
            result.to_owned(),
            millis(row.latency_us),
            row.reason.clone().unwrap_or_default(),
        ]);
    }
    let count = |passed| checked.iter().filter(|row| row.passed == passed).count();
    let (ok, failed, open) = (count(Some(true)), count(Some(false)), count(None));
    table.render(0) + &format!("{ok} ok, {failed} failed, {open} not probed\n")
}

/// `lb events`.
pub(super) fn events(context: &Context) -> Result<ExitCode, Failure> {
    let instance = context.instance()?;
    let mut out = std::io::stdout();
    let listened =
        daemon::events(&instance.socket, |line| writeln!(out, "{line}").and_then(|()| out.flush()).is_ok())?;
    if !listened {
        return Err(Failure::failed("no daemon runs here: start `lb run`"));
    }
    Ok(ExitCode::SUCCESS)
}
