//! Does what the plan says, step by step, and undoes it. Every step is read first, changed only if needed, written down
//! before it is changed, and verified after.

use super::collect::collect;
use super::error::Error;
use super::facts::Facts;
use super::plan::{Act, DecapCommand, Setting, decap_found, plan};
use super::process;
use super::settings;
use super::state::{Changed, MadeLocal, StateFile, prepared};
use super::wanted::Wanted;
use crate::dataplane::XdpFound;
use crate::netlink::Netlink;

/// The index of `lo` in every network namespace (`LOOPBACK_IFINDEX`, include/net/flow.h).
const LOOPBACK: u32 = 1;

/// Makes the machine a backend; `said` is told each change as soon as it is made. Where a step fails, those before it
/// stay, and [`down`] undoes them.
pub async fn up(netlink: &Netlink, wanted: &Wanted, said: &mut dyn FnMut(&str)) -> Result<(), Error> {
    let mut file = StateFile::open(&wanted.interface)?;
    let facts = collect(netlink, wanted).await?;
    let done = execute(netlink, wanted, &facts, &mut file, said).await;
    // Nothing changed: no file either.
    file.save()?;
    done?;
    let facts = collect(netlink, wanted).await?;
    match plan(wanted, &facts).into_iter().find(|step| step.needed) {
        Some(step) => Err(Error::NoEffect(step.act.to_string())),
        None => Ok(()),
    }
}

async fn execute(
    netlink: &Netlink,
    wanted: &Wanted,
    facts: &Facts,
    file: &mut StateFile,
    said: &mut dyn FnMut(&str),
) -> Result<(), Error> {
    for step in plan(wanted, facts).into_iter().filter(|step| step.needed) {
        match &step.act {
            Act::Set(setting) => set(setting, file)?,
            Act::Hold(vip) => {
                if !file.state.addresses.contains(&vip.network) {
                    file.state.addresses.push(vip.network);
                    file.save()?;
                }
                netlink.add_own(LOOPBACK, vip.network).await?;
            }
            Act::Local(vip) => {
                let made = MadeLocal { network: vip.network, length: vip.length };
                if !file.state.prefixes.contains(&made) {
                    file.state.prefixes.push(made);
                    file.save()?;
                }
                netlink.add_local(LOOPBACK, vip.network, vip.length).await?;
            }
            Act::Decap(command) => decap(netlink, command, facts, file).await?,
        }
        said(&step.act.to_string());
    }
    Ok(())
}

fn set(setting: &Setting, file: &mut StateFile) -> Result<(), Error> {
    let Setting { path, value } = setting;
    if let Some(before) = settings::read(path)? {
        // What it was at first counts, if somebody changed it back meanwhile.
        if !file.state.settings.iter().any(|changed| changed.path == *path) {
            file.state.settings.push(Changed { path: path.clone(), before, ours: *value });
            file.save()?;
        }
    }
    settings::write(path, *value)
}

/// Starts the decapsulator; one of ours that takes less gives way to one that takes both.
async fn decap(
    netlink: &Netlink,
    command: &DecapCommand,
    facts: &Facts,
    file: &mut StateFile,
) -> Result<(), Error> {
    let mut command = command.clone();
    let interface = command.interface.clone();
    let ours = file.state.decap.filter(process::runs);
    match (&facts.link.xdp, ours) {
        (Some(XdpFound::Other { program_id, name }), _) => {
            return Err(Error::ForeignProgram { interface, program_id: *program_id, name: name.clone() });
        }
        (Some(XdpFound::Decap(found)), None) => {
            let command = command.to_string();
            return Err(Error::ForeignDecap { interface, program_id: found.program_id, command });
        }
        (_, Some(started)) => {
            if let Some(found) = decap_found(facts) {
                command.join(found);
            }
            process::stop(&started).await?;
        }
        (None, None) => {}
    }
    file.state.decap = None;
    let started = process::start(netlink, &command, &file.log()).await?;
    file.state.decap = Some(started);
    file.save()
}

/// Undoes what [`up`] has done for an interface, or for all of them in this network namespace. Values that somebody
/// else has changed since stay. Whether there was anything to undo.
pub async fn down(
    netlink: &Netlink,
    interface: Option<&str>,
    said: &mut dyn FnMut(&str),
) -> Result<bool, Error> {
    let there = prepared()?;
    let chosen: Vec<String> =
        there.into_iter().filter(|name| interface.is_none_or(|wanted| wanted == name)).collect();
    let mut first_error = None;
    for name in &chosen {
        let mut file = StateFile::open(name)?;
        if let Err(error) = undo(netlink, &mut file, said).await {
            first_error.get_or_insert(error);
        }
        file.save()?;
    }
    first_error.map_or(Ok(!chosen.is_empty()), Err)
}

/// Addresses first: as soon as the settings are back, the host answers ARP for what `lo` has.
async fn undo(netlink: &Netlink, file: &mut StateFile, said: &mut dyn FnMut(&str)) -> Result<(), Error> {
    while let Some(address) = file.state.addresses.last().copied() {
        if netlink.remove_own(LOOPBACK, address).await? {
            said(&format!("lo: {address} removed"));
        }
        file.state.addresses.pop();
        file.save()?;
    }
    while let Some(MadeLocal { network, length }) = file.state.prefixes.last().copied() {
        let there = netlink.local_prefixes().await?;
        if there.contains(&(network, length, LOOPBACK)) {
            netlink.remove_local(LOOPBACK, network, length).await?;
            said(&format!("lo: {network}/{length} is local no more"));
        }
        file.state.prefixes.pop();
        file.save()?;
    }
    if let Some(started) = file.state.decap {
        process::stop(&started).await?;
        said(&format!("lb decap (process {}) ended", started.pid));
        file.state.decap = None;
        file.save()?;
    }
    while let Some(changed) = file.state.settings.last().cloned() {
        match settings::read(&changed.path)? {
            Some(now) if now == changed.ours => {
                settings::write(&changed.path, changed.before)?;
                said(&format!("{}={}", changed.path, changed.before));
            }
            Some(now) => said(&format!("{} stays {now}: somebody changed it", changed.path)),
            None => {}
        }
        file.state.settings.pop();
        file.save()?;
    }
    Ok(())
}
