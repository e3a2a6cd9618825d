//! `shoal bench`: load on a served model, and what it measured.
//!
//! Closed loop: so many requests in flight, the next begins when one ends. Open loop: requests begin at
//! random moments of a given rate whatever the server does, and times count from the moment a request was
//! due, so that a slow server is not asked less.

mod histogram;
mod load;
mod prompt;
mod report;
mod request;

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::{State, target::Target};
use crate::failure::Failure;

const EXAMPLES: &str = "\
Examples:
  shoal bench                                         4 at a time, 100 requests
  shoal bench --concurrency 32 --duration 60
  shoal bench --rate 5 --duration 60                  open loop, 5 requests a second
  shoal bench --prompt-tokens 64,512,2048 --max-tokens 32
  shoal bench --shared-prefix 1024 -o json            every prompt begins alike

Prompts are words, about one token each; the report counts the tokens that the server saw. It exits with 1
if no request succeeded.";

/// Measure a fleet under load.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Bench {
    /// Closed loop: requests in flight
    #[arg(long, default_value_t = 4, value_name = "N", conflicts_with = "rate", value_parser = clap::value_parser!(u32).range(1..=4096))]
    concurrency: u32,
    /// Open loop: requests per second
    #[arg(long, value_name = "PER_SECOND", value_parser = rate)]
    rate: Option<f64>,
    /// End after this many requests [default: 100, unless --duration is given]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    requests: Option<u64>,
    /// Begin no request after this many seconds
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    duration: Option<u64>,
    /// Lengths of prompts, in about tokens, used in turn
    #[arg(long, default_value = "128", value_name = "N,N,...", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    prompt_tokens: Vec<u32>,
    /// Begin every prompt with the same words, about so many tokens, beside its own
    #[arg(long, default_value_t = 0, value_name = "N")]
    shared_prefix: u32,
    /// Tokens of each answer; the end-of-sequence token does not end it
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_tokens: u32,
    /// Seed of prompts and of open-loop moments
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Form of the report
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "must be a number of requests per second".to_owned())?;
    if rate > 0.0 && rate <= 100_000.0 {
        Ok(rate)
    } else {
        Err("must be more than 0 and at most 100000".to_owned())
    }
}

/// How requests begin.
#[derive(Debug, Clone, Copy)]
enum Mode {
    Closed { concurrency: u32 },
    Open { rate: f64 },
}

/// What ends the run; the first that is reached does.
#[derive(Debug, Clone, Copy)]
struct Limit {
    requests: u64,
    duration: Option<Duration>,
}

impl Bench {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let (base, model) = self.target.resolve(&self.state).await?;
        let mode =
            self.rate.map_or(Mode::Closed { concurrency: self.concurrency }, |rate| Mode::Open { rate });
        let requests = match (self.requests, self.duration) {
            (Some(requests), _) => requests,
            (None, Some(_)) => u64::MAX,
            (None, None) => 100,
        };
        let limit = Limit { requests, duration: self.duration.map(Duration::from_secs) };
        let prompts = prompt::Prompts::new(self.seed, self.shared_prefix, self.prompt_tokens);
        let sender = request::Sender::new(&base, &model, self.max_tokens);
        let report = load::run(mode, limit, prompts, sender, self.seed).await;
        match self.output {
            Output::Table => print!("{}", report.table()),
            Output::Json => println!("{:#}", report.json()),
        }
        if report.succeeded() { Ok(()) } else { Err(Failure::failed("no request succeeded")) }
    }
}
