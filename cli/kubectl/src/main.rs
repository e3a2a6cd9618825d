//! `kubectl shoal`: what a fleet in Kubernetes does, and what stands in its way.
//!
//! ```text
//! command/  one file per command: arguments, then a call
//! cluster/  what is read: the API server page by page, pods and gateways through its proxy
//! view/     objects to what is shown; pure
//! doctor/   checks, each with its remedy
//! report/   an archive of all that can be seen, redacted
//! ```
//! It never writes, reads no Secret, and goes on with what it may see.

mod cluster;
mod command;
mod doctor;
mod report;
mod view;

use std::process::ExitCode;

use clap::Parser as _;
use shoal_terminal::{failure::Kind, style};

use command::Verdict;

fn main() -> ExitCode {
    let arguments = command::Arguments::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start threads: {error}");
            return ExitCode::from(Kind::Failed as u8);
        }
    };
    let outcome = runtime.block_on(arguments.run());
    // A read of the terminal that nobody waits for must not hold the process.
    runtime.shutdown_background();
    match outcome {
        Ok(Verdict::Fine) => ExitCode::SUCCESS,
        Ok(Verdict::Problem) => ExitCode::from(Kind::Failed as u8),
        Err(failure) => {
            eprintln!("{} {failure}", style::error("error:"));
            ExitCode::from(failure.kind as u8)
        }
    }
}
