//! What is wrong with a backend: findings LB250 to LB279 out of facts. Pure.

mod tunnel;

use std::net::IpAddr;

use super::finding::{Finding, Severity};
use crate::backend::{Act, Facts, PortState, Setting, Settings, Wanted, plan};
use crate::model::Prefix;
use crate::netlink::Usable;

/// Checks a backend.
pub fn backend(wanted: &Wanted, facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![link(facts)];
    findings.extend(wanted.vips.iter().map(|vip| own(vip, facts)));
    findings.extend(wanted.vips.iter().flat_map(|vip| astray(vip, facts)));
    if wanted.has_v4() {
        findings.extend(facts.segment.iter().flat_map(|name| quiet(name, facts)));
    }
    if wanted.has_v6() {
        findings.push(ipv6(wanted, facts));
    }
    findings.push(way_back(wanted, facts));
    if wanted.way.is_tunnel() {
        findings.extend(tunnel::checks(wanted, facts));
    }
    findings.extend(ports(wanted, facts));
    findings
}

/// The command of the plan's step that a closure picks.
fn remedy(wanted: &Wanted, facts: &Facts, pick: impl Fn(&Act) -> bool) -> String {
    let steps = plan(wanted, facts).into_iter().filter(|step| step.needed && pick(&step.act));
    steps.map(|step| step.act.to_string()).collect::<Vec<_>>().join("\n")
}

fn link(facts: &Facts) -> Finding {
    let name = &facts.link.name;
    match &facts.link.trouble {
        None => Finding::ok("LB250", name, "up"),
        Some(trouble) => Finding::new("LB250", Severity::Problem, name, trouble)
            .why("nothing comes in from the balancer")
            .fix(if trouble.ends_with("down") {
                format!("ip link set {name} up")
            } else {
                "look at cable and switch".into()
            }),
    }
}

/// Whether the host takes packets for a service address.
fn own(vip: &Prefix, facts: &Facts) -> Finding {
    if facts.is_own(vip) {
        return Finding::ok("LB251", "lo", format!("has {vip}"));
    }
    let act = if vip.is_host() { Act::Hold(*vip) } else { Act::Local(*vip) };
    Finding::new("LB251", Severity::Problem, "lo", format!("{vip} is not there"))
        .why("packets for the service are not the host's: it drops them, or forwards them back")
        .fixable(act.to_string())
}

/// Where else a service address is.
fn astray(vip: &Prefix, facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for held in facts.held.iter().filter(|held| vip.contains(held.address)) {
        let (name, address) = (&held.interface, held.address);
        let remove = format!("ip address del {address}/{} dev {name}", held.prefix_len);
        if name != "lo" {
            let asked = if address.is_ipv4() { "ARP requests" } else { "neighbour solicitations" };
            let what = format!("has the service address {address}");
            let finding = Finding::new("LB252", Severity::Problem, name, what)
                .why(format!("{asked} for it are answered from here, beside the balancer's answers"));
            findings.push(finding.fix(remove.clone()));
        }
        let state = match held.usable {
            Usable::Yes => continue,
            Usable::Asking => "is still being asked for on the segment",
            Usable::Taken => "was found to be another host's, the balancer's",
        };
        let finding = Finding::new("LB253", Severity::Problem, name, format!("{address} {state}"))
            .why("the host does not use it; nobody can listen on it")
            .fix(format!("{remove}\n{}", Act::Hold(Prefix::host(address))));
        findings.push(finding);
    }
    findings
}

/// The settings that decide what an interface says and takes.
fn quiet(name: &str, facts: &Facts) -> Vec<Finding> {
    let effective = |setting| facts.settings.effective(name, setting);
    let set = |setting, value| Act::Set(Setting { path: Settings::v4(name, setting), value }).to_string();
    let mut findings = Vec::new();
    if let Some(value) = effective("arp_ignore") {
        findings.push(match value {
            1 | 2 | 8 => Finding::ok("LB254", name, format!("arp_ignore is {value}")),
            _ => Finding::new("LB254", Severity::Problem, name, format!("arp_ignore is {value} in effect"))
                .why("ARP requests for the service addresses on lo are answered here: clients come past the balancer")
                .fixable(set("arp_ignore", 1)),
        });
    }
    if let Some(value) = effective("arp_announce") {
        findings.push(match value {
            2 => Finding::ok("LB255", name, "arp_announce is 2"),
            _ => Finding::new("LB255", Severity::Problem, name, format!("arp_announce is {value} in effect"))
                .why("answers ask for their next hop in the name of the service address: routers then send to it here")
                .fixable(set("arp_announce", 2)),
        });
    }
    findings.extend(effective("rp_filter").map(|value| rp_filter(name, value, facts)));
    findings
}

fn rp_filter(name: &str, value: i64, facts: &Facts) -> Finding {
    if value != 1 {
        return Finding::ok("LB256", name, format!("rp_filter is {value}"));
    }
    let set = Act::Set(Setting { path: Settings::v4(name, "rp_filter"), value: 2 });
    let what = "rp_filter is 1 (strict) in effect";
    let elsewhere: Vec<&str> =
        facts.answers_v4.iter().map(String::as_str).filter(|other| *other != name).collect();
    let finding = if elsewhere.is_empty() {
        Finding::new("LB256", Severity::Notice, name, what)
            .why(format!("it works as long as answers to all clients leave through {name}"))
    } else {
        let why = format!(
            "answers leave through {}: requests that come in by {name} are dropped",
            elsewhere.join(", ")
        );
        Finding::new("LB256", Severity::Problem, name, what).why(why)
    };
    finding.fixable(set.to_string())
}

fn ipv6(wanted: &Wanted, facts: &Facts) -> Finding {
    let off = |name: &&str| facts.settings.get(&Settings::v6(name, "disable_ipv6")) != Some(0);
    let off: Vec<&str> = ["lo", &wanted.interface].into_iter().filter(off).collect();
    if off.is_empty() {
        return Finding::ok("LB257", &wanted.interface, "IPv6 is on");
    }
    let finding = Finding::new("LB257", Severity::Problem, off.join(", "), "IPv6 is off")
        .why("the service's IPv6 address cannot be used");
    let set = |act: &Act| matches!(act, Act::Set(setting) if setting.path.ends_with("disable_ipv6"));
    match remedy(wanted, facts, set) {
        none if none.is_empty() => finding.fix("use a kernel with IPv6 (without ipv6.disable=1)"),
        commands => finding.fixable(commands),
    }
}

/// Whether answers to anybody find a way out.
fn way_back(wanted: &Wanted, facts: &Facts) -> Finding {
    let families = [
        ("IPv4", wanted.has_v4() && facts.answers_v4.is_empty()),
        ("IPv6", wanted.has_v6() && facts.answers_v6.is_empty()),
    ];
    let without: Vec<&str> = families.into_iter().filter(|(_, lacks)| *lacks).map(|(name, _)| name).collect();
    if without.is_empty() {
        let ways = facts.ways_out(wanted.has_v4(), wanted.has_v6()).into_iter().collect::<Vec<_>>();
        return Finding::ok("LB258", "routes", format!("answers leave through {}", ways.join(", ")));
    }
    Finding::new("LB258", Severity::Warning, "routes", format!("no default route of {}", without.join(", ")))
        .why("the backend answers clients directly: those without a route of their own get no answer")
        .fix("ip route add default via ROUTER")
}

fn ports(wanted: &Wanted, facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (vip, port) in wanted.vips.iter().flat_map(|vip| wanted.ports.iter().map(move |port| (vip, *port))) {
        let place = format!("{vip} {port}");
        let problem = |what: String| {
            Finding::new("LB259", Severity::Problem, place.clone(), what)
                .why("connections through the balancer are refused")
                .fix("have the server listen on the service address or on all, on the service's own port")
        };
        findings.push(match facts.port(vip, port) {
            PortState::Served => Finding::ok("LB259", place, "somebody listens"),
            PortState::Nobody => problem("nobody listens".to_owned()),
            PortState::Elsewhere(address) => {
                problem(format!("the server listens on {} only", shown(address)))
            }
        });
    }
    findings
}

fn shown(address: IpAddr) -> String {
    if address.is_unspecified() { format!("{address}, the other family's") } else { address.to_string() }
}

#[cfg(test)]
mod tests;
