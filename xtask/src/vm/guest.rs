//! One virtual machine for one command: its devices, its life, its end. It sees the host's files, writes only into
//! memory, and has a network of its own: three cards on a bridge in a network namespace that ends with it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::image::Image;

const CONSOLE_LINES: usize = 30;
const MEMORY_MIB: &str = "2048";
/// Two are enough for what happens at the same time, and no machine has fewer to give.
const CPUS: &str = "2";
/// A busy host may hold up the test of the timer, which then panics, and the calibration of the TSC, which then runs wild.
const KERNEL_LINE: &str =
    "console=ttyS0 quiet panic=-1 nokaslr mitigations=off clocksource=acpi_pm no_timer_check";

/// Makes the network, then becomes what the arguments say. The host's kernel does here what a switch does; its
/// ports take jumbo frames.
const NETWORK: &str = r#"
echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6
ip link add lbvm type bridge stp_state 0 forward_delay 0 mcast_snooping 0
ip link set lbvm mtu 9216 up
for tap in lbvm0 lbvm1 lbvm2; do
    queues=; if [ $tap = lbvm0 ]; then queues=multi_queue; fi
    ip tuntap add $tap mode tap $queues vnet_hdr
    ip link set $tap mtu 9216 master lbvm up
done
exec "$@"
"#;

/// In the guest, from the shared directory. Output goes through a port of its own, where no terminal changes it;
/// the end is a reset, which the virtual machine does not survive.
const START: &str = r#"
exec </dev/null
hostname lb-guest 2>/dev/null
ip link set lo up
# Not what labs call theirs: Linux 6.1 makes no interface for another namespace with a name that is taken here.
for number in 0 1 2; do ip link set eth$number name card$number; done
ln -s "$(cat /run/lb-vm/modules)" "/lib/modules/$(uname -r)"
for out in /dev/vport*p1; do :; done
sh /run/lb-vm/command >"$out" 2>&1
echo $? >/run/lb-vm/exit
echo b >/proc/sysrq-trigger
"#;

/// Who computes what the guest's processors do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// Software: works everywhere.
    Tcg,
    /// The host's processors; not everywhere where `/dev/kvm` opens.
    Kvm,
}

/// What to run in the guest.
pub struct Task<'a> {
    pub command: &'a [String],
    pub directory: &'a Path,
    pub environment: &'a [(&'a str, String)],
    /// From power on to power off.
    pub limit: Duration,
}

/// Runs it to its end and returns its exit code; what it prints goes to `output` as it comes.
pub fn run(image: &Image, accelerator: Accelerator, task: &Task, output: &mut impl Write) -> Result<i32> {
    let share = Share::new(image, task)?;
    let mut qemu = machine(image, accelerator, &share.directory);
    // It warns of what it does in another way (hash computation without a BPF program of its own).
    let stderr = File::create(share.directory.join("qemu")).context("making the log")?;
    qemu.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
    let mut child = qemu.spawn().context("cannot start the virtual machine")?;
    let stdout = child.stdout.take().context("no output pipe")?;
    let limit = task.limit;
    let ended = thread::scope(|scope| {
        let watcher = scope.spawn(move || wait(&mut child, limit));
        // Its end is the virtual machine's end.
        let copied = copy(BufReader::new(stdout), output);
        let ended = watcher.join().expect("waiting does not panic");
        copied.and(ended)
    });
    if let Err(error) = ended {
        bail!("{error:#}\n{}", share.last_words());
    }
    share.exit_code()
}

fn copy(mut from: impl BufRead, to: &mut impl Write) -> Result<()> {
    loop {
        let bytes = from.fill_buf().context("reading the guest's output")?;
        if bytes.is_empty() {
            return Ok(());
        }
        let count = bytes.len();
        to.write_all(bytes).and_then(|()| to.flush()).context("writing the guest's output")?;
        from.consume(count);
    }
}

fn wait(child: &mut Child, limit: Duration) -> Result<()> {
    let started = Instant::now();
    loop {
        match child.try_wait().context("waiting for the virtual machine")? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => bail!("the virtual machine ended: {status}{}", signal_hint(status.signal())),
            None if started.elapsed() >= limit => {
                child.kill().context("ending the virtual machine")?;
                child.wait().context("waiting for the virtual machine")?;
                bail!("the guest had not ended after {} s", limit.as_secs());
            }
            None => thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn signal_hint(signal: Option<i32>) -> &'static str {
    const SIGKILL: i32 = 9;
    if signal == Some(SIGKILL) { " (out of memory?)" } else { "" }
}

/// The directory that both sides write to; removed when dropped.
struct Share {
    directory: PathBuf,
}

impl Share {
    fn new(image: &Image, task: &Task) -> Result<Self> {
        let name = format!("lb-vm-{}-{}", std::process::id(), image.release);
        let share = Self { directory: std::env::temp_dir().join(name) };
        fs::create_dir(&share.directory).with_context(|| format!("making {}", share.directory.display()))?;
        let write = |name: &str, text: String| {
            fs::write(share.directory.join(name), text).with_context(|| format!("writing {name}"))
        };
        write("start", START.to_owned())?;
        write("modules", image.modules.display().to_string())?;
        write("command", script(task))?;
        Ok(share)
    }

    fn exit_code(&self) -> Result<i32> {
        let text = fs::read_to_string(self.directory.join("exit")).unwrap_or_default();
        let Ok(code) = text.trim().parse() else {
            bail!("the guest ended before its command did\n{}", self.last_words());
        };
        Ok(code)
    }

    /// The end of what the guest's kernel and QEMU said.
    fn last_words(&self) -> String {
        let mut text = String::new();
        for name in ["qemu", "console"] {
            let bytes = fs::read(self.directory.join(name)).unwrap_or_default();
            let said = String::from_utf8_lossy(&bytes).into_owned();
            let lines: Vec<_> = said.lines().map(str::trim_end).collect();
            for line in &lines[lines.len().saturating_sub(CONSOLE_LINES)..] {
                text += &format!("  {name}: {line}\n");
            }
        }
        text
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.directory);
    }
}

/// The command as a shell script, with the path that programs are found by here.
fn script(task: &Task) -> String {
    let inherited = ["PATH", "HOME", "RUST_BACKTRACE"];
    let inherited = inherited.into_iter().filter_map(|name| Some((name, std::env::var(name).ok()?)));
    let own = task.environment.iter().map(|(name, value)| (*name, value.clone()));
    let mut script = String::new();
    for (name, value) in inherited.chain([("LB_VM", "1".to_owned())]).chain(own) {
        script += &format!("export {name}={}\n", quoted(&value));
    }
    script += &format!("cd {} || exit\nexec", quoted(&task.directory.to_string_lossy()));
    task.command.iter().for_each(|word| script += &format!(" {}", quoted(word)));
    script + "\n"
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// QEMU with its devices, in a network namespace of its own, not started yet. It ends with us.
fn machine(image: &Image, accelerator: Accelerator, share: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "unshare", "--net", "sh", "-eu", "-c", NETWORK, "sh"]);
    command.arg("qemu-system-x86_64").args(["-no-user-config", "-nodefaults", "-display", "none"]);
    command.args(["-M", "q35,usb=off,sata=off", "-m", MEMORY_MIB, "-smp", CPUS]);
    // Five levels of page tables cost without need.
    match accelerator {
        Accelerator::Tcg => command.args(["-accel", "tcg,thread=multi", "-cpu", "max,la57=off"]),
        Accelerator::Kvm => command.args(["-accel", "kvm", "-cpu", "host"]),
    };
    command.arg("-kernel").arg(&image.vmlinux).arg("-initrd").arg(&image.initramfs);
    command.args(["-append", KERNEL_LINE, "-no-reboot"]);
    let share = share.display();
    command.args(["-serial", &format!("file:{share}/console")]);
    let host = "local,id=host,path=/,security_model=none,readonly=on,multidevs=remap";
    let share = format!("local,id=share,path={share},security_model=none");
    for (id, description) in [("host", host), ("share", &share)] {
        command.args(["-fsdev", description, "-device", &format!("virtio-9p-pci,fsdev={id},mount_tag={id}")]);
    }
    command.args(["-chardev", "file,id=out,path=/dev/stdout", "-device", "virtio-serial-pci"]);
    command.args(["-device", "virtserialport,chardev=out,nr=1"]);
    for card in [
        // Queues for two processors and as many again for XDP.
        "mq=on,vectors=10,rss=on,hash=on",
        "",
        // As with hosts that do not let their guests switch offloads.
        "ctrl_guest_offloads=off",
    ]
    .into_iter()
    .enumerate()
    {
        network_card(&mut command, card);
    }
    command
}

fn network_card(command: &mut Command, (number, options): (usize, &str)) {
    let queues = if number == 0 { ",queues=4" } else { "" };
    let netdev = format!("tap,id=n{number},ifname=lbvm{number},script=no,downscript=no,vhost=off{queues}");
    let comma = if options.is_empty() { "" } else { "," };
    let device = format!("virtio-net-pci,netdev=n{number},mac=02:00:5e:10:00:0{number}{comma}{options}");
    command.args(["-netdev", &netdev, "-device", &device]);
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::{Task, quoted, script};

    #[test]
    fn words_stay_words() {
        assert_eq!(quoted("it's"), r"'it'\''s'");
        let command = ["sh".to_owned(), "-c".to_owned(), "a b".to_owned()];
        let environment = [("LB_BIN", "/x y/lb".to_owned())];
        let (directory, limit) = (Path::new("/d"), Duration::ZERO);
        let text = script(&Task { command: &command, directory, environment: &environment, limit });
        assert!(
            text.ends_with(
                "export LB_VM='1'\nexport LB_BIN='/x y/lb'\ncd '/d' || exit\nexec 'sh' '-c' 'a b'\n"
            )
        );
    }
}
