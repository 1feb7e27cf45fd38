//! `lb validate`.

use std::process::ExitCode;

use serde_json::json;

use super::args::{Output, ValidateArgs};
use super::error::Failure;
use super::memory::Foreseen;
use super::output::{self, mib};
use super::view::possible_cpus;
use crate::config::{self, Loaded};
use crate::daemon::{self, Machine, size};
use crate::doctor::foreseen;
use crate::health::fleet::Uses;
use crate::model::Model;
use crate::netlink::{Resolutions, Snapshot};
use crate::reconcile::{History, Memo, Observed, plan};

/// Checks a file without touching the machine.
pub(super) fn run(args: &ValidateArgs) -> Result<ExitCode, Failure> {
    let loaded = config::load(&args.file).map_err(daemon::Error::from)?;
    plannable(&loaded.model)?;
    for warning in &loaded.warnings {
        eprintln!("{warning}");
    }
    for finding in foreseen(&loaded.model) {
        eprintln!("{finding}");
    }
    let tables = Foreseen::of(&loaded.model);
    if let Some(finding) = tables.warning() {
        eprintln!("{finding}");
    }
    if args.effective {
        output::text(&loaded.effective())?;
        return Ok(ExitCode::SUCCESS);
    }
    summary(args.output, &loaded, &tables)?;
    Ok(ExitCode::SUCCESS)
}

/// Checks what only a plan shows: capacities, and a slot for every positive weight.
fn plannable(model: &Model) -> Result<(), Failure> {
    // Neither interfaces nor next hops matter for the rings.
    let nothing = (Snapshot::default(), Resolutions::new());
    let machine = Machine { links: &nothing.0, resolutions: &nothing.1 };
    let assembled = daemon::assemble(model, &[], machine, &Uses::new());
    let desired = assembled.desired;
    let planned = plan(
        &Observed { size: size(model), ..Observed::default() },
        &desired,
        &mut Memo::default(),
        &History::default(),
    );
    planned.map(drop).map_err(|errors| Failure::bad_input(daemon::Error::Plan(errors)))
}

fn summary(output: Output, loaded: &Loaded, tables: &Foreseen) -> Result<(), Failure> {
    let model = &loaded.model;
    let (size, memory) = (&tables.size, tables.memory.total());
    let pairs: usize = model.services.iter().map(|service| service.backends.len()).sum();
    let slots = daemon::slots(model);
    let warnings = loaded.warnings.len() + foreseen(model).len() + tables.warning().iter().len();
    let mut value = json!({
        "valid": true,
        "warnings": warnings,
        "services": model.services.len(),
        "service_backends": pairs,
        "ring_slots": slots,
        "ring_pool": size.ring_slots,
        "memory_bytes": memory,
    });
    tables.json().into_iter().for_each(|(key, found)| value[key] = found);
    output::print(output, &value, || {
        format!(
            "valid: {} services, {pairs} backends; rings and schedules {slots} of {} slots; maps {} on {} CPUs\n{}",
            model.services.len(),
            size.ring_slots,
            mib(memory),
            possible_cpus(),
            tables.text(),
        )
    })
}
