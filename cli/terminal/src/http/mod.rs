//! A client of the OpenAI API: JSON in, JSON or a stream of events out.

mod events;

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response,
    body::{Body, Incoming},
    header,
};
use hyper_util::{
    client::legacy::{Client as Pool, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;

pub use events::Events;

/// Bytes of an answer that is not streamed.
const MAX_ANSWER_BYTES: usize = 16 << 20;
const CONNECT: Duration = Duration::from_secs(5);

pub type AnyError = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("{url} is not a usable address: {source}")]
    Url { url: String, source: hyper::http::Error },
    #[error("no answer from {url}: {source}")]
    Unreachable { url: String, source: AnyError },
    #[error("the answer broke off: {0}")]
    Broken(String),
    #[error("{status}: {message}")]
    Refused { status: u16, message: String },
}

#[derive(Debug, Clone)]
pub struct Client(Pool<HttpConnector, Full<Bytes>>);

impl Default for Client {
    fn default() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT));
        connector.set_nodelay(true);
        Self(Pool::builder(TokioExecutor::new()).build(connector))
    }
}

impl Client {
    /// The status of a GET; the body is dropped.
    pub async fn status(&self, url: &str) -> Result<u16, HttpError> {
        let response = self.send(Method::GET, url, None).await?;
        Ok(response.status().as_u16())
    }

    pub async fn get(&self, url: &str) -> Result<Value, HttpError> {
        json(self.send(Method::GET, url, None).await?).await
    }

    /// Posts and reads the answer as server-sent events. Dropping them ends the request.
    pub async fn stream(&self, url: &str, body: &Value) -> Result<Events, HttpError> {
        events(self.send(Method::POST, url, Some(body)).await?).await
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
        self.0
            .request(request)
            .await
            .map_err(|source| HttpError::Unreachable { url: url.to_owned(), source: source.into() })
    }
}

/// A successful answer as JSON.
pub async fn json<B>(response: Response<B>) -> Result<Value, HttpError>
where
    B: Body<Data = Bytes, Error: Into<AnyError>>,
{
    whole(accepted(response).await?).await
}

/// A successful answer as a stream of events.
pub async fn events<B>(response: Response<B>) -> Result<Events, HttpError>
where
    B: Body<Data = Bytes, Error: Into<AnyError>> + Send + 'static,
{
    Ok(Events::new(accepted(response).await?.into_body()))
}

/// The response if it is a success, else what the server said: a gateway or, on the way to one, an API server.
async fn accepted<B>(response: Response<B>) -> Result<Response<B>, HttpError>
where
    B: Body<Data = Bytes, Error: Into<AnyError>>,
{
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let message = match whole(response).await {
        Ok(body) => said(&body).map_or_else(|| body.to_string(), ToOwned::to_owned),
        Err(_) => status.canonical_reason().unwrap_or("refused").to_owned(),
    };
    Err(HttpError::Refused { status: status.as_u16(), message })
}

fn said(body: &Value) -> Option<&str> {
    body["error"]["message"].as_str().or_else(|| body["message"].as_str())
}

async fn whole<B>(response: Response<B>) -> Result<Value, HttpError>
where
    B: Body<Data = Bytes, Error: Into<AnyError>>,
{
    let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
    let bytes = body.map_err(|error| HttpError::Broken(error.to_string()))?.to_bytes();
    serde_json::from_slice(&bytes).map_err(|error| HttpError::Broken(error.to_string()))
}
