//! Where bytes come from: one GET from an offset, over HTTPS or from an S3-compatible store.

use std::{fmt, time::Duration};

use reqwest::{
    Client, Response, StatusCode,
    header::{CONTENT_RANGE, HeaderMap, RANGE, RETRY_AFTER},
};
use url::Url;

use crate::{
    Class,
    store::{Store, StoreError},
    wanted::shown,
};

const CONNECT: Duration = Duration::from_secs(10);
/// A body that brings nothing for this long is given up, and asked for again from where it stood.
const SILENCE: Duration = Duration::from_secs(30);
/// Longest pause that a server may ask for.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("{url}: {cause}")]
    Transport { url: String, cause: String, class: Class },
    #[error("{url} answered {status}{}", remedy(*status))]
    Status { url: String, status: StatusCode, pause: Option<Duration> },
    #[error("{url} has no byte {from}: what is there is not a part of it")]
    BeyondEnd { url: String, from: u64 },
    #[error("{url} does not say how long it is")]
    NoLength { url: String },
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn remedy(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 | 403 => "; the credentials are missing or not allowed to read it",
        404 | 410 => "; there is no such file",
        _ => "",
    }
}

impl SourceError {
    pub fn class(&self) -> Class {
        match self {
            Self::Transport { class, .. } => *class,
            Self::Status { status, .. } => {
                let passes = status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429);
                if passes { Class::Transient } else { Class::Invalid }
            }
            Self::BeyondEnd { .. } | Self::NoLength { .. } | Self::Store(_) => Class::Invalid,
        }
    }

    /// How long the server wants to be left alone.
    pub fn pause(&self) -> Option<Duration> {
        match self {
            Self::Status { pause, .. } => *pause,
            _ => None,
        }
    }
}

/// The body of one answer.
#[derive(Debug)]
pub struct Body {
    response: Response,
    url: String,
    /// Offset of its first byte: 0 where a server ignores ranges.
    pub from: u64,
    /// Bytes of the whole file.
    pub length: Option<u64>,
}

impl Body {
    /// The next bytes; none at the end.
    ///
    /// # Errors
    /// When the connection breaks or brings nothing for 30 s.
    pub async fn chunk(&mut self) -> Result<Option<bytes::Bytes>, SourceError> {
        self.response.chunk().await.map_err(|error| transport(&self.url, error))
    }
}

/// Who asks, and how.
#[derive(Clone)]
pub struct Source {
    client: Client,
    store: Store,
    token: Option<String>,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").finish_non_exhaustive()
    }
}

impl Source {
    /// `token`, if given, is sent as bearer to `https:` addresses, and not on to other hosts.
    ///
    /// # Errors
    /// When the system's certificates cannot be used.
    pub fn new(store: Store, token: Option<String>) -> Result<Self, SourceError> {
        // Another one that was installed before is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .user_agent(concat!("shoal-fetch/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| transport("the HTTP client", error))?;
        Ok(Self { client, store, token })
    }

    /// Bytes of the whole file, learned by asking for the first one: an address that is signed for GET
    /// answers no HEAD.
    ///
    /// # Errors
    /// As for `get`, and when the server does not tell.
    pub async fn length(&self, url: &Url) -> Result<u64, SourceError> {
        match self.get(url, "bytes=0-0".to_owned(), 0).await {
            Ok(body) => body.length.ok_or_else(|| SourceError::NoLength { url: shown(url) }),
            // An empty file has no first byte.
            Err(SourceError::BeyondEnd { .. }) => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// The file from byte `from` on; from 0, if the server ignores ranges.
    ///
    /// # Errors
    /// When nobody answers, the server refuses, or the file is not that long.
    pub async fn from(&self, url: &Url, from: u64) -> Result<Body, SourceError> {
        self.get(url, format!("bytes={from}-"), from).await
    }

    async fn get(&self, url: &Url, range: String, from: u64) -> Result<Body, SourceError> {
        let address = if url.scheme() == "s3" { self.store.sign(url)? } else { url.clone() };
        let mut request = self.client.get(address).header(RANGE, range);
        if let Some(token) = self.token.as_ref().filter(|_| url.scheme() == "https") {
            request = request.bearer_auth(token);
        }
        let response = request.send().await.map_err(|error| transport(&shown(url), error))?;
        let headers = response.headers();
        let (url, pause) = (shown(url), pause(headers));
        match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let length = whole(headers);
                Ok(Body { response, url, from, length })
            }
            StatusCode::OK => {
                let length = response.content_length();
                Ok(Body { response, url, from: 0, length })
            }
            StatusCode::RANGE_NOT_SATISFIABLE => Err(SourceError::BeyondEnd { url, from }),
            status => Err(SourceError::Status { url, status, pause }),
        }
    }
}

/// The number behind the slash of `bytes 5-9/10`.
fn whole(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_RANGE)?.to_str().ok()?.rsplit_once('/')?.1.parse().ok()
}

fn pause(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_PAUSE))
}

/// The library's own text would show the address with its signature.
fn transport(url: &str, error: reqwest::Error) -> SourceError {
    let class = if error.is_builder() || error.is_redirect() { Class::Invalid } else { Class::Transient };
    let error = error.without_url();
    let mut cause = error.to_string();
    let mut next = std::error::Error::source(&error);
    while let Some(inner) = next {
        cause = format!("{cause}: {inner}");
        next = inner.source();
    }
    SourceError::Transport { url: url.to_owned(), cause, class }
}
