//! Who may do what. That the operator uses every right it has is checked after all tests, by its audit log
//! (scripts/cluster/rights.py).

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Namespace as Object, Pod};
use shoal_e2e::kubernetes::{Namespace, OPERATOR_NAMESPACE, in_namespace, program, small};

#[tokio::test]
async fn rbac_pods_are_restricted_and_engines_have_no_token() -> Result<()> {
    in_namespace("rbac-pods", async |namespace| {
        let object: Object = kube::Api::all(namespace.cluster.client.clone()).get(&namespace.name).await?;
        let level = object.metadata.labels.unwrap_or_default();
        assert_eq!(level["pod-security.kubernetes.io/enforce"], "restricted");
        let chat = namespace.apply(&small("chat", 1, 1)).await?;
        chat.settled().await?;
        for (name, pod) in chat.instances().await? {
            ensure!(!has_token(&pod), "{name} has a token");
            ensure!(!mentions_secret(&pod)?, "{name} has the fleet secret among its arguments or variables");
        }
        for (name, pod) in chat.gateways().await? {
            ensure!(has_token(&pod), "{name} watches pods");
            ensure!(!mentions_secret(&pod)?, "{name} has the fleet secret among its arguments or variables");
        }
        let account = format!("system:serviceaccount:{}:chat-gateway", namespace.name);
        may(namespace, &account, &["list pods", "watch pods"], true).await?;
        let refused =
            ["get pods", "list secrets", "get secrets", "create pods", "delete pods", "list services"];
        may(namespace, &account, &refused, false).await?;
        let elsewhere =
            ["auth", "can-i", "list", "pods", "--namespace", OPERATOR_NAMESPACE, "--as", &account];
        let answer = program::run("kubectl", &elsewhere, None).await?;
        assert_eq!(String::from_utf8_lossy(&answer.stdout).trim(), "no");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn rbac_the_operator_cannot_list_secrets_grant_what_it_lacks_or_delete_more_than_pods() -> Result<()> {
    in_namespace("rbac-operator", async |namespace| {
        let account = format!("system:serviceaccount:{OPERATOR_NAMESPACE}:shoal-operator");
        may(namespace, &account, &["delete pods", "create roles", "patch servingclusters/status"], true)
            .await?;
        let refused = [
            "list secrets",
            "watch secrets",
            "delete secrets",
            "update secrets",
            "escalate roles",
            "bind roles",
            "create clusterroles",
            "patch servingclusters",
            "delete servingclusters",
            "delete deployments",
            "delete services",
            "delete namespaces",
            "create pods/exec",
            "get pods/log",
            "list configmaps",
            "list nodes",
        ];
        may(namespace, &account, &refused, false).await
    })
    .await
}

#[tokio::test]
async fn rbac_who_may_view_or_edit_a_namespace_may_do_so_with_its_clusters() -> Result<()> {
    in_namespace("rbac-people", async |namespace| {
        for role in ["view", "edit", "admin"] {
            let binding = ["create", "rolebinding", role, "--clusterrole", role, "--user", role];
            namespace.kubectl(&binding).await?;
        }
        let read = ["get servingclusters", "list servingclusters", "watch servingclusters"];
        let write = ["create servingclusters", "patch servingclusters", "delete servingclusters"];
        for role in ["view", "edit", "admin"] {
            may(namespace, role, &read, true).await?;
            may(namespace, role, &write, role != "view").await?;
            may(namespace, role, &["patch servingclusters/status"], false).await?;
        }
        may(namespace, "stranger", &read, false).await
    })
    .await
}

/// Whether the user may do each "verb resource" in the namespace.
async fn may(namespace: &Namespace, user: &str, acts: &[&str], wanted: bool) -> Result<()> {
    for act in acts {
        let (verb, resource) = act.split_once(' ').context("a verb and a resource")?;
        let (kind, part) = resource.split_once('/').unwrap_or((resource, ""));
        let part = format!("--subresource={part}");
        let question = ["--namespace", &namespace.name, "auth", "can-i", verb, kind, &part, "--as", user];
        let answer = program::run("kubectl", &question, None).await?;
        let said = String::from_utf8_lossy(&answer.stdout).trim() == "yes";
        ensure!(said == wanted, "{user} {} {act}", if said { "may" } else { "may not" });
    }
    Ok(())
}

fn has_token(pod: &Pod) -> bool {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let mut sources = volumes.filter_map(|volume| volume.projected.as_ref()?.sources.as_ref()).flatten();
    sources.any(|source| source.service_account_token.is_some())
}

/// A fleet secret is 64 hexadecimal digits; nothing else in a pod's containers is.
fn mentions_secret(pod: &Pod) -> Result<bool> {
    let spec = pod.spec.as_ref().context("a pod has a spec")?;
    let text = serde_json::to_string(&spec.containers)?;
    Ok(text.split(|c: char| !c.is_ascii_hexdigit()).any(|word| word.len() >= 64))
}
