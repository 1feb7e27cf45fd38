//! Running other programs: in the foreground, or quietly with the end of their output shown on failure.

use std::collections::VecDeque;
use std::env;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

const TAIL_LINES: usize = 40;

/// The cargo that runs us, without the variables it adds for `cargo run`: some build scripts watch them and
/// would run again each time somebody changes between `cargo` and `cargo xtask`.
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") || text == "LD_LIBRARY_PATH"
        {
            command.env_remove(&name);
        }
    }
    command
}

/// Runs in the foreground; the error names the command.
pub fn stream(command: &mut Command) -> Result<()> {
    let shown = display(command);
    let status = command.status().with_context(|| format!("cannot start: {shown}"))?;
    if !status.success() {
        bail!("failed ({status}): {shown}");
    }
    Ok(())
}

/// Runs quietly: one line before, the last lines of the output on failure.
pub fn quiet(label: &str, command: &mut Command) -> Result<()> {
    println!("{label} …");
    let started = Instant::now();
    let shown = display(command);
    let (reader, writer) = std::io::pipe()?;
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn().with_context(|| format!("cannot start: {shown}"))?;
    // The command holds our copies of the pipe's write end, and the reader sees its end only without them.
    command.stdout(Stdio::null()).stderr(Stdio::null());

    let mut tail = VecDeque::new();
    for line in BufReader::new(reader).split(b'\n') {
        if tail.len() == TAIL_LINES {
            tail.pop_front();
        }
        tail.push_back(String::from_utf8_lossy(&line?).into_owned());
    }
    let status = child.wait()?;
    if !status.success() {
        for line in tail {
            eprintln!("  | {line}");
        }
        bail!("failed ({status}): {shown}");
    }
    println!("{label}: done in {:.0} s", started.elapsed().as_secs_f64());
    Ok(())
}

/// A program in `PATH` or in the administrator's directories, which a plain user's `PATH` lacks.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// A script among the arguments is of no use in a message.
fn display(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy();
    command.get_args().map(|arg| arg.to_string_lossy()).fold(program.into_owned(), |text, arg| {
        let arg = if arg.contains('\n') { "(script)" } else { &arg };
        text + " " + arg
    })
}
