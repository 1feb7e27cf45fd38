//! Guard rails: changes that are more likely a mistake than an intention. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::Finding;
use crate::model::{Model, Service};

/// Findings against going from `old` to `new`: a service may not lose all its backends at once, nor more than half.
pub fn guard(old: &Model, new: &Model) -> Vec<Finding> {
    let pairs = old.services.iter().filter_map(|before| {
        let after = new.services.iter().find(|after| after.id == before.id)?;
        Some((before, after))
    });
    pairs.filter_map(|(before, after)| one(before, after)).collect()
}

fn one(before: &Service, after: &Service) -> Option<Finding> {
    // Who takes no new flows has been drained and may go.
    let old: BTreeSet<IpAddr> =
        before.backends.iter().filter(|b| b.effective_weight() > 0).map(|b| b.address).collect();
    let new: BTreeSet<IpAddr> = after.backends.iter().map(|b| b.address).collect();
    let leaving = old.difference(&new).count();
    if leaving * 2 <= old.len() {
        return None;
    }
    let what = if leaving == old.len() { "all".to_owned() } else { format!("{leaving} of {}", old.len()) };
    Some(Finding::error(
        "LB030",
        format!("service {} ({}): {what} backends would leave at once", after.name, after.id),
        "drain them first (drain: true) and remove them in steps, or use `lb apply --force`",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn model(last: &[u8]) -> Model {
        let backends: String = last.iter().map(|n| format!("{{address: 203.0.113.{n}}}, ")).collect();
        let text = format!(
            "version: 1\nservices: [{{name: web, address: 198.51.100.1, protocol: tcp, port: 80, forwarding: l2, \
             backends: [{backends}]}}]"
        );
        config::parse("test.yaml", &text).unwrap().model
    }

    #[test]
    fn up_to_half_of_a_pool_may_leave() {
        let four = model(&[1, 2, 3, 4]);
        assert!(guard(&four, &model(&[1, 2])).is_empty());
        assert!(guard(&four, &model(&[1, 2, 5, 6])).is_empty());
        assert_eq!(guard(&four, &model(&[1])).len(), 1);
        assert!(guard(&four, &model(&[5, 6, 7, 8]))[0].to_string().contains("all backends would leave"));
    }

    #[test]
    fn drained_backends_may_go() {
        let mut old = model(&[1, 2, 3]);
        for backend in &mut old.services[0].backends[..2] {
            backend.drain = true;
        }
        assert!(guard(&old, &model(&[3])).is_empty());
        assert_eq!(guard(&old, &model(&[1, 2])).len(), 1, "the only one that takes flows leaves");
    }

    #[test]
    fn adding_is_never_refused() {
        assert!(guard(&model(&[1]), &model(&[1, 2, 3, 4, 5])).is_empty());
    }
}
