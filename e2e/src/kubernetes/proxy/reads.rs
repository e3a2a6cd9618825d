//! Reads: passed through, cut, or answered as of an earlier moment.
//!
//! An earlier moment is asked of the server itself: it still has each revision of the last minutes, and lists it as
//! it was. A watch of a server that lags shows nothing.

use std::{pin::pin, sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use http::{Request, Response, Uri, header};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

use super::{Body, Broken, Shared, body};

/// What lists and watches show. A change ends every open watch.
#[derive(Debug, Clone, Default)]
pub(super) struct View {
    /// The revision that is shown; none is the newest.
    pub(super) frozen: Option<String>,
    /// How many times all watches were told that their revision is gone.
    pub(super) expired: u32,
    pub(super) cut_after: Option<Duration>,
}

pub(super) async fn answer(shared: &Shared, request: Request<Incoming>) -> Result<Response<Body>, Broken> {
    let query = request.uri().query().unwrap_or_default();
    let watches = query.split('&').any(|pair| pair == "watch=true");
    if !watches {
        shared.requests.fetch_add(1, Ordering::SeqCst);
    }
    let mut changes = shared.view.subscribe();
    let view = changes.borrow_and_update().clone();
    if watches && view.frozen.is_some() {
        return Ok(silence(changes));
    }
    let uri = match &view.frozen {
        Some(revision) if is_list(request.uri().path()) => as_of(request.uri(), revision)?,
        _ => request.uri().clone(),
    };
    let mut sent = Request::builder().uri(uri);
    if let Some(accept) = request.headers().get(header::ACCEPT) {
        sent = sent.header(header::ACCEPT, accept);
    }
    let reply = shared.server.send(sent.body(Vec::new().into()).map_err(|_| Broken)?).await;
    let (mut parts, incoming) = reply.map_err(|_| Broken)?.into_parts();
    // They speak of the server's connection, not of this one.
    for name in [header::TRANSFER_ENCODING, header::CONNECTION] {
        parts.headers.remove(name);
    }
    let incoming = if watches && parts.status.is_success() {
        until_cut(incoming, changes, &view)
    } else {
        incoming.map_err(Into::into).boxed_unsync()
    };
    Ok(Response::from_parts(parts, incoming))
}

/// `…/RESOURCE`, not `…/RESOURCE/NAME`: kinds of this operator are all in namespaces.
fn is_list(path: &str) -> bool {
    path.split('/').skip_while(|part| *part != "namespaces").count() == 3
}

/// The pages after the first carry their revision with them.
fn as_of(uri: &Uri, revision: &str) -> Result<Uri, Broken> {
    let kept = uri.query().unwrap_or_default().split('&').filter(|pair| !pair.starts_with("resourceVersion"));
    let mut query: Vec<&str> = kept.collect();
    let exact = format!("resourceVersion={revision}&resourceVersionMatch=Exact");
    if !query.iter().any(|pair| pair.starts_with("continue=")) {
        query.push(&exact);
    }
    format!("{}?{}", uri.path(), query.join("&")).parse().map_err(|_| Broken)
}

/// A watch in which nothing happens until the server has caught up.
fn silence(mut changes: watch::Receiver<View>) -> Response<Body> {
    let (sender, frames) = mpsc::channel(1);
    tokio::spawn(async move {
        tokio::select! {
            _ = changes.changed() => {}
            () = sender.closed() => {}
        }
    });
    let mut answer = Response::new(body(StreamBody::new(ReceiverStream::new(frames))));
    answer.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    answer
}

/// Passes events on until the view changes or the watch is to be cut.
fn until_cut(incoming: kube::client::Body, mut changes: watch::Receiver<View>, view: &View) -> Body {
    let (sender, frames) = mpsc::channel(16);
    let expired = view.expired;
    let cut = tokio::time::sleep(view.cut_after.unwrap_or(Duration::from_hours(1)));
    tokio::spawn(async move {
        let mut incoming = pin!(incoming);
        let mut cut = pin!(cut);
        loop {
            let frame = tokio::select! {
                frame = incoming.frame() => frame,
                () = &mut cut => return,
                () = sender.closed() => return,
                _ = changes.changed() => {
                    if changes.borrow().expired != expired {
                        // Who reads no more need not be told.
                        let _ = sender.send(Ok(Frame::data(gone()))).await;
                    }
                    return;
                }
            };
            let Some(Ok(frame)) = frame else { return };
            if sender.send(Ok(frame)).await.is_err() {
                return;
            }
        }
    });
    body(StreamBody::new(ReceiverStream::new(frames)))
}

fn gone() -> Bytes {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "too old resource version", "reason": "Expired", "code": 410,
    });
    Bytes::from(format!("{}\n", json!({"type": "ERROR", "object": status})))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_asked_for_as_of_a_revision_and_its_further_pages_are_not() {
        let asked = |uri: &str| as_of(&uri.parse().unwrap(), "7").unwrap().to_string();
        assert_eq!(
            asked("/api/v1/namespaces/n/pods?limit=500&resourceVersion=0"),
            "/api/v1/namespaces/n/pods?limit=500&resourceVersion=7&resourceVersionMatch=Exact"
        );
        assert_eq!(
            asked("/api/v1/namespaces/n/pods?limit=500&continue=x"),
            "/api/v1/namespaces/n/pods?limit=500&continue=x"
        );
        assert!(is_list("/api/v1/namespaces/n/pods") && !is_list("/api/v1/namespaces/n/pods/a-0-1"));
    }
}
