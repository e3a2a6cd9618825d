//! How far pods are that fetch their model: asked of the fetching step itself, and told in the status.

use std::time::Duration;

use futures::{StreamExt as _, stream};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde::Deserialize;
use shoal_crds::Loading;

use crate::metrics::Metrics;

const DEADLINE: Duration = Duration::from_secs(2);
/// Bytes of an answer; it has five numbers.
const LONGEST: usize = 4096;
const AT_ONCE: usize = 64;
/// Parts of the whole that the status tells apart: a status that is written for every megabyte would be written
/// for ever.
const PARTS: u64 = 100;

/// What `GET /progress` of shoal-fetch tells.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Progress {
    phase: String,
    bytes_done: u64,
    bytes_total: u64,
}

/// Asks the pods at these addresses, and sums up those that answer.
pub async fn ask(addresses: &[String], metrics: &Metrics) -> Option<Loading> {
    if addresses.is_empty() {
        return None;
    }
    let client = Client::builder(TokioExecutor::new()).build_http();
    let asked: Vec<_> = addresses.iter().map(|address| one(&client, address, metrics)).collect();
    let told: Vec<_> = stream::iter(asked).buffer_unordered(AT_ONCE).collect().await;
    Some(sum(addresses.len(), &told.into_iter().flatten().collect::<Vec<_>>()))
}

async fn one(
    client: &Client<HttpConnector, Empty<bytes::Bytes>>,
    address: &str,
    metrics: &Metrics,
) -> Option<Progress> {
    let address = format!("http://{address}/progress").parse().ok()?;
    let answer = async {
        let answer = client.get(address).await.ok()?;
        let body = Limited::new(answer.into_body(), LONGEST).collect().await.ok()?;
        serde_json::from_slice(&body.to_bytes()).ok()
    };
    let told = tokio::time::timeout(DEADLINE, answer).await.ok().flatten();
    metrics.called_engine("progress", if told.is_some() { "ok" } else { "error" });
    told
}

/// Numbers in hundredths of the whole, so that they move a hundred times and no more.
fn sum(instances: usize, told: &[Progress]) -> Loading {
    let total: u64 = told.iter().map(|progress| progress.bytes_total).sum();
    let done: u64 = told.iter().map(|progress| progress.bytes_done.min(progress.bytes_total)).sum();
    let part = (total / PARTS).max(1);
    let seen = |phase: &str| told.iter().any(|progress| progress.phase == phase);
    let phase = ["Downloading", "Verifying", "Waiting"].into_iter().find(|phase| seen(phase));
    Loading {
        phase: phase.unwrap_or("Downloading").to_owned(),
        instances: i32::try_from(instances).unwrap_or(i32::MAX),
        bytes_done: i64::try_from(if done == total { total } else { done / part * part }).unwrap_or(i64::MAX),
        bytes_total: i64::try_from(total).unwrap_or(i64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(phase: &str, bytes_done: u64, bytes_total: u64) -> Progress {
        Progress { phase: phase.to_owned(), bytes_done, bytes_total }
    }

    #[test]
    fn what_pods_tell_is_summed_in_hundredths() {
        let told = [progress("Downloading", 12_345, 100_000), progress("Verifying", 50_000, 100_000)];
        let loading = sum(3, &told);
        assert_eq!((loading.phase.as_str(), loading.instances), ("Downloading", 3));
        assert_eq!((loading.bytes_done, loading.bytes_total), (62_000, 200_000));
    }

    #[test]
    fn a_pod_that_says_nonsense_or_nothing_breaks_no_number() {
        assert_eq!((sum(1, &[]).bytes_done, sum(1, &[]).bytes_total), (0, 0));
        let loading = sum(1, &[progress("Downloading", u64::MAX, 7)]);
        assert_eq!((loading.bytes_done, loading.bytes_total), (7, 7));
    }
}
