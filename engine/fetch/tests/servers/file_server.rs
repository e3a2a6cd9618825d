//! An HTTP server of files that serves ranges, and breaks where a test tells it to.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use sha2::{Digest as _, Sha256};
use shoal_fetch::wanted::{Checksum, Wanted};

const PIECE: usize = 16 << 10;

/// What one request for more than a byte meets.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    Status(u16),
    /// The connection breaks after so many bytes of the body.
    CutAfter(usize),
    /// Nothing comes after so many bytes, and no end.
    StallAfter(usize),
}

#[derive(Debug, Default)]
struct Shared {
    files: HashMap<&'static str, Vec<u8>>,
    faults: Mutex<HashMap<&'static str, VecDeque<Fault>>>,
    lengths: Mutex<HashMap<&'static str, u64>>,
    ignores_ranges: AtomicBool,
    sent: AtomicU64,
}

#[derive(Debug)]
pub(crate) struct FileServer {
    address: std::net::SocketAddr,
    shared: Arc<Shared>,
}

impl FileServer {
    pub(crate) async fn start<const N: usize>(files: [(&'static str, Vec<u8>); N]) -> Self {
        let shared = Arc::new(Shared { files: files.into(), ..Shared::default() });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, shared }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The file at `path`, wanted as `name` with its true checksum.
    pub(crate) fn wanted(&self, name: &str, path: &str) -> Wanted {
        let checksum = Checksum(Sha256::digest(&self.shared.files[path]).into());
        Wanted::new(name, &checksum.to_string(), &self.url(path)).unwrap()
    }

    /// The next requests for the body of `path` meet these, one each.
    pub(crate) fn fault<const N: usize>(&self, path: &'static str, faults: [Fault; N]) {
        self.shared.faults.lock().unwrap().insert(path, faults.into());
    }

    pub(crate) fn ignore_ranges(&self) {
        self.shared.ignores_ranges.store(true, Relaxed);
    }

    /// What the server says of the length of `path`.
    pub(crate) fn claim_length(&self, path: &'static str, length: u64) {
        self.shared.lengths.lock().unwrap().insert(path, length);
    }

    /// Bytes of bodies that were handed to connections.
    pub(crate) fn bytes_sent(&self) -> u64 {
        self.shared.sent.load(Relaxed)
    }
}

async fn answer(State(shared): State<Arc<Shared>>, uri: Uri, headers: HeaderMap) -> Response {
    let Some(content) = shared.files.get(uri.path()) else { return StatusCode::NOT_FOUND.into_response() };
    let range = headers.get(header::RANGE).and_then(|range| range.to_str().ok()?.strip_prefix("bytes="));
    let range =
        range.filter(|_| !shared.ignores_ranges.load(Relaxed)).and_then(|range| range.split_once('-'));
    let first = range.and_then(|(first, _)| first.parse().ok()).unwrap_or(0_usize);
    let last = range.and_then(|(_, last)| last.parse::<usize>().ok());
    let end = last.map_or(content.len(), |last| content.len().min(last + 1));
    if range.is_some() && first >= content.len() {
        return StatusCode::RANGE_NOT_SATISFIABLE.into_response();
    }
    let fault = if last.is_some() { None } else { next_fault(&shared, uri.path()) };
    if let Some(Fault::Status(status)) = fault {
        return StatusCode::from_u16(status).unwrap().into_response();
    }
    let claimed = shared.lengths.lock().unwrap().get(uri.path()).copied().unwrap_or(content.len() as u64);
    let mut response = body(Arc::clone(&shared), &content[first..end], fault).into_response();
    if range.is_some() {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let told = format!("bytes {first}-{}/{claimed}", end.saturating_sub(1));
        response.headers_mut().insert(header::CONTENT_RANGE, told.parse().unwrap());
    }
    response.headers_mut().insert(header::CONTENT_LENGTH, (end - first).into());
    response
}

fn next_fault(shared: &Shared, path: &str) -> Option<Fault> {
    shared.faults.lock().unwrap().get_mut(path)?.pop_front()
}

fn body(shared: Arc<Shared>, content: &[u8], fault: Option<Fault>) -> Body {
    let until = match fault {
        Some(Fault::CutAfter(bytes) | Fault::StallAfter(bytes)) => bytes.min(content.len()),
        _ => content.len(),
    };
    let pieces: Vec<_> = content[..until].chunks(PIECE).map(Bytes::copy_from_slice).collect();
    let sent = stream::iter(pieces).map(move |piece| {
        shared.sent.fetch_add(piece.len() as u64, Relaxed);
        Ok(piece)
    });
    match fault {
        Some(Fault::CutAfter(_)) => {
            let cut = stream::once(async { Err(std::io::Error::other("cut")) });
            Body::from_stream(sent.chain(cut))
        }
        Some(Fault::StallAfter(_)) => Body::from_stream(sent.chain(stream::pending())),
        _ => Body::from_stream(sent),
    }
}
