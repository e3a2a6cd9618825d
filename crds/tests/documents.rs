//! What users write, and what they are told when it is wrong.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail")]

use shoal_crds::{Device, DocumentError, read, write};

const SMALLEST: &str = "
apiVersion: shoal.dev/v1alpha1
kind: ServingCluster
metadata: { name: chat }
spec:
  model: { name: smollm2, source: { path: /models/smollm2.gguf } }
";

/// The smallest document with further lines in its spec.
fn with_spec(lines: &str) -> String {
    format!("{SMALLEST}  {lines}\n")
}

fn refusal(text: &str) -> String {
    read(text).expect_err("the document must be refused").to_string()
}

#[test]
fn the_smallest_document_takes_every_default() {
    let cluster = read(SMALLEST).unwrap();
    let spec = cluster.spec;
    assert_eq!(cluster.metadata.name.as_deref(), Some("chat"));
    assert_eq!((spec.prefill.replicas, spec.decode.replicas, spec.gateway.port), (1, 1, 8000));
    assert_eq!((spec.engine.device, spec.engine.threads, spec.engine.max_context), (Device::Cpu, None, None));
    assert_eq!((spec.engine.max_batch, spec.engine.chunk), (32, 512));
    assert_eq!(spec.engine.kv_memory_bytes(), Ok(512 << 20));
}

#[test]
fn what_is_written_reads_back_equal() {
    let claimed = SMALLEST.replace("smollm2.gguf }", "smollm2.gguf, claim: models }");
    let cluster = read(&claimed).unwrap();
    assert_eq!(cluster.spec.model.source.claim.as_deref(), Some("models"));
    assert_eq!(read(&write(&cluster).unwrap()).unwrap(), cluster);
    let cluster = read(&with_spec("engine: { threads: 3, kvMemory: 2Gi, maxContext: 4096 }")).unwrap();
    assert_eq!(read(&write(&cluster).unwrap()).unwrap(), cluster);
}

#[test]
fn what_a_server_prints_is_taken_back() {
    let printed = SMALLEST
        .replace("{ name: chat }", "{ name: chat, generation: 3, creationTimestamp: 2026-01-01T00:00:00Z }");
    let cluster = read(&format!("{printed}status: {{ endpoint: http://127.0.0.1:8000/v1 }}\n")).unwrap();
    assert_eq!(cluster.metadata.generation, Some(3));
}

#[test]
fn bad_documents_are_refused_with_the_field_and_what_is_allowed() {
    let cases: &[(&str, &str)] = &[
        (
            "engine: { kvmemory: 1Gi }",
            "spec.engine.kvmemory: is not a known field; allowed here: chunk, device, image, imagePullPolicy, kvMemory, maxBatch, maxContext, podTemplate, threads; did you mean kvMemory?",
        ),
        (
            "replicas: 3",
            "spec.replicas: is not a known field; allowed here: decode, engine, gateway, model, prefill",
        ),
        ("engine: { device: cuda }", "spec.engine.device: must be one of: cpu; not \"cuda\""),
        ("engine: { threads: 0 }", "spec.engine.threads: must be 1 to 256"),
        (
            "engine: { threads: many }",
            "spec.engine.threads: must be a whole number of at most 32 bits, not string",
        ),
        (
            "engine: { threads: 1.5 }",
            "spec.engine.threads: must be a whole number of at most 32 bits, not number",
        ),
        (
            "engine: { threads: 2147483648 }",
            "spec.engine.threads: must be a whole number of at most 32 bits, not number",
        ),
        (
            "engine: { threads: }",
            "spec.engine.threads: has no value; give it one or remove the line to take the default",
        ),
        (
            "engine: { kvMemory: 1.5Gi }",
            "spec.engine.kvMemory: must be a whole number of bytes from 16Mi to 4Ti with an optional Ki, Mi, Gi or Ti, for example 512Mi",
        ),
        (
            "engine: { kvMemory: 8Mi }",
            "spec.engine.kvMemory: must be a whole number of bytes from 16Mi to 4Ti with an optional Ki, Mi, Gi or Ti, for example 512Mi",
        ),
        ("engine: { kvMemory: 512 }", "spec.engine.kvMemory: must be a string, not number"),
        ("engine: { maxBatch: 513, chunk: 1024 }", "spec.engine.maxBatch: must be 1 to 512"),
        ("engine: { chunk: 100 }", "spec.engine.chunk: must be a multiple of 64 from 64 to 8192"),
        (
            "engine: { chunk: 64, maxBatch: 65 }",
            "spec.engine: engine.chunk must be at least engine.maxBatch, so that a step has room for one token of every running sequence",
        ),
        ("engine: { maxContext: 63 }", "spec.engine.maxContext: must be 64 to 1048576"),
        ("engine: 4", "spec.engine: must be a mapping of fields, not number"),
        ("prefill: { replicas: -1 }", "spec.prefill.replicas: must be 0 to 4095"),
        ("decode: { replicas: 0 }", "spec.decode.replicas: must be 1 to 4096"),
        (
            "prefill: { replicas: 2048 }\n  decode: { replicas: 2049 }",
            "spec: prefill.replicas and decode.replicas together must be at most 4096",
        ),
        ("gateway: { port: 65536 }", "spec.gateway.port: must be 1 to 65535"),
        ("gateway: { port: 0 }", "spec.gateway.port: must be 1 to 65535"),
        ("gateway: { replicas: 0 }", "spec.gateway.replicas: must be 1 to 64"),
        (
            "gateway: { image: 'a b' }",
            "spec.gateway.image: must be an image reference of at most 512 characters without spaces",
        ),
        (
            "engine: { image: '' }",
            "spec.engine.image: must be an image reference of at most 512 characters without spaces",
        ),
        (
            "engine: { imagePullPolicy: always }",
            "spec.engine.imagePullPolicy: must be one of: Always, IfNotPresent, Never; not \"always\"",
        ),
    ];
    for (lines, expected) in cases {
        assert_eq!(&refusal(&with_spec(lines)), expected, "spec line {lines:?}");
    }
}

#[test]
fn what_is_downloaded_has_an_address_a_checksum_and_a_plain_path() {
    let sum = "0".repeat(64);
    let source = |path: &str, url: &str, sum: &str, rest: &str| {
        let source = format!("{path}, {rest}download: {{ files: [{{ url: '{url}', sha256: '{sum}' }}] }} }}");
        SMALLEST.replace("/models/smollm2.gguf }", &source)
    };
    let good = source("/models/smollm2.gguf", "s3://bucket/smollm2.gguf", &sum, "claim: models, ");
    assert_eq!(read(&write(&read(&good).unwrap()).unwrap()).unwrap(), read(&good).unwrap());
    let url = "spec.model.source.download.files[0].url: must be an https, http or s3 URL without user or password, \
               whose last part is a file name of at most 200 letters, digits, '.', '_' or '-'";
    for (path, address, checksum, rest, expected) in [
        ("/a", "ftp://host/a", &*sum, "", url),
        ("/a", "https://me:secret@host/a", &*sum, "", url),
        ("/a", "https://host/", &*sum, "", url),
        (
            "/a",
            "https://host/a",
            "abc",
            "",
            "spec.model.source.download.files[0].sha256: must be a SHA-256: 64 hex digits, in lower case",
        ),
        (
            "/a/.b",
            "https://host/a",
            &*sum,
            "",
            "spec.model.source: path must be made of letters, digits, '.', '_' and '-' between slashes if download is given, with no part that begins with '.'",
        ),
        (
            "/a",
            "https://host/a",
            &*sum,
            "hostPath: /srv, ",
            "spec.model.source: must be one of download and hostPath, not both",
        ),
    ] {
        assert_eq!(refusal(&source(path, address, checksum, rest)), expected);
    }
}

#[test]
fn a_claim_has_a_name_that_a_claim_can_have() {
    for name in ["other/models", "Models", "-a", "a.", "''"] {
        let text = SMALLEST.replace("smollm2.gguf }", &format!("smollm2.gguf, claim: {name} }}"));
        assert_eq!(
            refusal(&text),
            "spec.model.source.claim: must be the name of a PersistentVolumeClaim: at most 253 lower-case letters, digits, '-' or '.'",
            "{name}"
        );
    }
}

#[test]
fn a_folder_of_the_node_is_an_absolute_path_and_there_is_one_place_for_the_model() {
    let source = |more: &str| SMALLEST.replace("smollm2.gguf }", &format!("smollm2.gguf, {more} }}"));
    let folder = read(&source("hostPath: /srv/models")).unwrap().spec.model.source.host_path;
    assert_eq!(folder.as_deref(), Some("/srv/models"));
    for path in ["srv", "/srv/../etc", "''"] {
        assert_eq!(
            refusal(&source(&format!("hostPath: {path}"))),
            "spec.model.source.hostPath: must be an absolute path of at most 4096 characters without '..', for example /srv/models"
        );
    }
    assert_eq!(
        refusal(&source("hostPath: /srv, claim: models")),
        "spec.model.source: must be one of claim and hostPath, not both"
    );
}

#[test]
fn a_pod_template_is_kept_as_it_was_written() {
    let lines = "engine: { podTemplate: { metadata: { labels: { team: search } }, spec: { affinity: { podAffinity: {} }, \
                 tolerations: [{ key: gpu, operator: Exists }], containers: [{ name: engine, resources: { limits: { \
                 nvidia.com/gpu: 1, memory: 2Gi } } }, { name: x, image: 'x:1', tty: true }] } } }";
    let cluster = read(&with_spec(lines)).unwrap();
    assert_eq!(read(&write(&cluster).unwrap()).unwrap(), cluster);
    let template = serde_json::to_value(cluster.spec.engine.pod_template).unwrap();
    assert_eq!(template["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"], 1);
    assert_eq!(template["spec"]["containers"][1]["tty"], true);
}

#[test]
fn a_pod_template_may_not_touch_what_the_operator_holds() {
    let cases: &[(&str, &str)] = &[
        (
            "spec: { hostNetwork: true }",
            "spec.hostNetwork: is not a known field; allowed here: affinity, containers, imagePullSecrets, initContainers, \
             nodeSelector, priorityClassName, resourceClaims, runtimeClassName, schedulerName, tolerations, \
             topologySpreadConstraints, volumes",
        ),
        (
            "spec: { tolerations: [{ kye: gpu }] }",
            "spec.tolerations[0].kye: is not a known field; allowed here: effect, key, operator, tolerationSeconds, value",
        ),
        (
            "metadata: { labels: { shoal.dev/role: decode } }",
            "metadata.labels: must be other labels than shoal.dev/... and app.kubernetes.io/name, component and managed-by, which are the operator's",
        ),
        (
            "metadata: { annotations: { shoal.dev/crashes: '0' } }",
            "metadata.annotations: must be other annotations than shoal.dev/..., which are the operator's",
        ),
        (
            "spec: { volumes: [{ name: model, emptyDir: {} }] }",
            "spec.volumes: must be other volumes than fleet, model and tls, which are the operator's",
        ),
        (
            "spec: { initContainers: [{ name: engine, image: x }] }",
            "spec.initContainers: must be containers with an image, and with other names than engine and gateway",
        ),
        ("spec: { containers: [{ name: engine, command: [sh] }] }", OWN_CONTAINER),
        ("spec: { containers: [{ name: gateway, image: x }] }", OWN_CONTAINER),
        ("spec: { containers: [{ name: engin }] }", OWN_CONTAINER),
    ];
    for component in ["engine", "gateway"] {
        for (lines, expected) in cases {
            let text = with_spec(&format!("{component}: {{ podTemplate: {{ {lines} }} }}"));
            assert_eq!(refusal(&text), format!("spec.{component}.podTemplate.{expected}"), "{lines}");
        }
    }
}

const OWN_CONTAINER: &str = "spec.containers: must be the operator's own container without image, command, args and ports, or others with an image; the own one's image is set by the field image beside podTemplate";

const PATH: &str = "spec.model.source.path: must be an absolute path of at most 4096 characters without '..', for example /models/smollm2.gguf";

#[test]
fn dots_in_a_name_lead_nowhere_and_are_taken() {
    let path = "/models/v1..2/...gguf";
    let cluster = read(&SMALLEST.replace("/models/smollm2.gguf", path)).unwrap();
    assert_eq!(cluster.spec.model.source.path, path);
}

#[test]
fn bad_envelopes_are_refused_with_the_field_and_what_is_allowed() {
    let cases: &[(&str, &str, &str)] = &[
        (
            "shoal.dev/v1alpha1",
            "shoal.dev/v2",
            "apiVersion: must be shoal.dev/v1alpha1, not \"shoal.dev/v2\"",
        ),
        ("kind: ServingCluster", "kind: Deployment", "kind: must be ServingCluster, not \"Deployment\""),
        ("kind: ServingCluster\n", "", "kind: is required and must be ServingCluster"),
        (
            "{ name: chat }",
            "{ name: Chat }",
            "metadata.name must be at most 40 characters: a lower-case letter, then lower-case letters, digits or '-', ending in a letter or digit",
        ),
        ("{ name: chat }", "{}", "metadata.name: is required"),
        (
            "spec:",
            "spek:",
            "spek: is not a known field; allowed here: apiVersion, kind, metadata, spec, status\nspec: is required",
        ),
        ("name: smollm2, ", "", "spec.model.name: is required"),
        (
            "name: smollm2",
            "name: smol lm",
            "spec.model.name: must be 1 to 128 letters, digits, '.', '_', '/', ':' or '-', starting with a letter or digit",
        ),
        ("/models", "models", PATH),
        ("/models", "/models/../etc", PATH),
        ("/models/smollm2.gguf", "/models/..", PATH),
    ];
    for (from, to, expected) in cases {
        let text = SMALLEST.replacen(from, to, 1);
        assert_ne!(text, SMALLEST, "{from:?} is in the document");
        assert_eq!(&refusal(&text), expected, "{from:?} -> {to:?}");
    }
}

#[test]
fn every_mistake_is_reported_at_once() {
    let text = with_spec("engine: { threads: 0, chunk: 1 }\n  gateway: { port: -5 }");
    let DocumentError::Fields(errors) = read(&text).unwrap_err() else { panic!("field errors") };
    let fields: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
    assert_eq!(fields, ["spec.engine", "spec.engine.chunk", "spec.engine.threads", "spec.gateway.port"]);
}

#[test]
fn text_that_is_not_yaml_or_not_a_mapping_is_refused_with_its_place() {
    assert!(refusal("a: [1, 2").contains("line 1"), "{}", refusal("a: [1, 2"));
    let twice = with_spec("decode: { replicas: 1 }\n  decode: { replicas: 2 }");
    assert!(refusal(&twice).contains("duplicate mapping key: decode"), "{}", refusal(&twice));
    assert_eq!(refusal("- 1"), "the document must be a ServingCluster: apiVersion, kind, metadata and spec");
    assert_eq!(refusal(""), "the document must be a ServingCluster: apiVersion, kind, metadata and spec");
    assert_eq!(refusal(&"#".repeat(300 << 10)), "the document has 307200 bytes; it must have at most 262144");
}
