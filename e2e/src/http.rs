//! A plain HTTP client: one connection per request, so that dropping a reply closes its connection, or one kept
//! for many.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// A reply that says nothing for this long hangs.
const SILENCE: Duration = Duration::from_mins(1);

#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// From sending the request to the end of the body.
    pub took: Duration,
}

impl Reply {
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body)
            .with_context(|| format!("{}: {}", self.status, String::from_utf8_lossy(&self.body)))
    }

    /// The body as JSON, if the status is 200.
    pub fn ok(&self) -> Result<Value> {
        ensure!(self.status == 200, "{}: {}", self.status, String::from_utf8_lossy(&self.body));
        self.json()
    }
}

pub async fn get(address: &str, path: &str) -> Result<Reply> {
    send(address, Method::GET, path, Bytes::new()).await
}

pub async fn post(address: &str, path: &str, body: &Value) -> Result<Reply> {
    send(address, Method::POST, path, Bytes::from(serde_json::to_vec(body)?)).await
}

pub async fn send(address: &str, method: Method, path: &str, body: Bytes) -> Result<Reply> {
    let began = Instant::now();
    let (response, _connection) = open(address, method, path, body).await?;
    let (head, body) = response.into_parts();
    let body = tokio::time::timeout(SILENCE, body.collect()).await.context("silence")??.to_bytes();
    Ok(Reply { status: head.status, headers: head.headers, body, took: began.elapsed() })
}

/// A streamed answer; dropping it is a client that went away, unless its connection is kept.
#[derive(Debug)]
pub struct Sse {
    pub status: StatusCode,
    body: Incoming,
    buffer: BytesMut,
    _connection: Option<Connection>,
}

/// Begins a streamed request.
pub async fn stream(address: &str, path: &str, body: &Value) -> Result<Sse> {
    let body = Bytes::from(serde_json::to_vec(body)?);
    let (response, connection) = open(address, Method::POST, path, body).await?;
    Ok(Sse::new(response, Some(connection)))
}

/// A connection for one request after the other, as clients keep them.
#[derive(Debug)]
pub struct Kept {
    address: String,
    sender: SendRequest<Full<Bytes>>,
    _connection: Connection,
}

impl Kept {
    pub async fn connect(address: &str) -> Result<Self> {
        let (sender, connection) = connect(address).await?;
        Ok(Self { address: address.to_owned(), sender, _connection: connection })
    }

    /// Begins a streamed request; the answer before it must have been read to its end.
    pub async fn stream(&mut self, path: &str, body: &Value) -> Result<Sse> {
        let body = Bytes::from(serde_json::to_vec(body)?);
        self.sender.ready().await?;
        let response = request(&mut self.sender, &self.address, Method::POST, path, body).await?;
        Ok(Sse::new(response, None))
    }
}

impl Sse {
    fn new(response: Response<Incoming>, connection: Option<Connection>) -> Self {
        let status = response.status();
        Self { status, body: response.into_body(), buffer: BytesMut::new(), _connection: connection }
    }

    /// The next event's JSON; `None` once `[DONE]` and the end of the body came.
    ///
    /// # Errors
    /// When the connection ends without `[DONE]`, or nothing comes for a minute.
    pub async fn next(&mut self) -> Result<Option<Value>> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\n\n") {
                let event = self.buffer.split_to(end + 2);
                let text = std::str::from_utf8(&event)?.trim();
                match text.strip_prefix("data:").map(str::trim) {
                    Some("[DONE]") => {
                        let end =
                            tokio::time::timeout(SILENCE, self.body.frame()).await.context("silence")?;
                        ensure!(end.is_none(), "something follows [DONE]: {end:?}");
                        return Ok(None);
                    }
                    Some(json) => return Ok(Some(serde_json::from_str(json)?)),
                    // A comment keeps the connection alive.
                    None => continue,
                }
            }
            let data = self.frame().await?.context("the stream ended without [DONE]")?;
            self.buffer.extend_from_slice(&data);
        }
    }

    /// Reads to the end without looking into the events.
    ///
    /// # Errors
    /// As [`Sse::next`].
    pub async fn rest(&mut self) -> Result<()> {
        const END: &[u8] = b"data: [DONE]\n\n";
        while let Some(data) = self.frame().await? {
            self.buffer.extend_from_slice(&data);
            let _ = self.buffer.split_to(self.buffer.len().saturating_sub(END.len()));
        }
        ensure!(self.buffer == END, "the stream ended without [DONE]");
        Ok(())
    }

    async fn frame(&mut self) -> Result<Option<Bytes>> {
        while let Some(frame) = tokio::time::timeout(SILENCE, self.body.frame()).await.context("silence")? {
            if let Ok(data) = frame?.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    /// Reads to the end and joins the text of choice 0.
    pub async fn text(mut self) -> Result<String> {
        ensure!(self.status == 200, "{}", self.status);
        let mut text = String::new();
        while let Some(event) = self.next().await? {
            text.push_str(&piece(&event)?);
        }
        Ok(text)
    }
}

/// The text of one streamed event, of a chat or of a completion.
pub fn piece(event: &Value) -> Result<String> {
    ensure!(event.get("error").is_none(), "{event}");
    let choice = &event["choices"][0];
    let text = choice["delta"]["content"].as_str().or_else(|| choice["text"].as_str());
    Ok(text.unwrap_or_default().to_owned())
}

/// Closes the connection when dropped.
#[derive(Debug)]
struct Connection(JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn connect(address: &str) -> Result<(SendRequest<Full<Bytes>>, Connection)> {
    let stream = TcpStream::connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    Ok((sender, Connection(tokio::spawn(async move { drop(connection.await) }))))
}

async fn open(
    address: &str,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<(Response<Incoming>, Connection)> {
    let (mut sender, connection) = connect(address).await?;
    Ok((request(&mut sender, address, method, path, body).await?, connection))
}

async fn request(
    sender: &mut SendRequest<Full<Bytes>>,
    address: &str,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<Response<Incoming>> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", address)
        .header("content-type", "application/json")
        .body(Full::new(body))?;
    Ok(tokio::time::timeout(SILENCE, sender.send_request(request)).await.context("silence")??)
}
