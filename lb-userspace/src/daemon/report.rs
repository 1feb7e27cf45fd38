//! What has been done, for logs and clients.

use super::{Applied, Error, Reply};
use crate::netlink::{Resolution, Resolutions};

/// The answer to a client that had a config applied.
pub(super) fn reply(result: Result<Applied, Error>) -> Reply {
    match result {
        Ok(applied) => Reply {
            steps: applied.steps,
            warnings: applied.warnings.iter().map(ToString::to_string).collect(),
            objections: applied.objections.iter().map(ToString::to_string).collect(),
            blast: applied.blast,
            generation: applied.generation,
            ..Reply::default()
        },
        Err(error) => Reply::failed(&error),
    }
}

/// Logs what was applied.
pub(super) fn report(applied: &Applied) {
    for warning in &applied.warnings {
        tracing::warn!("{warning}");
    }
    for step in &applied.steps {
        tracing::info!("{step}");
    }
    tracing::info!(generation = applied.generation, "config in force");
}

/// Logs the backends that cannot be sent to.
pub(super) fn unreachable_backends(resolutions: &Resolutions) {
    for (address, resolution) in resolutions {
        match resolution {
            Resolution::Unresolved { via, why, .. } => {
                tracing::warn!(%address, %via, why, "backend has no next hop")
            }
            Resolution::Unroutable(why) => tracing::warn!(%address, why, "backend has no route"),
            Resolution::Resolved(_) | Resolution::Local => {}
        }
    }
}
