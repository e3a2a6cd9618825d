//! The command line.

// Doc comments here are printed as they are by --help.
#![allow(clippy::doc_markdown)]

use std::net::SocketAddr;

use clap::{Parser, ValueEnum};
use jiff::{SignedDuration, Span, SpanRelativeTo};

use crate::{
    cache::Scope,
    fleet::{Images, Surroundings},
};

/// Keeps the fleets that ServingCluster resources ask for.
///
/// Connects as its pod's service account or, outside a cluster, as the kubeconfig says. Several may run: one
/// leads and writes, the others wait.
#[derive(Debug, Parser)]
#[command(name = "shoal-operator", version)]
pub struct Options {
    /// Image of the engines, with shoal-engine on its path; changing it replaces instances one by one
    #[arg(long, value_name = "IMAGE", env = "SHOAL_ENGINE_IMAGE")]
    engine_image: String,
    /// Image of the gateways, with shoal-gateway on its path [default: the engines' image]
    #[arg(long, value_name = "IMAGE", env = "SHOAL_GATEWAY_IMAGE")]
    gateway_image: Option<String>,
    /// Image that fetches models, with shoal-fetch on its path; without it a model.source.download is refused
    #[arg(long, value_name = "IMAGE", env = "SHOAL_FETCH_IMAGE")]
    fetch_image: Option<String>,
    /// When nodes pull these images
    #[arg(long, value_enum, default_value_t = PullPolicy::IfNotPresent)]
    image_pull_policy: PullPolicy,
    /// Look at this namespace only [default: all namespaces]
    #[arg(long, value_name = "NAMESPACE", env = "SHOAL_NAMESPACE")]
    namespace: Option<String>,
    /// Namespace of the operator's own pods and of the lease
    #[arg(long, value_name = "NAMESPACE", env = "POD_NAMESPACE", default_value = "shoal-system")]
    pub operator_namespace: String,
    /// How long the certificates of a fleet's processes hold: they are renewed at about two thirds of it; 15m to 365d.
    /// Their authority is renewed likewise, and holds for twelve times as long
    #[arg(long, value_name = "TIME", env = "SHOAL_CERTIFICATE_LIFETIME", default_value = "30d", value_parser = lifetime)]
    certificate_lifetime: SignedDuration,
    /// Name of the Lease that decides which operator leads
    #[arg(long, value_name = "NAME", default_value = "shoal-operator")]
    pub lease: String,
    /// Name of this process in the lease and in events; a random part is added [default: the pod's name]
    #[arg(long, value_name = "NAME", env = "POD_NAME", default_value = "shoal-operator")]
    pub name: String,
    /// Address of /healthz, /readyz and /metrics
    #[arg(long, value_name = "IP:PORT", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// What is logged to stderr: a level, or levels by module
    #[arg(long, value_name = "FILTER", env = "SHOAL_LOG", default_value = "info")]
    pub log: String,
    /// How log lines look
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PullPolicy {
    #[value(name = "Always")]
    Always,
    #[value(name = "IfNotPresent")]
    IfNotPresent,
    #[value(name = "Never")]
    Never,
}

impl PullPolicy {
    fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people
    Text,
    /// One JSON object per line
    Json,
}

impl Options {
    pub fn scope(&self) -> Scope {
        self.namespace.clone().map_or(Scope::All, Scope::One)
    }

    pub fn surroundings(&self) -> Surroundings {
        Surroundings {
            images: Images {
                engine: self.engine_image.clone(),
                gateway: self.gateway_image.clone().unwrap_or_else(|| self.engine_image.clone()),
                fetch: self.fetch_image.clone(),
                pull_policy: self.image_pull_policy.as_str().to_owned(),
            },
            operator_namespace: self.operator_namespace.clone(),
            certificate_lifetime: self.certificate_lifetime,
        }
    }
}

/// Shorter than nodes take to exchange mounted files is too short.
fn lifetime(text: &str) -> Result<SignedDuration, String> {
    let span = text.parse::<Span>().ok();
    let time = span.and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()).ok());
    let (least, most) = (SignedDuration::from_mins(15), SignedDuration::from_hours(365 * 24));
    let fits = |time: &SignedDuration| (least..=most).contains(time);
    time.filter(fits).ok_or_else(|| "allowed is 15m to 365d, for example 30d or 12h".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_enough_and_every_namespace_is_looked_at() {
        let options = Options::try_parse_from(["shoal-operator", "--engine-image", "shoal:1"]).unwrap();
        assert_eq!(options.scope(), Scope::All);
        let Images { engine, gateway, pull_policy, .. } = options.surroundings().images;
        assert_eq!(
            (engine.as_str(), gateway.as_str(), pull_policy.as_str()),
            ("shoal:1", "shoal:1", "IfNotPresent")
        );
        assert!(Options::try_parse_from(["shoal-operator"]).is_err(), "which image cannot be guessed");
    }

    #[test]
    fn a_lifetime_is_long_enough_for_nodes_to_follow_and_a_year_at_most() {
        for (text, minutes) in
            [("15m", 15), ("12h", 720), ("30d", 43_200), ("1d 12h", 2160), ("365d", 525_600)]
        {
            assert_eq!(lifetime(text), Ok(SignedDuration::from_mins(minutes)), "{text}");
        }
        for text in ["14m", "366d", "", "30", "-1d", "1mo"] {
            assert!(lifetime(text).is_err_and(|error| error.contains("15m to 365d")), "{text}");
        }
    }
}
