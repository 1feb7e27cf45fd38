//! `lb drain --wait`: until nothing is left of the flows of drained backends.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use super::args::Context;
use super::drains;
use super::error::Failure;
use super::view::{BackendView, View};

/// How often is looked.
const LOOK: Duration = Duration::from_secs(1);

/// Waits until the backends (POOL/ADDRESS) have no flow left, and says how far it is; fails when their deadline comes, or
/// they drain no more.
pub(super) fn until_empty(context: &Context, meant: &[String]) -> Result<ExitCode, Failure> {
    let mut told = String::new();
    loop {
        let view = View::read(context)?;
        let ours = |service: &str, backend: &BackendView| {
            let pools = view.pools.get(service).into_iter();
            pools.map(|pool| format!("{pool}/{}", backend.address)).any(|name| meant.contains(&name))
        };
        let backends: Vec<&BackendView> = view
            .services
            .iter()
            .flat_map(|service| service.backends.iter().filter(|b| ours(&service.id, b)))
            .collect();
        if backends.iter().any(|backend| backend.drain.is_some_and(|progress| progress.is_over())) {
            return Err(Failure::failed("the deadline has come: what was left of its flows has moved"));
        }
        if let Some(other) = backends.iter().find(|backend| backend.drain.is_none()) {
            return Err(Failure::failed(format!("{} is {} and does not drain", other.address, other.state)));
        }
        let left = backends.iter().filter_map(|b| Some(format!("{}: {}", b.address, drains::words(b)?)));
        let left = left.collect::<Vec<_>>().join("; ");
        if backends.iter().all(|backend| backend.drain.is_some_and(|progress| progress.is_empty())) {
            eprintln!("{left}");
            return Ok(ExitCode::SUCCESS);
        }
        if left != told && (std::io::stderr().is_terminal() || told.is_empty()) {
            eprintln!("{left}");
        }
        told = left;
        std::thread::sleep(LOOK);
    }
}
