//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::limits::{Limits, seconds};
use crate::route::{Placement, Policy};

/// Serves the OpenAI HTTP API for a fleet of Shoal engines.
#[derive(Debug, clap::Parser)]
#[command(name = "shoal-gateway", version)]
pub struct Options {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:8000")]
    pub listen: SocketAddr,
    /// Model file or directory; its tokenizer and chat template are read, its weights are not
    #[arg(long)]
    pub model: PathBuf,
    /// Name of the model in the API
    #[arg(long)]
    pub model_name: String,
    #[command(flatten)]
    pub fleet: FleetOptions,
    /// File with the fleet's secret (32 to 4096 bytes)
    #[arg(long)]
    pub secret_file: PathBuf,
    /// Folder with ca.crt, tls.crt and tls.key: engines are called within mutual TLS, and must have a certificate of that
    /// authority for the same name; followed when the files change
    #[arg(long, value_name = "DIR")]
    pub tls_dir: Option<PathBuf>,
    /// Where to write {"url", "pid"} once the gateway listens
    #[arg(long)]
    pub ready_file: Option<PathBuf>,
    /// API keys, one per line, as such or as `blake3:<hex>`; without it /v1 is open to whoever reaches it
    #[arg(long)]
    pub api_key_file: Option<PathBuf>,
    #[command(flatten)]
    pub limits: Limits,
    /// Seconds a request may take in all
    #[arg(long, default_value = "600", value_parser = seconds)]
    pub request_timeout: Duration,
    /// Seconds without any event after which a decode instance counts as stalled; engines send one each second
    #[arg(long, default_value = "3", value_parser = seconds)]
    pub stall_timeout: Duration,
    /// Seconds a request whose decode instance was lost waits for another to take it over
    #[arg(long, default_value = "30", value_parser = seconds)]
    pub failover_wait: Duration,
    /// Seconds a new request waits for a decode instance that is starting or being replaced
    #[arg(long, default_value = "5", value_parser = seconds)]
    pub arrival_wait: Duration,
    /// Seconds that running streams get after the first SIGTERM or SIGINT; a second one ends at once
    #[arg(long, default_value = "30", value_parser = seconds)]
    pub shutdown_grace: Duration,
    /// Threads that serve requests, 1 to 256; half of the cores if not given: the kernel's work on sockets needs room
    /// too
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: Option<u16>,
    /// Where prompts are prefilled
    #[arg(long, value_enum, default_value_t)]
    pub prefill: Placement,
    /// What to log: a level, or targets with levels
    #[arg(long, default_value = "info", env = "SHOAL_LOG")]
    pub log: String,
}

/// Where the engines are: one of both.
#[derive(Debug, Clone, clap::Args)]
#[group(required = true, multiple = false)]
pub struct FleetOptions {
    /// JSON file that lists the fleet: {"instances": [{"name": "...", "grpc": "host:port"}]}; followed
    #[arg(long, value_name = "FILE")]
    pub instances: Option<PathBuf>,
    /// Label selector of the fleet's pods in this pod's own namespace; watched at the API server
    #[arg(long, value_name = "SELECTOR")]
    pub pods: Option<String>,
}

impl Options {
    pub fn threads(&self) -> usize {
        let half_of_the_cores =
            || std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2));
        self.threads.map_or_else(half_of_the_cores, usize::from)
    }

    pub fn policy(&self) -> Policy {
        Policy {
            placement: self.prefill,
            stall: self.stall_timeout,
            failover_wait: self.failover_wait,
            arrival_wait: self.arrival_wait,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::Options;

    #[test]
    fn the_fleet_is_a_file_or_pods_and_never_both_or_none() {
        let parse = |more: &[&str]| {
            let least = ["shoal-gateway", "--model", "m", "--model-name", "n", "--secret-file", "s"];
            Options::try_parse_from(least.iter().chain(more)).map(|options| options.fleet)
        };
        assert!(parse(&["--instances", "f"]).expect("a file").instances.is_some());
        assert!(parse(&["--pods", "a=b"]).expect("pods").pods.is_some());
        assert!(parse(&[]).is_err() && parse(&["--instances", "f", "--pods", "a=b"]).is_err());
    }
}
