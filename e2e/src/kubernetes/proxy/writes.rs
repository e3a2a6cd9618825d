//! Writes: counted, disturbed, sent on.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http::{Request, Response, StatusCode, header, request::Parts};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use serde_json::{Value, json};

use super::{Body, Broken, Call, Fault, Moment, Shared, Write, body};

/// A server's whole answer.
type Whole = Response<Bytes>;

pub(super) async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Broken> {
    shared.requests.fetch_add(1, Ordering::SeqCst);
    let (parts, incoming) = request.into_parts();
    let sent = incoming.collect().await.map_err(|_| Broken)?.to_bytes();
    let (index, call) = shared.note(&parts, &sent);
    let fault = shared.plan.as_ref().filter(|(_, at)| *at == call).map(|(fault, _)| *fault);
    if fault.is_some() {
        shared.fired.store(true, Ordering::SeqCst);
    }
    // Apart from the connection: it goes on when the operator hangs up.
    shared.held.fetch_add(1, Ordering::SeqCst);
    let carried = tokio::spawn(async move {
        let outcome = shared.carry_out(index, fault, parts, sent).await;
        shared.held.fetch_sub(1, Ordering::SeqCst);
        outcome
    });
    carried.await.unwrap_or(Err(Broken))
}

impl Shared {
    fn note(&self, parts: &Parts, sent: &[u8]) -> (usize, Call) {
        let object: Value = serde_json::from_slice(sent).unwrap_or_default();
        let (mut call, namespace) = Call::of(&parts.method, parts.uri.path(), &object);
        let mut seen = self.seen.lock();
        let count = seen.entry(call.clone()).or_insert(0);
        *count += 1;
        call.nth = *count;
        let object = (call.verb == "create").then_some(object);
        let mut journal = self.journal.lock();
        journal.push(Write { call: call.clone(), namespace, at: Instant::now(), object, answer: None });
        (journal.len() - 1, call)
    }

    fn came_of(&self, index: usize, answer: u16) {
        if let Some(write) = self.journal.lock().get_mut(index) {
            write.answer = Some(answer);
        }
    }

    async fn carry_out(
        self: &Arc<Self>,
        index: usize,
        fault: Option<Fault>,
        parts: Parts,
        sent: Bytes,
    ) -> Result<Response<Body>, Broken> {
        match fault {
            Some(Fault::Kill(Moment::BeforeSent) | Fault::Break(Moment::BeforeSent)) => {
                self.came_of(index, 0);
            }
            Some(Fault::Answer(code)) if code != 504 => {
                self.came_of(index, 0);
                return Ok(refusal(code));
            }
            Some(Fault::Delay(time)) => tokio::time::sleep(time).await,
            Some(Fault::Expire) => self.view.send_modify(|view| view.expired += 1),
            Some(Fault::CutWatches(time)) => self.view.send_modify(|view| view.cut_after = Some(time)),
            _ => {}
        }
        match fault {
            Some(Fault::Break(Moment::BeforeSent)) => Err(Broken),
            Some(Fault::Kill(Moment::BeforeSent)) => {
                self.kill().await;
                Err(Broken)
            }
            _ => {
                let reply = self.send(index, parts, sent).await?;
                self.reply(fault, reply).await
            }
        }
    }

    /// Sends the write to the server and notes what came of it.
    async fn send(&self, index: usize, parts: Parts, sent: Bytes) -> Result<Whole, Broken> {
        let mut request = Request::builder().method(parts.method).uri(parts.uri);
        for name in [header::CONTENT_TYPE, header::ACCEPT] {
            if let Some(value) = parts.headers.get(&name) {
                request = request.header(name, value);
            }
        }
        let request = request.body(sent.into()).map_err(|_| Broken)?;
        let reply = match self.server.send(request).await {
            Ok(reply) => reply,
            Err(error) => {
                self.came_of(index, 0);
                eprintln!("the API server did not answer: {error}");
                return Err(Broken);
            }
        };
        let (parts, incoming) = reply.into_parts();
        self.came_of(index, parts.status.as_u16());
        let whole = incoming.collect().await.map_err(|_| Broken)?.to_bytes();
        Ok(Response::from_parts(parts, whole))
    }

    async fn reply(self: &Arc<Self>, fault: Option<Fault>, reply: Whole) -> Result<Response<Body>, Broken> {
        match fault {
            Some(Fault::Kill(Moment::BeforeReply)) => {
                self.kill().await;
                Err(Broken)
            }
            Some(Fault::Break(Moment::BeforeReply)) => Err(Broken),
            Some(Fault::Kill(Moment::AfterReply)) => Ok(self.last_words(&reply)),
            Some(Fault::Answer(code)) => Ok(refusal(code)),
            _ => {
                let mut answer = Response::new(body(Full::new(reply.body().clone())));
                *answer.status_mut() = reply.status();
                copy_type(&reply, &mut answer);
                Ok(answer)
            }
        }
    }

    /// The reply, and death once the last of it is on its way: its length is not told, so that the connection asks
    /// for more after it.
    fn last_words(self: &Arc<Self>, reply: &Whole) -> Response<Body> {
        let shared = Arc::clone(self);
        let frames = stream::once(std::future::ready(Ok(Frame::data(reply.body().clone()))));
        let death = stream::once(async move {
            tokio::spawn(async move {
                // The end of the body is written after this stream has ended.
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                shared.kill().await;
            });
            Ok(Frame::data(Bytes::new()))
        });
        let mut answer = Response::new(body(StreamBody::new(frames.chain(death))));
        *answer.status_mut() = reply.status();
        copy_type(reply, &mut answer);
        answer
    }
}

fn copy_type(from: &Whole, to: &mut Response<Body>) {
    if let Some(value) = from.headers().get(header::CONTENT_TYPE) {
        to.headers_mut().insert(header::CONTENT_TYPE, value.clone());
    }
}

/// As an API server words it.
fn refusal(code: u16) -> Response<Body> {
    let reason = match code {
        409 => "Conflict",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        _ => "InternalError",
    };
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "disturbed by a test", "reason": reason, "code": code,
    });
    let mut answer = Response::new(body(Full::new(Bytes::from(status.to_string()))));
    *answer.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    if code == 429 {
        answer.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("2"));
    }
    answer
}
