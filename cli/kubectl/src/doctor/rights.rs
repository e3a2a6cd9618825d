//! What this user may do, as the API server says.

use futures::{StreamExt as _, stream};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::{Api, api::PostParams};

use super::Check;
use crate::cluster::{Connection, words};

const TOGETHER: usize = 8;

/// Verb, group, resource, subresource, and the commands that need it.
const NEEDED: [(&str, &str, &str, &str, &str); 12] = [
    ("list", "shoal.dev", "servingclusters", "", "all commands"),
    ("get", "shoal.dev", "servingclusters", "", "all commands"),
    ("list", "", "pods", "", "status, top, logs, doctor, report"),
    ("watch", "", "pods", "", "logs -f"),
    ("get", "", "pods", "log", "logs, report"),
    ("get", "", "pods", "proxy", "status (load), top, doctor, report"),
    ("list", "", "services", "", "chat, doctor, report"),
    ("get", "", "services", "proxy", "chat, doctor"),
    ("create", "", "services", "proxy", "chat"),
    ("list", "", "events", "", "events, status, report"),
    ("watch", "", "events", "", "events -w"),
    ("list", "networking.k8s.io", "networkpolicies", "", "doctor, report"),
];

pub(super) async fn rights(connection: &Connection) -> Check {
    let asked = NEEDED.iter().map(|needed| async move { (needed, may(connection, needed).await) });
    let answers: Vec<_> = stream::iter(asked).buffered(TOGETHER).collect().await;
    let namespace = &connection.namespace;
    let (mut missing, mut unasked) = (Vec::new(), None);
    for ((verb, group, resource, sub, commands), answer) in answers {
        match answer {
            Ok(true) => {}
            Ok(false) => missing.push(format!("{verb} {} ({commands})", full(group, resource, sub))),
            Err(why) => unasked = Some(why),
        }
    }
    match unasked {
        Some(why) => Check::unseen("rights", why),
        None if missing.is_empty() => {
            Check::ok("rights", format!("you may do all that this command does in namespace {namespace}"))
        }
        None => Check::note(
            "rights",
            format!("you may not, in namespace {namespace}: {}", missing.join("; ")),
            "ask for the role edit there; view is enough for all but chat and figures",
        ),
    }
}

fn full(group: &str, resource: &str, sub: &str) -> String {
    let resource = if sub.is_empty() { resource.to_owned() } else { format!("{resource}/{sub}") };
    if group.is_empty() { resource } else { format!("{resource}.{group}") }
}

async fn may(
    connection: &Connection,
    (verb, group, resource, sub, _): &(&str, &str, &str, &str, &str),
) -> Result<bool, String> {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                namespace: some(&connection.namespace),
                verb: some(verb),
                group: some(group),
                resource: some(resource),
                subresource: some(sub),
                ..ResourceAttributes::default()
            }),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let api: Api<SelfSubjectAccessReview> = Api::all(connection.client.clone());
    let answer = api.create(&PostParams::default(), &review).await.map_err(|error| words(&error))?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}
