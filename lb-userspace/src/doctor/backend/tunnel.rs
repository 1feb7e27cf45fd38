//! What is wrong with a tunnel's end on a backend: the decapsulator, its lists, and what fits. Pure.

use crate::backend::{
    Act, DecapCommand, Facts, MssWish, Room, Wanted, missing, plan, short, sizes, unclamped,
};
use crate::dataplane::{Clamped, DecapFound, XdpFound};
use crate::doctor::finding::{Finding, Severity};
use crate::model::Prefix;

/// Checks the tunnel.
pub(super) fn checks(wanted: &Wanted, facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![room(wanted, facts)];
    let interface = &facts.link.name;
    match &facts.link.xdp {
        None => findings.push(
            Finding::new("LB261", Severity::Problem, interface, "no decapsulator is attached")
                .why("the kernel drops the tunnel's packets, and answers them with ICMP errors")
                .fixable(command(wanted, facts)),
        ),
        Some(XdpFound::Other { program_id, name }) => {
            let what = format!("has another XDP program, {name} (program {program_id})");
            let finding = Finding::new("LB262", Severity::Problem, interface, what)
                .why("an interface has room for one: the decapsulator cannot be attached");
            findings.push(finding.fix(format!("ip link set dev {interface} xdp off")));
        }
        Some(XdpFound::Decap(found)) => {
            let what = format!("decapsulator attached (program {})", found.program_id);
            findings.push(Finding::ok("LB261", interface, what));
            findings.extend(lists(wanted, facts, found));
            findings.push(mss(wanted, facts));
        }
    }
    findings
}

/// How the decapsulator should run.
fn command(wanted: &Wanted, facts: &Facts) -> String {
    let of = |act: Act| match act {
        Act::Decap(command) => Some(command),
        _ => None,
    };
    let wanted = Wanted { starts_decap: true, ..wanted.clone() };
    let found = plan(&wanted, facts).into_iter().find_map(|step| of(step.act));
    found.as_ref().map(DecapCommand::to_string).unwrap_or_default()
}

/// A finding that starting the decapsulator anew puts right; `--fix` does that with one of ours only.
fn anew(finding: Finding, wanted: &Wanted, facts: &Facts) -> Finding {
    let command = command(wanted, facts);
    if facts.link.our_decap.is_some() {
        finding.fixable(command)
    } else {
        finding.fix(format!("stop the decapsulator and start it as: {command}"))
    }
}

fn lists(wanted: &Wanted, facts: &Facts, found: &DecapFound) -> Vec<Finding> {
    let interface = &facts.link.name;
    let pairs = [
        (
            "LB263",
            "service address",
            "packets for it are dropped (foreign_destination)",
            &wanted.vips,
            &found.vips,
        ),
        ("LB264", "balancer", "what it sends is dropped (foreign_source)", &wanted.from, &found.sources),
    ];
    let check = |(code, noun, why, wanted_list, there): (_, &str, &str, &Vec<Prefix>, &Vec<Prefix>)| {
        let lacking: Vec<String> = missing(wanted_list, there).iter().map(short).collect();
        if lacking.is_empty() {
            let all: Vec<String> = there.iter().map(short).collect();
            return Finding::ok(code, interface, format!("{noun}: {} accepted", all.join(", ")));
        }
        let what = format!("the decapsulator does not take the {noun} {}", lacking.join(", "));
        anew(Finding::new(code, Severity::Problem, interface, what).why(why), wanted, facts)
    };
    pairs.into_iter().map(check).collect()
}

fn mss(wanted: &Wanted, facts: &Facts) -> Finding {
    let open: Vec<String> = unclamped(wanted, facts).into_iter().collect();
    if wanted.mss == MssWish::Leave {
        return Finding::ok("LB265", &facts.link.name, "the MSS is left alone, as wanted");
    }
    if open.is_empty() && facts.clamped.values().any(|found| *found == Clamped::Unseen) {
        let what = "this kernel does not say whether the MSS is lowered (`tc filter show dev … egress` does)";
        return Finding::ok("LB265", &facts.link.name, what);
    }
    if open.is_empty() {
        return Finding::ok("LB265", &facts.link.name, "clients are told an MSS that fits the tunnel");
    }
    let what = "answers leave without an MSS that fits the tunnel";
    let finding = Finding::new("LB265", Severity::Warning, open.join(", "), what).why(
        "full-size segments do not fit: clients learn that by ICMP after the first one, and those that hear no ICMP \
         hang",
    );
    anew(finding, wanted, facts)
}

fn room(wanted: &Wanted, facts: &Facts) -> Finding {
    let (name, mtu) = (&facts.link.name, facts.link.mtu);
    let (room, least) = (Room::of(wanted, mtu), Room::least(wanted));
    if room.packet >= least {
        return Finding::ok("LB260", name, sizes(wanted, facts));
    }
    let what = format!("an MTU of {mtu} leaves {} bytes in the tunnel", room.packet);
    Finding::new("LB260", Severity::Problem, name, what)
        .why(format!(
            "packets of {least} bytes must fit for these service addresses, whatever clients are told"
        ))
        .fix(format!("ip link set {name} mtu {}", least + room.overhead))
}
