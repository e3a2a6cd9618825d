//! API server, definition of the resource, operator and its lease.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::{
    api::{apps::v1::Deployment, coordination::v1::Lease},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{Api, Error, ResourceExt as _, api::ListParams, client::Body};
use shoal_crds::{CustomResourceExt as _, ServingCluster, ServingRole, labels};
use shoal_terminal::{age, failure::Failure};

use super::Check;
use crate::cluster::{Connection, Unseen, pages, words};

/// Where the chart's own commands install it.
pub(crate) const OPERATOR_NAMESPACE: &str = "shoal-system";
/// The chart's; older API servers lack what the resource's rules use.
const OLDEST_MINOR: u32 = 33;
const PATIENCE: Duration = Duration::from_secs(10);
/// Beyond it, ages are worth no trust.
const SKEW_SECONDS: i64 = 5;
const DEFINITION: &str = "definition";
const INSTALL: &str = "helm install shoal charts/shoal --namespace shoal-system --create-namespace";

/// Version and clock of the API server, and its time.
pub(super) async fn server(connection: &Connection) -> Result<(Vec<Check>, Timestamp), Failure> {
    let request = http::Request::get("/version").body(Body::empty());
    let request = request.map_err(|error| Failure::failed(error.to_string()))?;
    let asked = tokio::time::timeout(PATIENCE, connection.client.send(request)).await;
    let response = match asked {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => return Err(Failure::not_found(words(&error))),
        Err(_) => return Err(Failure::not_found("the API server does not answer")),
    };
    let here = Timestamp::now();
    let date = response.headers().get(http::header::DATE).and_then(|date| date.to_str().ok());
    let there = date.and_then(|date| jiff::fmt::rfc2822::parse(date).ok()).map(|date| date.timestamp());
    let body =
        response.into_body().collect_bytes().await.map_err(|error| Failure::not_found(words(&error)))?;
    let version: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    Ok((vec![age_of(&version), clock(here, there)], there.unwrap_or(here)))
}

fn age_of(version: &serde_json::Value) -> Check {
    let name = version["gitVersion"].as_str().unwrap_or("unknown");
    let minor = version["minor"].as_str().and_then(|minor| minor.trim_end_matches('+').parse::<u32>().ok());
    match minor {
        Some(minor) if minor < OLDEST_MINOR => Check::fail(
            "API server",
            format!("Kubernetes {name}"),
            format!("Shoal needs Kubernetes 1.{OLDEST_MINOR} or newer"),
        ),
        Some(_) => Check::ok("API server", format!("answers, Kubernetes {name}")),
        None => Check::unseen("API server", format!("answers, and does not tell its version ({name})")),
    }
}

fn clock(here: Timestamp, there: Option<Timestamp>) -> Check {
    let Some(there) = there else { return Check::unseen("clock", "the API server does not tell its time") };
    let ahead = here.as_second() - there.as_second();
    if ahead.abs() <= SKEW_SECONDS {
        return Check::ok("clock", "this machine and the API server agree");
    }
    Check::note(
        "clock",
        format!(
            "this machine is {} s {} the API server",
            ahead.abs(),
            if ahead > 0 { "ahead of" } else { "behind" }
        ),
        "ages shown here are off by that; set the clock of whichever machine is wrong",
    )
}

/// Whether the resources are there, and are those that this command knows.
pub(super) async fn definitions(connection: &Connection) -> Vec<Check> {
    let wanted = [ServingCluster::crd(), ServingRole::crd()];
    futures::future::join_all(wanted.iter().map(|wanted| definition(connection, wanted))).await
}

async fn definition(connection: &Connection, wanted: &CustomResourceDefinition) -> Check {
    let name = wanted.name_any();
    let api: Api<CustomResourceDefinition> = Api::all(connection.client.clone());
    match tokio::time::timeout(PATIENCE, api.get(&name)).await {
        Ok(Ok(found)) if schema(&found) == schema(wanted) => {
            Check::ok(DEFINITION, format!("{name} is of this version"))
        }
        Ok(Ok(_)) => Check::note(
            DEFINITION,
            format!("{name} is another version than this command ({})", env!("CARGO_PKG_VERSION")),
            "helm upgrade shoal, or use the kubectl-shoal of the installed release",
        ),
        Ok(Err(Error::Api(status))) if status.code == 404 => absent(&name),
        Ok(Err(Error::Api(status))) if status.code == 403 => discovered(connection, wanted).await,
        Ok(Err(error)) => Check::unseen(DEFINITION, words(&error)),
        Err(_) => Check::unseen(DEFINITION, "no answer"),
    }
}

fn absent(name: &str) -> Check {
    Check::fail(DEFINITION, format!("{name} is not installed"), INSTALL)
}

/// The schema as data, because the API server writes some of its defaults down.
fn schema(definition: &CustomResourceDefinition) -> Option<serde_json::Value> {
    let version = definition.spec.versions.iter().find(|version| version.name == "v1alpha1")?;
    serde_json::to_value(version.schema.as_ref()?.open_api_v3_schema.as_ref()?).ok()
}

/// Everybody may ask which resources there are.
async fn discovered(connection: &Connection, wanted: &CustomResourceDefinition) -> Check {
    let plural = &wanted.spec.names.plural;
    match connection.client.list_api_group_resources(shoal_crds::API_VERSION).await {
        Ok(found) if found.resources.iter().any(|one| &one.name == plural) => Check::ok(
            DEFINITION,
            format!("{plural} is served; its version is unseen (forbidden: get customresourcedefinitions)"),
        ),
        Ok(_) => absent(&wanted.name_any()),
        Err(Error::Api(status)) if status.code == 404 => absent(&wanted.name_any()),
        Err(error) => Check::unseen(DEFINITION, words(&error)),
    }
}

/// Operators that may be seen: in all namespaces or, without that right, in the one where it should be.
pub(crate) async fn operators(
    connection: &Connection,
    operator_namespace: &str,
    unseen: &mut Unseen,
) -> Vec<Deployment> {
    let selector = format!("{}={}", labels::NAME, labels::OPERATOR);
    let params = ListParams::default().labels(&selector);
    let everywhere = Api::all(connection.client.clone());
    if let Ok(Ok(found)) = tokio::time::timeout(PATIENCE, pages(&everywhere, params.clone())).await {
        return found;
    }
    let there = Api::namespaced(connection.client.clone(), operator_namespace);
    let place = format!(" in namespace {operator_namespace} or in all");
    unseen.look("list", "deployments.apps", &place, pages(&there, params)).await
}

pub(super) async fn operator(
    connection: &Connection,
    operator_namespace: &str,
    now: Timestamp,
) -> Vec<Check> {
    let mut unseen = Unseen::default();
    let found = operators(connection, operator_namespace, &mut unseen).await;
    if let Some(line) = unseen.lines().first() {
        return vec![Check::unseen("operator", line)];
    }
    if found.is_empty() {
        return vec![Check::fail("operator", "none is installed", INSTALL)];
    }
    let mut checks = Vec::new();
    for deployment in &found {
        checks.push(running(deployment));
        checks.push(leads(connection, deployment, now).await);
    }
    checks
}

fn running(deployment: &Deployment) -> Check {
    let place = place(deployment);
    let status = deployment.status.clone().unwrap_or_default();
    let (ready, wanted) = (
        status.ready_replicas.unwrap_or(0),
        deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1),
    );
    let pod = deployment.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    let image = pod.and_then(|pod| pod.containers.first()?.image.clone()).unwrap_or_default();
    if wanted == 0 {
        return Check::fail(
            "operator",
            format!("{place} is scaled to 0"),
            "scale it to 1 or more: helm upgrade shoal",
        );
    }
    if ready == 0 {
        let namespace = deployment.namespace().unwrap_or_default();
        return Check::fail(
            "operator",
            format!("{place} has no ready pod of {wanted}, image {image}"),
            format!("kubectl -n {namespace} describe pods -l {}={}", labels::NAME, labels::OPERATOR),
        );
    }
    let version = env!("CARGO_PKG_VERSION");
    let same = image.contains('@') || image.ends_with(&format!(":{version}"));
    if same {
        return Check::ok("operator", format!("{place} runs {ready}/{wanted}, image {image}"));
    }
    Check::note(
        "operator",
        format!("{place} runs {ready}/{wanted}, image {image}; this command is {version}"),
        "use the kubectl-shoal of the same release",
    )
}

fn place(deployment: &Deployment) -> String {
    format!("{}/{}", deployment.namespace().unwrap_or_default(), deployment.name_any())
}

async fn leads(connection: &Connection, deployment: &Deployment, now: Timestamp) -> Check {
    let namespace = deployment.namespace().unwrap_or_default();
    let api: Api<Lease> = Api::namespaced(connection.client.clone(), &namespace);
    match tokio::time::timeout(PATIENCE, api.get_opt(&lease_name(deployment))).await {
        Ok(Ok(Some(lease))) => judge(&lease, &namespace, now),
        Ok(Ok(None)) => nobody(&namespace, "there is no lease"),
        Ok(Err(Error::Api(status))) if status.code == 403 => Check::unseen(
            "lease",
            format!("forbidden: get leases.coordination.k8s.io in namespace {namespace}"),
        ),
        Ok(Err(error)) => Check::unseen("lease", words(&error)),
        Err(_) => Check::unseen("lease", "no answer"),
    }
}

/// What the operator was told to use, else its name, which the chart gives it.
fn lease_name(deployment: &Deployment) -> String {
    let pod = deployment.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    let arguments = pod.and_then(|pod| pod.containers.first()?.args.as_ref());
    let told = arguments.into_iter().flatten().find_map(|argument| argument.strip_prefix("--lease="));
    told.map_or_else(|| deployment.name_any(), ToOwned::to_owned)
}

fn nobody(namespace: &str, why: &str) -> Check {
    Check::fail(
        "lease",
        format!("no operator leads in namespace {namespace}: {why}"),
        format!("kubectl -n {namespace} logs -l {}={} --tail 50", labels::NAME, labels::OPERATOR),
    )
}

fn judge(lease: &Lease, namespace: &str, now: Timestamp) -> Check {
    let spec = lease.spec.clone().unwrap_or_default();
    let holder = spec.holder_identity.filter(|holder| !holder.is_empty());
    let (Some(holder), Some(renewed)) = (holder, spec.renew_time) else {
        return nobody(namespace, "nobody holds the lease");
    };
    let since = now.as_second() - renewed.0.as_second();
    // The holder's clock wrote the time, the API server's is what it is compared with.
    if since > i64::from(spec.lease_duration_seconds.unwrap_or(15)) + SKEW_SECONDS {
        return nobody(namespace, &format!("{holder} renewed the lease {} ago", age(since)));
    }
    Check::ok("lease", format!("{holder} leads, renewed {} ago", age(since)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::Outcome, *};

    fn lease(holder: &str, renewed: &str) -> Lease {
        let spec = json!({ "holderIdentity": holder, "renewTime": renewed, "leaseDurationSeconds": 15 });
        serde_json::from_value(json!({ "metadata": {}, "spec": spec })).unwrap()
    }

    #[test]
    fn a_lease_that_nobody_holds_or_renews_is_a_failure_with_a_remedy() {
        let now: Timestamp = "2026-03-01T12:00:30Z".parse().unwrap();
        let judged = |holder, renewed| judge(&lease(holder, renewed), "shoal-system", now);
        assert_eq!(judged("a", "2026-03-01T12:00:20.000000Z").outcome, Outcome::Ok);
        for (holder, renewed) in [("", "2026-03-01T12:00:20.000000Z"), ("a", "2026-03-01T12:00:00.000000Z")] {
            let check = judged(holder, renewed);
            assert_eq!(check.outcome, Outcome::Fail, "{check:?}");
            assert!(check.remedy.is_some_and(|remedy| remedy.contains("logs")));
        }
    }

    #[test]
    fn a_clock_that_is_wrong_is_noted_with_how_much() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let (here, there) = (at("2026-03-01T12:01:00Z"), at("2026-03-01T12:00:00Z"));
        assert_eq!(clock(here, Some(here)).outcome, Outcome::Ok);
        assert_eq!(clock(here, Some(there)).found, "this machine is 60 s ahead of the API server");
    }

    #[test]
    fn an_api_server_that_is_too_old_fails() {
        let old = age_of(&json!({ "gitVersion": "v1.32.9", "minor": "32+" }));
        assert_eq!(old.outcome, Outcome::Fail);
        assert_eq!(age_of(&json!({ "gitVersion": "v1.36.2", "minor": "36" })).outcome, Outcome::Ok);
    }
}
