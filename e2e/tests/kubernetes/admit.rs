//! What the API server refuses, and in which words.

use anyhow::{Context, Result, ensure};
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, PostParams};
use kube::{Api, Error};
use serde_json::{Map, Value, json};
use shoal_e2e::kubernetes::{Namespace, in_namespace, small};

/// A path into the document, what is put there (null removes), and what the user is told.
const REFUSED: &[(&str, &str, &str)] = &[
    ("/spec/engine/kvmemory", r#""1Gi""#, r#"unknown field "spec.engine.kvmemory""#),
    ("/spec/replica", "3", r#"unknown field "spec.replica""#),
    ("/spec/model/source/namespace", r#""other""#, r#"unknown field "spec.model.source.namespace""#),
    (
        "/spec/engine/device",
        r#""abacus""#,
        r#"spec.engine.device: Unsupported value: "abacus": supported values: "#,
    ),
    ("/spec/engine/threads", "0", r#"spec.engine.threads: Invalid value: "integer": must be 1 to 256"#),
    ("/spec/engine/threads", "257", r#"spec.engine.threads: Invalid value: "integer": must be 1 to 256"#),
    ("/spec/engine/threads", r#""many""#, "spec.engine.threads in body must be of type integer: \"string\""),
    ("/spec/engine/threads", "1.5", "spec.engine.threads in body must be of type integer: \"number\""),
    ("/spec/engine/kvMemory", r#""1.5Gi5""#, KV_MEMORY),
    ("/spec/engine/kvMemory", r#""""#, KV_MEMORY),
    ("/spec/engine/kvMemory", r#""15Mi""#, KV_MEMORY),
    ("/spec/engine/kvMemory", r#""5Ti""#, KV_MEMORY),
    ("/spec/engine/kvMemory", r#""-1Gi""#, KV_MEMORY),
    ("/spec/engine/kvMemory", "512", "spec.engine.kvMemory in body must be of type string: \"integer\""),
    ("/spec/engine/maxBatch", "513", r#"spec.engine.maxBatch: Invalid value: "integer": must be 1 to 512"#),
    (
        "/spec/engine/chunk",
        "100",
        r#"spec.engine.chunk: Invalid value: "integer": must be a multiple of 64 from 64 to 8192"#,
    ),
    (
        "/spec/engine",
        r#"{"chunk": 64, "maxBatch": 65}"#,
        "engine.chunk must be at least engine.maxBatch, so that a step has room for one token of every running sequence",
    ),
    (
        "/spec/engine/maxContext",
        "63",
        r#"spec.engine.maxContext: Invalid value: "integer": must be 64 to 1048576"#,
    ),
    ("/spec/engine", "4", "spec.engine in body must be of type object: \"integer\""),
    ("/spec/prefill/replicas", "-1", r#"spec.prefill.replicas: Invalid value: "integer": must be 0 to 4095"#),
    ("/spec/decode/replicas", "0", r#"spec.decode.replicas: Invalid value: "integer": must be 1 to 4096"#),
    ("/spec/decode/replicas", "4096", "prefill.replicas and decode.replicas together must be at most 4096"),
    (
        "/spec/gateway",
        r#"{"port": 65536}"#,
        r#"spec.gateway.port: Invalid value: "integer": must be 1 to 65535"#,
    ),
    ("/spec/model", "null", "spec.model: Required value"),
    ("/spec", "null", "spec: Required value"),
    ("/spec/model/name", r#""smol lm""#, MODEL_NAME),
    ("/spec/model/name", r#""鱼""#, MODEL_NAME),
    ("/spec/model/source/path", r#""models/x.gguf""#, PATH),
    ("/spec/model/source/path", r#""/models/../etc/passwd""#, PATH),
    ("/spec/model/source/path", r#""/..""#, PATH),
    ("/spec/model/source", r#"{"path": "/x/../../../etc", "claim": "models"}"#, PATH),
    ("/spec/model/source", r#"{"path": "/x", "hostPath": "/srv/../etc"}"#, HOST_PATH),
    ("/spec/model/source/claim", r#""other/models""#, CLAIM),
    ("/spec/model/source/claim", r#""..""#, CLAIM),
    ("/metadata/name", r#""1chat""#, NAME),
    ("/metadata/name", r#""chat.room""#, NAME),
    ("/metadata/name", r#""Chat""#, NAME),
    ("/metadata/name", r#""a-name-of-exactly-forty-one-characters-xxx""#, NAME),
];
const KV_MEMORY: &str = "spec.engine.kvMemory: Invalid value: \"string\": must be a whole number of bytes from 16Mi to \
    4Ti with an optional Ki, Mi, Gi or Ti, for example 512Mi";
const MODEL_NAME: &str = "spec.model.name: Invalid value: \"string\": must be 1 to 128 letters, digits, '.', '_', '/', \
    ':' or '-', starting with a letter or digit";
const PATH: &str = "spec.model.source.path: Invalid value: \"string\": must be an absolute path of at most 4096 characters \
    without '..', for example /models/smollm2.gguf";
const HOST_PATH: &str = "spec.model.source.hostPath: Invalid value: \"string\": must be an absolute path of at most 4096 \
    characters without '..', for example /srv/models";
const CLAIM: &str = "spec.model.source.claim: Invalid value: \"string\": must be the name of a PersistentVolumeClaim: at \
    most 253 lower-case letters, digits, '-' or '.'";
const NAME: &str = "metadata.name must be at most 40 characters: a lower-case letter, then lower-case letters, digits or \
    '-', ending in a letter or digit";

#[tokio::test]
async fn admit_refuses_what_cannot_be_served_and_names_the_field_and_what_is_allowed() -> Result<()> {
    in_namespace("admit-refuses", async |namespace| {
        for (path, value, told) in REFUSED {
            let mut document = small("chat", 1, 1);
            set(&mut document, path, serde_json::from_str(value)?)?;
            let said = namespace.refusal(&document.to_string()).await?;
            ensure!(said.contains(told), "{path}={value}\nwanted: {told}\ngot:    {said}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn admit_a_refused_edit_leaves_what_was_there() -> Result<()> {
    in_namespace("admit-edit", async |namespace| {
        let chat = namespace.apply(&small("chat", 0, 1)).await?;
        let before = chat.get().await?;
        let edit = json!({"spec": {"decode": {"replicas": 0}}});
        let refused = chat.patch(&edit).await.err().context("the edit was accepted")?;
        ensure!(format!("{refused:#}").contains("must be 1 to 4096"), "{refused:#}");
        let after = chat.get().await?;
        assert_eq!(after.metadata.generation, before.metadata.generation);
        assert_eq!(after.spec, before.spec);
        Ok(())
    })
    .await
}

/// Every field of the spec gets values from the ends of its kind and from other kinds. The API server takes a
/// value or says which field is wrong; it never fails over one.
#[tokio::test]
async fn admit_every_field_takes_a_strange_value_or_is_named_in_the_refusal() -> Result<()> {
    in_namespace("admit-fuzz", async |namespace| {
        let schema = schema(namespace).await?;
        let mut fields = Vec::new();
        leaves("/spec", &schema["properties"]["spec"], &mut fields);
        ensure!(fields.len() >= 10, "the schema has more fields than {fields:?}");
        let kind = GroupVersionKind::gvk("shoal.dev", "v1alpha1", "ServingCluster");
        let api: Api<DynamicObject> = Api::namespaced_with(
            namespace.cluster.client.clone(),
            &namespace.name,
            &ApiResource::from_gvk(&kind),
        );
        let parameters = PostParams { dry_run: true, ..PostParams::default() };
        for field in &fields {
            for value in strange() {
                let mut document = small("chat", 1, 1);
                set(&mut document, field, value.clone())?;
                let object: DynamicObject = serde_json::from_value(document)?;
                let shown = value.to_string().chars().take(40).collect::<String>();
                match api.create(&parameters, &object).await {
                    Ok(_) => {}
                    Err(Error::Api(status)) => {
                        let (above, last) = field.rsplit_once('/').unwrap_or_default();
                        // What must stand beside it is missed first.
                        let beside = format!("{}.", above.trim_start_matches('/').replace('/', "."));
                        let named = status.message.contains(last)
                            || (status.message.contains(&beside)
                                && status.message.contains("Required value"));
                        ensure!(status.code == 422 || status.code == 400, "{field}={shown}: {status:?}");
                        ensure!(named, "{field}={shown}: {}", status.message);
                    }
                    Err(error) => return Err(error).context(format!("{field}={shown}")),
                }
            }
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn admit_the_longest_name_that_is_allowed_serves() -> Result<()> {
    in_namespace("admit-name", async |namespace| {
        let name = format!("c{}", "x".repeat(shoal_crds::MAX_NAME_LENGTH - 1));
        let chat = namespace.apply(&small(&name, 0, 1)).await?;
        chat.settled().await?;
        chat.ask("The capital of France is", 4).await?;
        Ok(())
    })
    .await
}

async fn schema(namespace: &Namespace) -> Result<Value> {
    let text = namespace.kubectl(&["get", "crd", "servingclusters.shoal.dev", "--output=json"]).await?;
    let definition: Value = serde_json::from_str(&text)?;
    let found = definition.pointer("/spec/versions/0/schema/openAPIV3Schema");
    found.cloned().context("the definition has a schema")
}

/// Paths of the fields that hold no further fields.
fn leaves(path: &str, schema: &Value, found: &mut Vec<String>) {
    match schema["properties"].as_object() {
        Some(properties) => {
            properties.iter().for_each(|(name, inner)| leaves(&format!("{path}/{name}"), inner, found));
        }
        None => found.push(path.to_owned()),
    }
}

fn strange() -> Vec<Value> {
    let text = ["", " ", "0", "1Gi5", "../..", "$(POD_IP)", "`id`; id", "鱼\u{202e}", "\n"].map(Value::from);
    let numbers = [json!(0), json!(-1), json!(i32::MAX), json!(1_i64 << 31), json!(i64::MAX), json!(1.5)];
    let others = [json!(true), json!([]), json!({}), json!([{}]), Value::from("x".repeat(64 << 10))];
    text.into_iter().chain(numbers).chain(others).collect()
}

/// Puts a value at a path, making the mappings that lead there; null removes.
fn set(document: &mut Value, path: &str, value: Value) -> Result<()> {
    let (parent, name) = path.rsplit_once('/').context("a path has a slash")?;
    let mut at = document;
    for step in parent.split('/').skip(1) {
        at =
            at.as_object_mut().context("a mapping")?.entry(step).or_insert_with(|| Value::Object(Map::new()));
    }
    let fields = at.as_object_mut().context("a mapping")?;
    if value.is_null() {
        fields.remove(name);
    } else {
        fields.insert(name.to_owned(), value);
    }
    Ok(())
}
