//! What there is to do, as text: a shell script that an operator can read and run, and a unit for systemd. Pure.

use std::fmt::Write;

use super::facts::Facts;
use super::plan::{Act, DecapCommand, plan, short};
use super::room::Room;
use super::wanted::{MssWish, Wanted};

/// How this program was called, to be called again.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Invocation {
    /// The binary's path.
    pub binary: String,
    /// The interface, always named: at boot another one may be there first.
    pub interface: String,
}

impl Invocation {
    fn up(&self, wanted: &Wanted) -> String {
        let mut words = format!("{} backend up --interface {}", self.binary, self.interface);
        let mut list = |option: &str, values: Vec<String>| {
            if !values.is_empty() {
                let _ = write!(words, " {option} {}", values.join(" "));
            }
        };
        list("--vip", wanted.vips.iter().map(short).collect());
        list("--method", vec![wanted.way.name().to_owned()]);
        list("--from", wanted.from.iter().map(short).collect());
        words
    }
}

/// A shell script that does what is needed. What is so already is a comment.
pub fn script(wanted: &Wanted, facts: &Facts, invocation: &Invocation) -> String {
    let vips: Vec<String> = wanted.vips.iter().map(short).collect();
    let mut text = format!(
        "# A backend of {} by {}, whose packets come in by {}.\n",
        vips.join(", "),
        wanted.way.name(),
        wanted.interface
    );
    if wanted.way.is_tunnel() {
        let _ = writeln!(text, "# {}", sizes(wanted, facts));
    }
    let mut reason = "";
    for step in plan(wanted, facts) {
        if step.why != reason {
            let _ = writeln!(text, "# {}:", step.why);
            reason = step.why;
        }
        let _ = match (&step.act, step.needed) {
            (act, false) => writeln!(text, "# already so: {act}"),
            (Act::Decap(command), true) => {
                let words = command.arguments().join(" ");
                writeln!(text, "nohup {} {words} >/dev/null 2>&1 &", invocation.binary)
            }
            (act, true) => writeln!(text, "{act}"),
        };
    }
    let name = format!("lb-backend-{}", wanted.interface);
    let _ = writeln!(
        text,
        "# None of it survives a reboot. At boot, as /etc/systemd/system/{name}.service (`--unit` prints it alone), then\n\
         # systemctl daemon-reload && systemctl enable {name}"
    );
    for line in unit(wanted, facts, invocation).lines() {
        let _ = writeln!(text, "{}", format!("#   {line}").trim_end());
    }
    text
}

/// What the tunnel leaves of the MTU, in a sentence.
pub fn sizes(wanted: &Wanted, facts: &Facts) -> String {
    let room = Room::of(wanted, facts.link.mtu);
    let mss = room.mss();
    let told = match wanted.mss {
        MssWish::Fit => "clients are told so".to_owned(),
        MssWish::To(value) => format!("clients are told {value}"),
        MssWish::Leave => "clients are told by ICMP only".to_owned(),
    };
    format!(
        "The MTU of {} is {}, {} takes {} of it: clients' packets up to {} bytes fit, MSS {} (IPv6 {}); {told}.",
        wanted.interface,
        facts.link.mtu,
        wanted.way.name(),
        room.overhead,
        room.packet,
        mss.v4,
        mss.v6
    )
}

/// A unit that makes the machine a backend at boot. With a tunnel it is the decapsulator's, which systemd starts again.
pub fn unit(wanted: &Wanted, facts: &Facts, invocation: &Invocation) -> String {
    let vips: Vec<String> = wanted.vips.iter().map(short).collect();
    let up = invocation.up(wanted);
    let down = format!("{} backend down --interface {}", invocation.binary, wanted.interface);
    let decap =
        plan(&Wanted { starts_decap: true, ..wanted.clone() }, facts).into_iter().find_map(|step| match step
            .act
        {
            Act::Decap(command) => Some(command),
            _ => None,
        });
    let service = match decap {
        None => format!("Type=oneshot\nRemainAfterExit=yes\nExecStart={up} --apply\nExecStop={down}\n"),
        Some(command) => with_decap(&up, &down, &command, invocation),
    };
    format!(
        "[Unit]\nDescription=Load balancer's backend: {} by {}\nWants=network-online.target\n\
         After=network-online.target\n\n[Service]\n{service}\n[Install]\nWantedBy=multi-user.target\n",
        vips.join(" "),
        wanted.way.name()
    )
}

fn with_decap(up: &str, down: &str, command: &DecapCommand, invocation: &Invocation) -> String {
    format!(
        "ExecStartPre={up} --no-decap --apply\nExecStart={} {}\nExecStopPost={down}\nRestart=always\nRestartSec=1\n",
        invocation.binary,
        command.arguments().join(" ")
    )
}
