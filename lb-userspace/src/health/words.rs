//! Why a probe through a service failed, in words that name the likely cause. Pure.

use std::net::IpAddr;

use super::probe::{Failure, Stage};

/// How a backend is reached, for people.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Way {
    /// MAC rewrite on the same segment.
    L2,
    /// Encapsulation, by its name.
    Tunnel(&'static str),
}

impl Way {
    fn phrase(self) -> String {
        match self {
            Self::L2 => "by l2".to_owned(),
            Self::Tunnel(name) => format!("through the tunnel ({name})"),
        }
    }
}

/// What the failure of a probe to `service` at `backend` means.
pub fn through_service(way: Way, service: IpAddr, failure: &Failure) -> String {
    match failure {
        Failure::Refused => format!("connection refused at the service address {service}"),
        Failure::Timeout { stage: Stage::Connect, .. } => {
            format!("service address {service} not answering {}", way.phrase())
        }
        Failure::NoWay(why) => why.clone(),
        other => format!("{other}, asked at {service} {}", way.phrase()),
    }
}

/// What it adds that the backend's own address answers, or does not.
pub fn compared(
    way: Way,
    service: IpAddr,
    backend: IpAddr,
    failure: &Failure,
    direct: Result<(), &Failure>,
) -> String {
    let first = through_service(way, service, failure);
    match (direct, failure, way) {
        (Err(direct), _, _) => format!("{first}; nor does {backend} itself work: {direct}"),
        (Ok(()), Failure::Refused, _) => {
            format!("{first}; {backend} itself accepts: its application does not listen on {service}")
        }
        (Ok(()), _, Way::L2) => {
            format!("{first}; {backend} itself answers: is {service} on its lo, and is rp_filter off?")
        }
        (Ok(()), _, Way::Tunnel(_)) => format!(
            "{first}; {backend} itself answers: does it decapsulate (`lb decap`), and is {service} on its lo?"
        ),
    }
}

/// What it adds that the backend itself, or a router, has refused tunnel packets by ICMP (RFC 792) lately.
pub fn refused_by_icmp(first: &str, backend: IpAddr, code: u8) -> String {
    match code {
        2 => format!(
            "{first}; {backend} does not decapsulate (ICMP protocol unreachable): run `lb decap` there"
        ),
        3 => format!("{first}; {backend} does not decapsulate (ICMP port unreachable)"),
        0 | 6 | 9 | 11 => format!("{first}; a router has no way to {backend} (ICMP network unreachable)"),
        10 | 13 => format!("{first}; the way to {backend} is prohibited (ICMP, code {code})"),
        _ => format!("{first}; {backend} is unreachable (ICMP host unreachable)"),
    }
}
