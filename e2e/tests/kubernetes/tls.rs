//! What stands between a fleet's engines and everybody else: network policies, and behind those mutual TLS and the proof
//! of the data sockets. And certificates that change while the fleet serves.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::{Pod, Secret};
use serde_json::json;
use shoal_e2e::certificates::Authority;
use shoal_e2e::kubernetes::{Load, Namespace, in_namespace, small};
use shoal_wire::frame::{GREETING_BYTES, Greeting, PROOF_BYTES};
use shoal_wire::rpc::HelloRequest;
use shoal_wire::rpc::engine_client::EngineClient;
use shoal_wire::tls::{self, Identity, Material};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::Code;
use tonic::transport::Endpoint;

const GRPC: u16 = 7070;
const DATA: u16 = 7071;
const CLIENTS: usize = 2;
/// For an answer, or for silence to be one.
const ANSWER: Duration = Duration::from_secs(5);
/// A policy is in force a moment after it was made.
const SOON: Duration = Duration::from_secs(30);
/// Nodes exchange mounted Secrets within a minute and a half; minutes, because the machine may be busy.
const SPREAD: Duration = Duration::from_mins(5);

#[tokio::test]
async fn tls_engines_refuse_whoever_is_not_of_the_fleet_also_where_no_policy_holds_them_back() -> Result<()> {
    in_namespace("tls-refuses", async |namespace| {
        let chat = namespace.apply(&small("chat", 0, 1)).await?;
        chat.settled().await?;
        let (name, pod) = chat.instances().await?.pop_first().context("an instance")?;
        let address = pod.status.and_then(|status| status.pod_ip).context("it has an address")?;
        let (grpc, data) = (format!("{address}:{GRPC}"), format!("{address}:{DATA}"));
        for port in [&grpc, &data] {
            let reached = timeout(ANSWER, TcpStream::connect(port)).await;
            ensure!(!matches!(reached, Ok(Ok(_))), "the policies of {name} let a stranger reach {port}");
        }

        let any = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "any"},
            "spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{}]}});
        namespace.kubectl_with(&any.to_string(), &["apply", "--filename", "-"]).await?;
        let reached = async || Ok(timeout(ANSWER, TcpStream::connect(&grpc)).await??);
        namespace.until("everybody reaches the engine", SOON, reached).await?;

        let own = material(namespace).await?;
        let name = Identity::new(&own)?.name();
        ensure!(name == format!("chat.{}.fleet.shoal.internal", namespace.name), "{name}");
        assert_eq!(greet(&grpc, Some(&own)).await?, Code::Unauthenticated, "the token is asked for all the same");
        // It takes the engine for what it is, so it is the engine that refuses.
        let stranger = Authority::new("stranger")?.issue(&name)?;
        let authorities = [&own.authorities[..], &stranger.authorities].concat();
        let stranger = Material { authorities, ..stranger };
        assert_ne!(greet(&grpc, Some(&stranger)).await?, Code::Unauthenticated, "another authority");
        assert_ne!(greet(&grpc, None).await?, Code::Unauthenticated, "no TLS at all");
        assert_eq!(proved(&data).await?, None, "the engine proves nothing to who proves nothing");
        chat.ask("The capital of France is", 4).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn tls_a_certificate_is_exchanged_under_load_without_a_lost_answer_or_a_restart() -> Result<()> {
    in_namespace("tls-rotates", async |namespace| {
        let chat = namespace.apply(&small("chat", 1, 1)).await?;
        chat.settled().await?;
        let (before, certificate) = (chat.uids().await?, material(namespace).await?.certificate);
        let load = Load::start(&chat, CLIENTS).await?;
        load.answers(CLIENTS, SPREAD).await?;
        namespace.kubectl(&["delete", "secret", "chat-tls"]).await?;
        // A pod that comes up makes the operator look at the Secrets.
        chat.patch(&json!({"spec": {"decode": {"replicas": 2}}})).await?;
        chat.settled().await?;
        ensure!(material(namespace).await?.certificate != certificate, "the certificate is the old one");
        let used = async || {
            for pod in before.keys() {
                let log = namespace.kubectl(&["logs", pod]).await?;
                ensure!(log.contains("new certificates are in use"), "{pod} uses the old one");
            }
            Ok(())
        };
        namespace.until("every process uses the new certificate", SPREAD, used).await?;
        load.answers(2 * CLIENTS, SPREAD).await?;
        load.stop().await?.flawless()?;
        let after = chat.uids().await?;
        ensure!(before.iter().all(|(name, uid)| after.get(name) == Some(uid)), "{before:?} {after:?}");
        for (name, pod) in chat.instances().await?.into_iter().chain(chat.gateways().await?) {
            assert_eq!(restarts(&pod), 0, "{name}");
        }
        chat.settled().await.map(drop)
    })
    .await
}

/// What the fleet's processes mount.
async fn material(namespace: &Namespace) -> Result<Material> {
    let secret = namespace.api::<Secret>().get("chat-tls").await?;
    let data = secret.data.unwrap_or_default();
    let file = |name: &str| data.get(name).map(|content| content.0.clone()).context(name.to_owned());
    Ok(Material { authorities: file("ca.crt")?, certificate: file("tls.crt")?, key: file("tls.key")? })
}

/// How a call without the fleet's token is refused; one that gets through TLS lacks only that.
async fn greet(address: &str, material: Option<&Material>) -> Result<Code> {
    let identity = material.map(Identity::new).transpose()?;
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?.connect_timeout(ANSWER);
    let mut client = EngineClient::new(tls::channel(&endpoint, identity.as_ref()));
    match timeout(2 * ANSWER, client.hello(HelloRequest { fingerprint: None })).await? {
        Ok(_) => bail!("a call without the fleet's token was answered"),
        Err(status) => Ok(status.code()),
    }
}

/// The proof of a data socket's engine for a peer whose own proof is none; the connection ends without one.
async fn proved(address: &str) -> Result<Option<[u8; PROOF_BYTES]>> {
    let mut socket = TcpStream::connect(address).await?;
    socket.write_all(&Greeting { nonce: [7; 32] }.encode()).await?;
    let mut theirs = [0; GREETING_BYTES];
    timeout(ANSWER, socket.read_exact(&mut theirs)).await??;
    socket.write_all(&[7; PROOF_BYTES]).await?;
    let mut proof = [0; PROOF_BYTES];
    match timeout(ANSWER, socket.read_exact(&mut proof)).await {
        Ok(Ok(_)) => Ok(Some(proof)),
        Ok(Err(_)) => Ok(None),
        Err(_) => bail!("the connection is left open"),
    }
}

fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    statuses.map(|status| status.restart_count).sum()
}
