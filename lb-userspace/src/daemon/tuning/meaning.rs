//! What a refused setting means, and what to do: the kernel only says a word or two.

use std::io;

use nix::errno::Errno;

use crate::nic::{Change, Context, Facts, Queues, Value};

/// The remedy for a change that the kernel has refused.
pub(super) fn meaning(
    change: &Change,
    error: &io::Error,
    facts: &Facts,
    context: &Context,
    interface: &str,
) -> String {
    let errno = error.raw_os_error().map(Errno::from_raw);
    match (&change.after, errno) {
        (Value::Queues(wanted), _) if exceeds(wanted, facts) => {
            let most = facts.channels.map_or_else(String::new, |channels| Value::Queues(channels.max).to_string());
            format!("the driver has at most {most}")
        }
        (Value::Queues(_), Some(Errno::EINVAL | Errno::EBUSY)) if context.attached => format!(
            "numbers of queues cannot change while a program is attached: `lb detach {interface}`, then start \
             again"
        ),
        (Value::Queues(_), Some(Errno::EINVAL)) => {
            "another setting needs the queues: the indirection table, or the number of the other end's queues on a \
             veth"
                .to_owned()
        }
        (Value::Mtu(_), Some(Errno::EINVAL)) if context.attached => {
            format!("the driver cannot have that MTU with a program attached; `ip -d link show {interface}` tells maxmtu")
        }
        (Value::Mtu(_), Some(Errno::EINVAL)) => {
            format!("the driver cannot have that MTU; `ip -d link show {interface}` tells minmtu and maxmtu")
        }
        (Value::Rings(_), Some(Errno::EINVAL)) => {
            let most = facts.rings.map_or_else(String::new, |rings| Value::Rings(rings.max).to_string());
            format!("the driver has at most {most}, and may want a power of two")
        }
        (Value::Feature { .. }, _) => {
            "the offload is fixed, or cannot change while a program is attached; a native attach may be refused"
                .to_owned()
        }
        (Value::Rss(_), Some(Errno::EINVAL)) => "the table names queues that are not there".to_owned(),
        (Value::Irq { .. }, Some(Errno::EIO)) => {
            "the kernel places this interrupt by itself (a managed interrupt)".to_owned()
        }
        (_, Some(Errno::EOPNOTSUPP)) => "the driver has no such setting; remove it from the config".to_owned(),
        (_, Some(Errno::EPERM | Errno::EACCES)) => "root, or CAP_NET_ADMIN, is needed".to_owned(),
        _ => format!("`dmesg` may say more; `ethtool -i {interface}` names the driver"),
    }
}

fn exceeds(wanted: &Queues, facts: &Facts) -> bool {
    facts.channels.is_some_and(|channels| {
        let max = channels.max;
        wanted.rx > max.rx || wanted.tx > max.tx || wanted.combined > max.combined
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nic::Channels;

    #[test]
    fn every_refusal_says_what_to_do() {
        let queues = |rx| Queues { rx, tx: rx, combined: 0 };
        let channels = Channels { max: queues(4), now: queues(1) };
        let facts = Facts { channels: Some(channels), ..Facts::default() };
        let says = |after: Value, errno: Errno, attached| {
            let change = Change { before: after.clone(), after };
            let context = Context { attached, ..Context::default() };
            meaning(&change, &io::Error::from(errno), &facts, &context, "eth0")
        };
        assert!(says(Value::Queues(queues(8)), Errno::EINVAL, true).contains("at most 4 rx, 4 tx"));
        assert!(says(Value::Queues(queues(2)), Errno::EINVAL, true).contains("lb detach eth0"));
        assert!(says(Value::Queues(queues(2)), Errno::EINVAL, false).contains("veth"));
        assert!(says(Value::Mtu(9000), Errno::EINVAL, false).contains("maxmtu"));
        assert!(says(Value::InputXfrm(1), Errno::EOPNOTSUPP, false).contains("no such setting"));
        assert!(says(Value::Mtu(9000), Errno::EPERM, false).contains("CAP_NET_ADMIN"));
    }
}
