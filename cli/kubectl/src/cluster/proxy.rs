//! Pods and gateways through the API server's proxy: it needs no way into the pods' network but the API server's, which
//! network policies leave open for metrics and the OpenAI API, and works where engines listen on their pod's address only,
//! which a port-forward, ending on the pod's loopback, does not reach.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::{ResourceExt as _, client::Body};
use serde_json::Value;
use shoal_terminal::{
    conversation::Server,
    failure::Failure,
    http::{self as openai, Events, HttpError},
};

use super::Connection;

const PATIENCE: Duration = Duration::from_secs(5);
const MAX_BYTES: usize = 4 << 20;

/// Metrics of an engine, or a line that says why not.
pub(crate) async fn engine_metrics(connection: &Connection, pod: &Pod) -> Result<String, String> {
    metrics(connection, pod, "metrics").await
}

pub(crate) async fn gateway_metrics(connection: &Connection, pod: &Pod) -> Result<String, String> {
    metrics(connection, pod, "http").await
}

async fn metrics(connection: &Connection, pod: &Pod, port: &str) -> Result<String, String> {
    let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
    let number = ports
        .find(|found| found.name.as_deref() == Some(port))
        .map(|found| found.container_port)
        .ok_or_else(|| format!("pod {name} has no port {port}"))?;
    let path = format!("/api/v1/namespaces/{namespace}/pods/{name}:{number}/proxy/metrics");
    match get(connection, &path, PATIENCE).await {
        Ok((200, body)) => Ok(body),
        Ok((403, _)) => Err(format!("forbidden: get pods/proxy in namespace {namespace} (figures of pods)")),
        Ok((status, _)) => Err(format!("pod {name} does not give its metrics: {status}")),
        Err(why) => Err(format!("pod {name} does not give its metrics: {why}")),
    }
}

/// Status and body of a GET through the API server; status 403 is the API server's own.
async fn get(connection: &Connection, path: &str, patience: Duration) -> Result<(u16, String), String> {
    let request = http::Request::get(path).body(Body::empty()).map_err(|error| error.to_string())?;
    let answer = async {
        let response = connection.client.send(request).await.map_err(|error| super::words(&error))?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), MAX_BYTES).collect().await;
        let bytes: Bytes = body.map_err(|error| error.to_string())?.to_bytes();
        Ok((status, String::from_utf8_lossy(&bytes).into_owned()))
    };
    let late = || Err(format!("no answer within {} s", patience.as_secs()));
    tokio::time::timeout(patience, answer).await.unwrap_or_else(|_| late())
}

/// The OpenAI API of a cluster, by its Service.
#[derive(Clone)]
pub(crate) struct Gateway {
    connection: Connection,
    base: String,
}

impl Gateway {
    pub(crate) fn of(connection: &Connection, service: &Service) -> Self {
        let (namespace, name) = (service.namespace().unwrap_or_default(), service.name_any());
        let base = format!("/api/v1/namespaces/{namespace}/services/http:{name}:http/proxy");
        Self { connection: connection.clone(), base }
    }

    /// Status and body of a GET.
    pub(crate) async fn get(&self, path: &str, patience: Duration) -> Result<(u16, String), String> {
        get(&self.connection, &format!("{}{path}", self.base), patience).await
    }

    async fn send(
        &self,
        request: http::request::Builder,
        body: Body,
    ) -> Result<http::Response<Body>, HttpError> {
        let url = self.base.clone();
        let request = request.body(body).map_err(|source| HttpError::Url { url: url.clone(), source })?;
        let answer = self.connection.client.send(request).await;
        answer.map_err(|error| HttpError::Unreachable { url, source: super::words(&error).into() })
    }

    /// The first model that it lists.
    pub(crate) async fn model(&self) -> Result<Option<String>, HttpError> {
        let request = http::Request::get(format!("{}/v1/models", self.base));
        let models = openai::json(self.send(request, Body::empty()).await?).await?;
        Ok(models["data"][0]["id"].as_str().map(ToOwned::to_owned))
    }
}

impl Server for Gateway {
    /// A 403 is the API server's: a gateway of a cluster asks for no key that would come through.
    fn failure(error: &HttpError) -> Failure {
        match error {
            HttpError::Refused { status: 403, message } => Failure::not_found(message),
            HttpError::Unreachable { source, .. } => Failure::not_found(source.to_string()),
            error => Failure::failed(error.to_string()),
        }
    }

    async fn ask(&self, request: &Value) -> Result<Events, HttpError> {
        let builder = http::Request::post(format!("{}/v1/chat/completions", self.base))
            .header(http::header::CONTENT_TYPE, "application/json");
        openai::events(self.send(builder, Body::from(request.to_string().into_bytes())).await?).await
    }
}
