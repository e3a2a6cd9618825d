//! Command line of `shoal-engine`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use shoal_engine::scheduler::Role;
use shoal_model::Compute;

/// Serves one model: prefill, decode or both, changeable while it runs.
#[derive(Debug, Parser)]
#[command(name = "shoal-engine", version)]
pub(crate) struct Options {
    /// Model: a .gguf file, or a directory with config.json and safetensors
    #[arg(long, value_name = "PATH")]
    pub(crate) model: PathBuf,
    /// Name of the model for clients [default: the file's own name]
    #[arg(long, value_name = "NAME")]
    pub(crate) model_name: Option<String>,
    /// Name of this instance, unique in its fleet; at most 256 bytes
    #[arg(long, visible_alias = "name", value_name = "NAME", default_value = "engine")]
    pub(crate) instance: String,
    /// File with the fleet's secret: 32 to 4096 bytes, the same for every instance and gateway
    #[arg(long, value_name = "PATH")]
    pub(crate) secret_file: PathBuf,
    /// Folder with ca.crt, tls.crt and tls.key: gRPC is within mutual TLS, and each peer must have a certificate of that
    /// authority for the same name; followed when the files change [default: gRPC without TLS]
    #[arg(long, value_name = "DIR")]
    pub(crate) tls_dir: Option<PathBuf>,
    /// Address of the gRPC server; port 0 takes any free port
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:0", value_parser = address)]
    pub(crate) listen: SocketAddr,
    /// Address of the KV data socket, reachable by prefill instances; port 0 takes any free port
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:0", value_parser = address)]
    pub(crate) data_listen: SocketAddr,
    /// Address that serves Prometheus metrics at /metrics [default: off]
    #[arg(long, value_name = "IP:PORT", value_parser = address)]
    pub(crate) metrics_listen: Option<SocketAddr>,
    /// Which new work is admitted until somebody sets another role
    #[arg(long, value_enum, default_value_t = RoleOption::Mixed)]
    pub(crate) role: RoleOption,
    /// Where the model is computed: `cpu`, or `cuda` or `cuda:N` for one of this machine's NVIDIA GPUs
    #[arg(long, value_name = "DEVICE", default_value = "cpu", value_parser = device)]
    pub(crate) device: Device,
    /// Threads that compute on the CPU [default: all cores]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) threads: Option<u16>,
    /// Memory of the KV pages, in bytes or with KiB, MiB or GiB
    #[arg(long, value_name = "SIZE", default_value = "512MiB", value_parser = bytes)]
    pub(crate) kv_memory: u64,
    /// Sequences that produce a token in one step
    #[arg(long, value_name = "COUNT", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) max_batch: u32,
    /// Prompt tokens computed in one step
    #[arg(long, value_name = "TOKENS", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub(crate) chunk: u32,
    /// Tokens of prompt and output together; the model and the KV memory bound it too [default: the model's]
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_context: Option<u32>,
    /// Requests that wait for admission, per purpose; more are refused
    #[arg(long, value_name = "COUNT", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub(crate) max_waiting: u32,
    /// Arithmetic on the CPU: `reference` computes everything in f32, slowly [default: fast]
    #[arg(long, value_enum)]
    pub(crate) compute: Option<ComputeOption>,
    /// A prefill instance without a sign of life for this many seconds is given up; at most 30
    #[arg(long, value_name = "SECONDS", default_value = "3", value_parser = stall)]
    pub(crate) stall_timeout: Duration,
    /// After the first SIGTERM or SIGINT, running requests have this many seconds to end
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub(crate) drain_timeout: Duration,
    /// Written once the instance serves: JSON with instance, incarnation, grpc, data, metrics and pid
    #[arg(long, value_name = "PATH")]
    pub(crate) ready_file: Option<PathBuf>,
    /// What is logged to stderr: a level, or levels by module
    #[arg(long, value_name = "FILTER", env = "SHOAL_LOG", default_value = "info")]
    pub(crate) log: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Device {
    Cpu,
    /// A GPU by its place among the machine's.
    Cuda(usize),
}

fn device(text: &str) -> Result<Device, String> {
    let allowed = || "allowed is cpu, cuda, or cuda:N for the GPU of that number".to_owned();
    match text.split_once(':') {
        None if text == "cpu" => Ok(Device::Cpu),
        None if text == "cuda" => Ok(Device::Cuda(0)),
        Some(("cuda", number)) => number.parse().map(Device::Cuda).map_err(|_| allowed()),
        _ => Err(allowed()),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RoleOption {
    Prefill,
    Decode,
    Mixed,
}

impl From<RoleOption> for Role {
    fn from(role: RoleOption) -> Self {
        match role {
            RoleOption::Prefill => Self::Prefill,
            RoleOption::Decode => Self::Decode,
            RoleOption::Mixed => Self::Mixed,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ComputeOption {
    Fast,
    Reference,
}

impl From<ComputeOption> for Compute {
    fn from(compute: ComputeOption) -> Self {
        match compute {
            ComputeOption::Fast => Self::Fast,
            ComputeOption::Reference => Self::Reference,
        }
    }
}

/// Peers are told the address that was bound, so it has to be one address.
fn address(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr =
        text.parse().map_err(|_| "allowed is IP:PORT, for example 127.0.0.1:7070".to_owned())?;
    if address.ip().is_unspecified() {
        return Err("allowed is one address of this host, not all of them".to_owned());
    }
    Ok(address)
}

fn bytes(text: &str) -> Result<u64, String> {
    let allowed =
        || "allowed is a number of bytes, or one with KiB, MiB or GiB, for example 512MiB".to_owned();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let scale = match unit {
        "" | "B" => 0,
        "Ki" | "KiB" => 10,
        "Mi" | "MiB" => 20,
        "Gi" | "GiB" => 30,
        _ => return Err(allowed()),
    };
    let number: u64 = number.parse().map_err(|_| allowed())?;
    number.checked_mul(1 << scale).filter(|bytes| *bytes > 0).ok_or_else(allowed)
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.filter(|s| *s <= Duration::from_hours(24)).ok_or_else(|| "allowed is 0 to 86400".to_owned())
}

fn stall(text: &str) -> Result<Duration, String> {
    let fits = |wait: &Duration| (1..=30_000).contains(&wait.as_millis());
    seconds(text).ok().filter(fits).ok_or_else(|| "allowed is 0.001 to 30".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: [&str; 5] = ["shoal-engine", "--model", "m.gguf", "--secret-file", "secret"];

    fn parse(more: &[&str]) -> Result<Options, String> {
        Options::try_parse_from(LEAST.iter().chain(more)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_model_and_a_secret_are_enough_and_everything_stays_on_this_host() {
        let options = parse(&[]).expect("valid");
        assert!(options.listen.ip().is_loopback() && options.data_listen.ip().is_loopback());
        assert_eq!(options.kv_memory, 512 << 20);
        let error = Options::try_parse_from(&LEAST[..3]).expect_err("no secret").to_string();
        assert!(error.contains("--secret-file"), "{error}");
    }

    #[test]
    fn bad_values_are_refused_with_what_is_allowed() {
        for (option, value, allowed) in [
            ("--listen", "0.0.0.0:7070", "one address"),
            ("--data-listen", "localhost", "IP:PORT"),
            ("--kv-memory", "99999999999GiB", "512MiB"),
            ("--kv-memory", "-1", "512MiB"),
            ("--stall-timeout", "31", "0.001 to 30"),
            ("--drain-timeout", "NaN", "0 to 86400"),
            ("--role", "both", "prefill, decode, mixed"),
            ("--threads", "0", "1..=256"),
            ("--device", "gpu", "cuda:N"),
            ("--device", "cuda:-1", "cuda:N"),
        ] {
            let error = parse(&[&format!("{option}={value}")]).expect_err(option);
            assert!(error.contains(allowed), "{error}");
        }
    }
}
