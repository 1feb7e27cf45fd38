//! The command line: a handful of words, read by hand, because an argument parser would be most of xtask's
//! compile time on a fresh machine (40 s of CPU time against 2 s).

use crate::vm::{Accelerator, Job, Kernel, Selection};

pub const HELP: &str = "\
Set-up, build, demo, test and bench of the lb workspace.

Usage: cargo xtask <TASK> [ARGUMENTS]

Tasks:
  setup             bring this machine to where everything builds and tests (root; safe to repeat)
  build [--release] build lb and the rest of the host crates
  demo              build lb and run it in a lab of network namespaces (root)
  test [FILTER…]    run all checks and tests (root); with filters only the tests whose name contains one
  vm [--kernel 6.1|6.12] [--kvm] -- COMMAND…
                    run a command in a virtual machine with that kernel (6.12), in this directory and with all
                    files as they are here; what it writes is forgotten (root). Exit code 77: not possible here
  vm-test [--kernel 6.1|6.12] [--kvm] [FILTER…]
                    the tests that are about other kernels, in a virtual machine of each (root)
  fmt [--check]     format all sources, or fail if something is not formatted
  clippy            clippy for the host crates and the eBPF crate; warnings are errors
  tidy              what clippy does not check: layering, file sizes, left-overs, unsafe, machine paths
  bench [FILTER…]   run the benchmarks (root)
  bench packet [ARGUMENTS…]
                    time per packet through the real balancer (root); `-- --help` tells the arguments
  bench consistency [ARGUMENTS…]
                    which connections break, compared with other designs (root); likewise

All tasks but tidy do first what they need of setup.

Examples:
  sudo -E env \"PATH=$PATH\" cargo xtask setup
  cargo xtask build --release
  cargo xtask test maglev ring
";

#[derive(Debug, PartialEq, Eq)]
pub enum Task {
    Help,
    Setup,
    Build(Profile),
    Demo,
    Test { filters: Vec<String> },
    Vm(Job),
    VmTest(Selection),
    Fmt(Formatting),
    Clippy,
    Tidy,
    Bench { filters: Vec<String> },
    BenchPacket { arguments: Vec<String> },
    BenchConsistency { arguments: Vec<String> },
}

#[derive(Debug, PartialEq, Eq)]
pub enum Profile {
    Dev,
    Release,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Formatting {
    Write,
    Check,
}

/// Reads the arguments after the program's name; the error says what is wrong with them.
pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Task, String> {
    let arguments: Vec<String> = arguments.into_iter().collect();
    let asks_help = |word: &String| matches!(word.as_str(), "-h" | "--help");
    // What follows -- is somebody else's.
    if arguments.iter().take_while(|word| *word != "--").any(asks_help) {
        return Ok(Task::Help);
    }
    let Some((name, rest)) = arguments.split_first() else {
        return Err("no task given".into());
    };
    let words: Vec<&str> = rest.iter().map(String::as_str).collect();
    Ok(match (name.as_str(), words.as_slice()) {
        ("help", []) => Task::Help,
        ("setup", []) => Task::Setup,
        ("build", []) => Task::Build(Profile::Dev),
        ("build", ["--release"]) => Task::Build(Profile::Release),
        ("demo", []) => Task::Demo,
        ("test", words) => Task::Test { filters: filters(words)? },
        ("vm", words) => Task::Vm(job(words)?),
        ("vm-test", words) => Task::VmTest(selection(words)?),
        ("fmt", []) => Task::Fmt(Formatting::Write),
        ("fmt", ["--check"]) => Task::Fmt(Formatting::Check),
        ("clippy", []) => Task::Clippy,
        ("tidy", []) => Task::Tidy,
        ("bench", ["packet", "--", arguments @ ..] | ["packet", arguments @ ..]) => {
            Task::BenchPacket { arguments: arguments.iter().map(|word| (*word).to_owned()).collect() }
        }
        ("bench", ["consistency", "--", arguments @ ..] | ["consistency", arguments @ ..]) => {
            Task::BenchConsistency { arguments: arguments.iter().map(|word| (*word).to_owned()).collect() }
        }
        ("bench", words) => Task::Bench { filters: filters(words)? },
        ("help" | "setup" | "build" | "demo" | "fmt" | "clippy" | "tidy", words) => {
            return Err(format!("{name} does not take \"{}\"", words.join(" ")));
        }
        _ => return Err(format!("no task \"{name}\"")),
    })
}

/// What both tasks with virtual machines know: the kernel, if one is named, who computes, and the words behind.
fn machine<'a, 'w>(mut words: &'w [&'a str]) -> Result<(Option<Kernel>, Accelerator, &'w [&'a str]), String> {
    let (mut kernel, mut accelerator) = (None, Accelerator::Tcg);
    loop {
        match words {
            ["--kernel", name, rest @ ..] => {
                let named = Kernel::named(name);
                kernel = Some(named.ok_or_else(|| format!("no kernel \"{name}\" (6.1, 6.12)"))?);
                words = rest;
            }
            ["--kvm", rest @ ..] => (accelerator, words) = (Accelerator::Kvm, rest),
            rest => return Ok((kernel, accelerator, rest)),
        }
    }
}

fn job(words: &[&str]) -> Result<Job, String> {
    let (kernel, accelerator, rest) = machine(words)?;
    match rest {
        ["--", command @ ..] if !command.is_empty() => {
            let command = command.iter().map(|word| (*word).to_owned()).collect();
            Ok(Job { kernel: kernel.unwrap_or(Kernel::V6_12), accelerator, command })
        }
        _ => Err("vm wants `-- COMMAND` at the end".into()),
    }
}

fn selection(words: &[&str]) -> Result<Selection, String> {
    let (kernel, accelerator, rest) = machine(words)?;
    Ok(Selection { kernel, accelerator, filters: filters(rest)? })
}

fn filters(words: &[&str]) -> Result<Vec<String>, String> {
    match words.iter().find(|word| word.starts_with('-')) {
        Some(option) => Err(format!("no option \"{option}\"; filters are parts of names")),
        None => Ok(words.iter().map(|word| (*word).to_owned()).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Formatting, HELP, Profile, Task, parse};
    use crate::vm::{Accelerator, Job, Kernel, Selection};

    fn read(line: &str) -> Result<Task, String> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn tasks() {
        assert_eq!(read("build --release"), Ok(Task::Build(Profile::Release)));
        assert_eq!(read("fmt --check"), Ok(Task::Fmt(Formatting::Check)));
        assert_eq!(read("test a b"), Ok(Task::Test { filters: vec!["a".into(), "b".into()] }));
        assert_eq!(read("test --help"), Ok(Task::Help));
        assert_eq!(read("bench packet"), Ok(Task::BenchPacket { arguments: Vec::new() }));
        let arguments = vec!["--json".into(), "f".into()];
        assert_eq!(read("bench consistency --json f"), Ok(Task::BenchConsistency { arguments }));
        assert_eq!(read("bench datapath"), Ok(Task::Bench { filters: vec!["datapath".into()] }));
        let arguments = vec!["--quick".into(), "--help".into()];
        assert_eq!(read("bench packet -- --quick --help"), Ok(Task::BenchPacket { arguments }));
    }

    #[test]
    fn virtual_machines() {
        let command = vec!["uname".into(), "--help".into()];
        let job = Job { kernel: Kernel::V6_1, accelerator: Accelerator::Kvm, command };
        assert_eq!(read("vm --kvm --kernel 6.1 -- uname --help"), Ok(Task::Vm(job)));
        let all = Selection { kernel: None, accelerator: Accelerator::Tcg, filters: vec!["gre".into()] };
        assert_eq!(read("vm-test gre"), Ok(Task::VmTest(all)));
    }

    #[test]
    fn mistakes_are_named() {
        for (line, word) in [
            ("", "no task"),
            ("tset", "tset"),
            ("build -r", "-r"),
            ("test --x", "--x"),
            ("vm ls", "--"),
            ("vm --", "--"),
            ("vm-test --kernel 5.4", "5.4"),
        ] {
            assert!(read(line).is_err_and(|error| error.contains(word)), "{line}");
        }
    }

    #[test]
    fn help_names_every_task() {
        for task in ["setup", "build", "demo", "test", "vm", "vm-test", "fmt", "clippy", "tidy", "bench"] {
            assert!(HELP.contains(&format!("\n  {task} ")), "{task}");
        }
    }
}
