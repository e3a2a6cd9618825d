//! One file over plain HTTP, with ranges, as far as a valve lets it through.

use std::convert::Infallible;
use std::net::SocketAddr;

use anyhow::Result;
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use http_body_util::StreamBody;
use hyper::body::{Frame, Incoming};
use hyper::header::{CONTENT_LENGTH, CONTENT_RANGE, RANGE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::sync::watch;

use super::{Wholes, listen};

/// Bytes of one piece: some hundred to a model, so that a valve is met to within a hundredth.
const PIECE: usize = 64 << 10;

/// Whatever path is asked for is the one file.
#[derive(Debug)]
pub(crate) struct FileServer {
    address: SocketAddr,
    valve: watch::Sender<usize>,
    pub(crate) wholes: Wholes,
}

impl FileServer {
    /// The valve is shut.
    pub(crate) async fn start(content: Bytes) -> Result<Self> {
        let listener = listen().await?;
        let (address, (valve, opened), wholes) =
            (listener.local_addr()?, watch::channel(0), Wholes::default());
        let noted = wholes.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (content, opened, noted) = (content.clone(), opened.clone(), noted.clone());
                let service = service_fn(move |request: Request<Incoming>| {
                    noted.note(&request);
                    let response = answer(&request, &content, &opened);
                    async { response }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(socket), service));
            }
        });
        Ok(Self { address, valve, wholes })
    }

    /// Lets every client have the file's first bytes.
    pub(crate) fn let_through(&self, bytes: usize) {
        self.valve.send_replace(bytes);
    }

    pub(crate) fn url(&self, name: &str) -> String {
        format!("http://{}/{name}", self.address)
    }

    pub(crate) fn host(&self) -> String {
        self.address.ip().to_string()
    }
}

type Answer = Response<StreamBody<stream::BoxStream<'static, Result<Frame<Bytes>, Infallible>>>>;

fn answer(
    request: &Request<Incoming>,
    content: &Bytes,
    opened: &watch::Receiver<usize>,
) -> Result<Answer, http::Error> {
    let (first, end) = range(request, content.len());
    let told = format!("bytes {first}-{}/{}", end - 1, content.len());
    // One byte is asked for to learn the length; that is never held back.
    let opened = (end - first > 1).then(|| opened.clone());
    Response::builder()
        .status(StatusCode::PARTIAL_CONTENT)
        .header(CONTENT_RANGE, told)
        .header(CONTENT_LENGTH, end - first)
        .body(StreamBody::new(body(content.slice(..end), first, opened).boxed()))
}

/// `bytes=FIRST-` or `bytes=FIRST-LAST`, as one range of the file that is not empty.
fn range(request: &Request<Incoming>, length: usize) -> (usize, usize) {
    let asked = request.headers().get(RANGE).and_then(|range| range.to_str().ok()?.strip_prefix("bytes="));
    let (first, last) = asked.and_then(|range| range.split_once('-')).unwrap_or(("0", ""));
    let first = first.parse().unwrap_or(0).min(length - 1);
    let end = last.parse::<usize>().map_or(length, |last| last + 1).clamp(first + 1, length);
    (first, end)
}

/// From `first` on, never beyond the valve; without one at once.
fn body(
    content: Bytes,
    first: usize,
    opened: Option<watch::Receiver<usize>>,
) -> impl Stream<Item = Result<Frame<Bytes>, Infallible>> {
    stream::unfold((content, first, opened), async |(content, at, mut opened)| {
        if at >= content.len() {
            return None;
        }
        let open = match &mut opened {
            // The test is over if nobody turns the valve any more.
            Some(opened) => *opened.wait_for(|open| *open > at).await.ok()?,
            None => content.len(),
        };
        let end = (at + PIECE).min(open).min(content.len());
        let piece = Frame::data(content.slice(at..end));
        Some((Ok(piece), (content, end, opened)))
    })
}
