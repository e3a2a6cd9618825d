//! Whether gateway and engines answer when they are asked.

use std::time::Duration;

use kube::ResourceExt as _;

use super::Check;
use crate::{
    cluster::{Connection, Fleet, Gateway, Unseen},
    view::PodView,
};

/// The gateway itself gives one token ten seconds.
const ONE_TOKEN: Duration = Duration::from_secs(15);

pub(super) async fn answers(connection: &Connection, fleet: &Fleet) -> Vec<Check> {
    vec![gateway(connection, fleet).await, engines(fleet)]
}

/// Lets the gateway make one real token.
async fn gateway(connection: &Connection, fleet: &Fleet) -> Check {
    const SUBJECT: &str = "gateway";
    let mut unseen = Unseen::default();
    let service = connection.gateway_service(&fleet.cluster, &mut unseen).await;
    if let Some(line) = unseen.lines().first() {
        return Check::unseen(SUBJECT, line);
    }
    let Some(service) = service else {
        return Check::fail(SUBJECT, "it has no Service", "the operator makes it: see its check above");
    };
    if !ready(fleet).any(|pod| !pod.is_instance()) {
        return Check::fail(SUBJECT, "no pod of it is ready", "see the checks of pods above");
    }
    match Gateway::of(connection, &service).get("/health_generate", ONE_TOKEN).await {
        Ok((200, body)) => Check::ok(SUBJECT, format!("made a token: {}", brief(&body))),
        Ok((403, _)) => {
            let namespace = fleet.cluster.namespace().unwrap_or_default();
            Check::unseen(SUBJECT, format!("forbidden: get services/proxy in namespace {namespace}"))
        }
        Ok((status, body)) => Check::fail(
            SUBJECT,
            format!("{status}: {}", brief(&body)),
            "kubectl shoal logs --gateway, and the checks of pods",
        ),
        Err(why) => Check::fail(
            SUBJECT,
            why,
            "kubectl get endpointslices, kubectl shoal logs --gateway; the API server must reach the pods' network",
        ),
    }
}

/// Who made it, or the message of an error.
fn brief(body: &str) -> String {
    let value: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    let text = |key: &str| value[key].as_str();
    let error = value["error"]["message"].as_str().or_else(|| text("message"));
    match (text("prefill_instance"), text("decode_instance")) {
        (Some(prefill), Some(decode)) => {
            let milliseconds = value["milliseconds"].as_f64().unwrap_or_default();
            format!("prefill {prefill}, decode {decode}, {milliseconds:.0} ms")
        }
        _ => error.unwrap_or(body).chars().filter(|character| !character.is_control()).take(200).collect(),
    }
}

fn ready(fleet: &Fleet) -> impl Iterator<Item = PodView> {
    fleet.pods.iter().map(|pod| PodView::of(pod, None)).filter(PodView::is_ready)
}

/// Engines that run and whose metrics cannot be had.
fn engines(fleet: &Fleet) -> Check {
    const SUBJECT: &str = "engines";
    let asked: Vec<PodView> = ready(fleet).filter(PodView::is_instance).collect();
    if asked.is_empty() {
        return Check::unseen(SUBJECT, "none is ready to be asked");
    }
    let names = asked.iter().map(|pod| pod.pod.as_str());
    let silent: Vec<&str> = names.filter(|name| !fleet.figures.contains_key(*name)).collect();
    if silent.is_empty() {
        return Check::ok(SUBJECT, format!("{} that are ready answer", asked.len()));
    }
    if let Some(line) = fleet.unseen.lines().iter().find(|line| line.contains("pods/proxy")) {
        return Check::unseen(SUBJECT, line);
    }
    Check::fail(
        SUBJECT,
        format!("do not answer: {}", silent.join(", ")),
        format!("kubectl shoal logs --instance {}", silent[0]),
    )
}
