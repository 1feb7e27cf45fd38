//! The command line: parses it, sets the stage (namespace, logging), runs one command, prints, sets the exit code.

mod args;
mod attach;
mod backend_args;
mod backend_host;
mod backends;
mod blast;
mod capture;
mod check;
mod confirm;
mod decap;
mod decap_args;
mod detach;
mod doctor;
mod drains;
mod error;
mod explain;
mod interfaces;
mod memory;
mod order;
mod output;
mod packet_args;
mod ring;
mod simulate;
mod status;
mod time;
mod validate;
mod view;
mod waiting;

use std::process::ExitCode;

use clap::Parser;

use args::{Command, Options, OrderArgs};
use error::{BAD_INPUT, Failure};

use crate::daemon::Word;

/// Runs `lb` with the process's arguments.
pub fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) => {
            let help = !error.use_stderr();
            let _closed_pipe = error.print();
            return if help { ExitCode::SUCCESS } else { ExitCode::from(BAD_INPUT) };
        }
    };
    match run(options) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("{failure}");
            failure.code()
        }
    }
}

fn run(options: Options) -> Result<ExitCode, Failure> {
    args::start_logging(&options);
    if let Some(name) = &options.netns {
        args::enter(name)?;
    }
    let context = &options.context;
    match options.command {
        Command::Validate(args) => validate::run(&args),
        Command::Run { config, watch } => attach::run(context, config, watch),
        Command::Attach(args) => attach::attach(context, &args),
        Command::Confirm => confirm::confirm(context),
        Command::Undo { interface, seconds } => confirm::undo(context, &interface, seconds),
        Command::Detach { interface, force } => detach::run(context, &interface, force),
        Command::Apply(args) => attach::apply(context, &args),
        Command::Status { output } => status::status(context, output),
        Command::Services { output } => status::services(context, output),
        Command::Backends(args) => backends::run(context, &args),
        Command::Drain(args) => order::drain(context, &args),
        Command::Disable(args) => order::run(context, &args, Word::Disable),
        Command::Enable { backend } => {
            let args = OrderArgs { backend, until: None, reason: None, force: false };
            order::run(context, &args, Word::Enable)
        }
        Command::Check(args) => check::run(context, &args),
        Command::Events => check::events(context),
        Command::Counters { output } => status::counters(context, output),
        Command::Simulate(args) => simulate::run(context, &args),
        Command::Doctor(args) => doctor::run(context, &args),
        Command::Explain(args) => explain::run(context, &args),
        Command::Capture(args) => capture::run(context, &args),
        Command::Ring(args) => ring::run(&args),
        Command::Decap(args) => decap::run(&args),
        Command::Backend { command } => backend_host::run(&command),
        Command::Lab { command } => crate::lab::run(command).map_err(Failure::from),
    }
}
