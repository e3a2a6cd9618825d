//! A client of the OpenAI API: JSON in, JSON or a stream of events out.

mod events;

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, Response, body::Incoming, header};
use hyper_util::{
    client::legacy::{Client as Pool, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;

pub(crate) use events::Events;

/// Bytes of an answer that is not streamed.
const MAX_ANSWER_BYTES: usize = 16 << 20;
const CONNECT: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    #[error("{url} is not a usable address: {source}")]
    Url { url: String, source: hyper::http::Error },
    #[error("no answer from {url}: {source}")]
    Unreachable { url: String, source: hyper_util::client::legacy::Error },
    #[error("the answer broke off: {0}")]
    Broken(String),
    #[error("{status}: {message}")]
    Refused { status: u16, message: String },
}

#[derive(Debug, Clone)]
pub(crate) struct Client(Pool<HttpConnector, Full<Bytes>>);

impl Client {
    pub(crate) fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT));
        connector.set_nodelay(true);
        Self(Pool::builder(TokioExecutor::new()).build(connector))
    }

    /// The status of a GET; the body is dropped.
    pub(crate) async fn status(&self, url: &str) -> Result<u16, HttpError> {
        let response = self.send(Method::GET, url, None).await?;
        Ok(response.status().as_u16())
    }

    pub(crate) async fn get(&self, url: &str) -> Result<Value, HttpError> {
        whole(accepted(self.send(Method::GET, url, None).await?).await?).await
    }

    /// Posts and reads the answer as server-sent events. Dropping them ends the request.
    pub(crate) async fn stream(&self, url: &str, body: &Value) -> Result<Events, HttpError> {
        Ok(Events::new(accepted(self.send(Method::POST, url, Some(body)).await?).await?.into_body()))
    }

    async fn send(
        &self,
        method: Method,
        url: &str,
        body: Option<&Value>,
    ) -> Result<Response<Incoming>, HttpError> {
        let bytes = body.map_or_else(Bytes::new, |value| Bytes::from(value.to_string()));
        let request = Request::builder()
            .method(method)
            .uri(url)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(bytes))
            .map_err(|source| HttpError::Url { url: url.to_owned(), source })?;
        self.0.request(request).await.map_err(|source| HttpError::Unreachable { url: url.to_owned(), source })
    }
}

/// The response if it is a success, else what the server said.
async fn accepted(response: Response<Incoming>) -> Result<Response<Incoming>, HttpError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let message = match whole(response).await {
        Ok(body) => body["error"]["message"].as_str().map_or_else(|| body.to_string(), ToOwned::to_owned),
        Err(_) => status.canonical_reason().unwrap_or("refused").to_owned(),
    };
    Err(HttpError::Refused { status: status.as_u16(), message })
}

async fn whole(response: Response<Incoming>) -> Result<Value, HttpError> {
    let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
    let bytes = body.map_err(|error| HttpError::Broken(error.to_string()))?.to_bytes();
    serde_json::from_slice(&bytes).map_err(|error| HttpError::Broken(error.to_string()))
}
