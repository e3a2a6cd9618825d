//! `shoal`: a serving fleet on this machine, and the tools to talk to one.
//!
//! ```text
//! command/  one file per command: arguments, then a call
//! local/    local mode: observe processes, plan (shoal-plan), apply, publish status; state is a directory
//! present/  fleets as tables, the live view
//! ```
//! Client of the OpenAI API, conversation, tables and exit codes: `terminal/`, shared with `kubectl-shoal`.

mod command;
mod local;
mod present;

use std::process::ExitCode;

use clap::Parser;
use shoal_terminal::{failure, http};

fn main() -> ExitCode {
    let arguments = command::Arguments::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start threads: {error}");
            return ExitCode::from(failure::Kind::Failed as u8);
        }
    };
    let outcome = runtime.block_on(arguments.run());
    // A read of the terminal that nobody waits for must not hold the process.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{} {failure}", present::style::error("error:"));
            ExitCode::from(failure.kind as u8)
        }
    }
}
