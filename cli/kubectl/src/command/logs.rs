//! `kubectl shoal logs`: what instances and gateways print, merged.

use std::{collections::BTreeSet, fmt::Write as _, time::Duration};

use clap::{Args, ValueEnum};
use futures::{AsyncBufReadExt as _, StreamExt as _, TryStreamExt as _, stream};
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt as _,
    api::LogParams,
    runtime::{WatchStreamExt as _, watcher},
};
use shoal_crds::{ServingCluster, labels};
use shoal_terminal::{failure::Failure, style};
use tokio::sync::mpsc;

use super::Verdict;
use crate::{
    cluster::{Connection, Scope, Unseen, component, named, words},
    view::at,
};

/// Bytes of one pod's log that are fetched when it is not followed.
const MOST_BYTES: i64 = 1 << 20;
/// Logs fetched at the same time.
const TOGETHER: usize = 8;
/// Lines read and not yet printed.
const QUEUE: usize = 1024;
/// Before a log that broke off is looked for again.
const PAUSE: Duration = Duration::from_secs(1);

const EXAMPLES: &str = "\
Examples:
  kubectl shoal logs chat                          the last lines of every pod, by time
  kubectl shoal logs chat --role prefill -f
  kubectl shoal logs chat --instance chat-0 --previous     why it crashed
  kubectl shoal logs chat --gateway --since 10m --tail 1000

-f goes on with pods that come, and with containers that are started again. Needs the right to get pods/log; -f also
that to watch pods.";

/// Show what instances and gateways print, merged by time, each line after the name of its pod.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(crate) struct Logs {
    /// Name of the ServingCluster [default: the only one of the namespace]
    name: Option<String>,
    /// Only this instance, for example chat-0, or this pod
    #[arg(long, value_name = "NAME", conflicts_with_all = ["role", "gateway"])]
    instance: Option<String>,
    /// Only instances of this role
    #[arg(long, value_enum, conflicts_with = "gateway")]
    role: Option<Role>,
    /// Only gateways
    #[arg(long)]
    gateway: bool,
    /// Go on with what is printed from now on, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// Only what is younger, for example 30s, 10m, 2h
    #[arg(long, value_name = "AGE", value_parser = age)]
    since: Option<i64>,
    /// Lines of each pod at most, 0 to 100000
    #[arg(long, value_name = "LINES", default_value_t = 50, value_parser = clap::value_parser!(i64).range(0..=100_000))]
    tail: i64,
    /// Of the container before the last restart
    #[arg(short, long, conflicts_with = "follow")]
    previous: bool,
    /// Put the time before each line
    #[arg(long)]
    timestamps: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Role {
    Prefill,
    Decode,
}

fn age(text: &str) -> Result<i64, String> {
    let parsed: Result<SignedDuration, _> = text.parse();
    match parsed.map(|found| found.as_secs()) {
        Ok(seconds) if seconds > 0 => Ok(seconds),
        _ => Err("must be a time of a second or more, for example 30s, 10m, 2h".to_owned()),
    }
}

impl Logs {
    pub(crate) async fn run(self, scope: &Scope) -> Result<Verdict, Failure> {
        let connection = scope.connect().await?;
        let cluster = named(&connection, self.name.as_deref()).await?;
        let namespace = cluster.namespace().unwrap_or_default();
        let api: Api<Pod> = Api::namespaced(connection.client.clone(), &namespace);
        let mut unseen = Unseen::default();
        let mut pods: Vec<Pod> = connection.of_cluster("pods", &cluster, &mut unseen).await;
        pods.retain(|pod| self.wants(pod));
        if let Some(line) = unseen.lines().first() {
            return Err(Failure::not_found(line));
        }
        if self.follow {
            return self.follow(&api, &cluster).await.map(|()| Verdict::Fine);
        }
        if pods.is_empty() {
            return Err(Failure::not_found(self.nothing(&connection, &cluster)));
        }
        self.past(&api, &pods, &namespace).await
    }

    fn wants(&self, pod: &Pod) -> bool {
        let label = |key: &str| pod.labels().get(key).map(String::as_str);
        let gateway = component(pod) == Some(labels::GATEWAY_COMPONENT);
        match (&self.instance, self.role) {
            (Some(wanted), _) => label(labels::INSTANCE) == Some(wanted) || pod.name_any() == *wanted,
            (None, Some(Role::Prefill)) => label(labels::ROLE) == Some("prefill"),
            (None, Some(Role::Decode)) => label(labels::ROLE) == Some("decode"),
            (None, None) => gateway || !self.gateway && component(pod) == Some(labels::INSTANCE_COMPONENT),
        }
    }

    fn nothing(&self, connection: &Connection, cluster: &ServingCluster) -> String {
        let which = match (&self.instance, self.role, self.gateway) {
            (Some(name), ..) => format!("instance or pod {name:?}"),
            (None, Some(role), _) => format!("{role:?} instance").to_lowercase(),
            (None, None, true) => "gateway".to_owned(),
            (None, None, false) => "pod".to_owned(),
        };
        format!("{:?} in namespace {} has no {which}", cluster.name_any(), connection.namespace)
    }

    fn parameters(&self, pod: &Pod) -> LogParams {
        LogParams {
            container: main_container(pod),
            follow: self.follow,
            previous: self.previous,
            since_seconds: self.since,
            tail_lines: Some(self.tail),
            timestamps: true,
            ..LogParams::default()
        }
    }

    async fn past(&self, api: &Api<Pod>, pods: &[Pod], namespace: &str) -> Result<Verdict, Failure> {
        let logs = pods.iter().map(|pod| async move {
            let parameters = LogParams { limit_bytes: Some(MOST_BYTES), ..self.parameters(pod) };
            (pod.name_any(), api.logs(&pod.name_any(), &parameters).await)
        });
        let logs: Vec<_> = stream::iter(logs).buffered(TOGETHER).collect().await;
        let (mut texts, mut failed) = (Vec::new(), Unseen::default());
        for (pod, log) in logs {
            match log {
                Ok(text) => texts.push((pod, text)),
                Err(kube::Error::Api(status)) if status.code == 403 => {
                    failed.say(format!("forbidden: get pods/log in namespace {namespace}"));
                }
                Err(error) => failed.say(format!("{pod}: {}", words(&error))),
            }
        }
        print!("{}", merged(&texts, self.timestamps));
        failed.lines().iter().for_each(|line| eprintln!("{} {line}", style::error("not seen:")));
        if texts.is_empty() {
            return Err(Failure::not_found("no log could be read"));
        }
        Ok(Verdict::fine_if(failed.lines().is_empty()))
    }

    /// Prints lines as they come, of every container that the watch tells of.
    async fn follow(&self, api: &Api<Pod>, cluster: &ServingCluster) -> Result<(), Failure> {
        let selector = format!("{}={}", labels::CLUSTER, cluster.name_any());
        let config = watcher::Config::default().labels(&selector);
        let mut coming = watcher(api.clone(), config).default_backoff().applied_objects().boxed();
        let (lines, mut printed) = mpsc::channel::<String>(QUEUE);
        let mut followed = BTreeSet::new();
        let begun = jiff::Timestamp::now();
        loop {
            let pod = tokio::select! {
                Some(line) = printed.recv() => {
                    println!("{line}");
                    continue;
                }
                pod = coming.try_next() => pod,
            };
            let pod = match pod {
                Ok(Some(pod)) if self.wants(&pod) => pod,
                Ok(Some(_)) => continue,
                Ok(None) => return Ok(()),
                Err(watcher::Error::InitialListFailed(kube::Error::Api(status))) if status.code == 403 => {
                    return Err(Failure::not_found("forbidden: list pods"));
                }
                Err(watcher::Error::WatchStartFailed(kube::Error::Api(status))) if status.code == 403 => {
                    return Err(Failure::not_found("forbidden: watch pods"));
                }
                Err(error) => {
                    eprintln!("the watch broke off and is opened again: {error}");
                    continue;
                }
            };
            let Some(started) = started(&pod) else { continue };
            if followed.insert((pod.uid(), started)) {
                let mut parameters = self.parameters(&pod);
                if started > begun {
                    // It began after us, so nothing of it was shown and everything is new.
                    parameters.tail_lines = None;
                }
                tokio::spawn(tell(api.clone(), pod.name_any(), parameters, self.timestamps, lines.clone()));
            }
        }
    }
}

/// When the container that runs now was started.
fn started(pod: &Pod) -> Option<jiff::Timestamp> {
    let name = main_container(pod)?;
    let mut statuses = pod.status.as_ref()?.container_statuses.iter().flatten();
    let running = statuses.find(|found| found.name == name)?.state.as_ref()?.running.as_ref()?;
    running.started_at.as_ref().map(|time| at(time.0))
}

pub(crate) fn main_container(pod: &Pod) -> Option<String> {
    pod.spec.as_ref()?.containers.first().map(|container| container.name.clone())
}

/// Sends a container's lines until it ends.
async fn tell(api: Api<Pod>, pod: String, parameters: LogParams, times: bool, lines: mpsc::Sender<String>) {
    let mut log = match api.log_stream(&pod, &parameters).await {
        Ok(log) => log.lines(),
        Err(error) => {
            tokio::time::sleep(PAUSE).await;
            let _ = lines.send(format!("{pod}  (its log cannot be read: {})", words(&error))).await;
            return;
        }
    };
    while let Ok(Some(line)) = log.try_next().await {
        let (time, text) = line.split_once(' ').unwrap_or(("", &line));
        if lines.send(prefixed(&pod, time, text, times)).await.is_err() {
            return;
        }
    }
}

fn prefixed(pod: &str, time: &str, text: &str, times: bool) -> String {
    let time = if times { format!("{time}  ") } else { String::new() };
    format!("{}  {time}{}", style::dim(pod), printable(text))
}

/// A log must not steer the terminal.
fn printable(text: &str) -> String {
    text.chars().filter(|character| !character.is_control() || *character == '\t').collect()
}

/// Lines of all logs by their times, which come first in each line.
fn merged(logs: &[(String, String)], times: bool) -> String {
    let mut lines: Vec<(&str, &str, &str)> = Vec::new();
    for (pod, text) in logs {
        lines.extend(text.lines().map(|line| {
            let (time, rest) = line.split_once(' ').unwrap_or((line, ""));
            (time, pod.as_str(), rest)
        }));
    }
    // Stable, so that lines of one pod with one time keep their order.
    lines.sort_by_key(|line| line.0.parse::<jiff::Timestamp>().ok());
    let mut text = String::new();
    for (time, pod, line) in lines {
        let _ = writeln!(text, "{}", prefixed(pod, time, line, times));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_several_pods_are_merged_by_their_times_and_keep_their_order() {
        let log = |pod: &str, lines: &[&str]| (pod.to_owned(), lines.join("\n"));
        let logs = [
            log(
                "a",
                &["2026-03-01T12:00:01.5Z one", "2026-03-01T12:00:03Z three", "2026-03-01T12:00:03Z four"],
            ),
            log("b", &["2026-03-01T12:00:02.123456789Z two \u{1b}[2J", "2026-03-01T12:00:04Z "]),
        ];
        assert_eq!(merged(&logs, false), "a  one\nb  two [2J\na  three\na  four\nb  \n");
        assert!(merged(&logs, true).starts_with("a  2026-03-01T12:00:01.5Z  one\n"));
    }

    #[test]
    fn ages_are_times_of_a_second_or_more() {
        assert_eq!(age("10m"), Ok(600));
        assert_eq!(age("1h30m"), Ok(5400));
        for wrong in ["0s", "-5m", "soon", "10ms"] {
            assert!(age(wrong).is_err_and(|why| why.contains("for example 30s")), "{wrong}");
        }
    }
}
