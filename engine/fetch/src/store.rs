//! S3-compatible stores: requests are signed here and sent like any other.

use std::time::Duration;

use rusty_s3::{Bucket, Credentials, S3Action as _, UrlStyle};
use url::Url;

/// A signature serves one request; a request begins at once, and its body may take longer than this.
const SIGNED_FOR: Duration = Duration::from_mins(10);

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("AWS_ENDPOINT_URL: {0}")]
    Endpoint(String),
    #[error("{0}")]
    Bucket(String),
}

/// Where buckets are and who asks, from the variables that every S3 client knows.
#[derive(Debug, Clone)]
pub struct Store {
    endpoint: Option<Url>,
    region: String,
    credentials: Option<Credentials>,
}

impl Store {
    /// `AWS_ENDPOINT_URL` (default: AWS itself), `AWS_REGION` (default: us-east-1), `AWS_ACCESS_KEY_ID`,
    /// `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`. Without keys requests are not signed.
    ///
    /// # Errors
    /// When the endpoint is no URL.
    pub fn from_env() -> Result<Self, StoreError> {
        let var = |name| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
        let endpoint = var("AWS_ENDPOINT_URL_S3").or_else(|| var("AWS_ENDPOINT_URL"));
        let endpoint = endpoint.map(|text| Url::parse(&text)).transpose();
        Ok(Self {
            endpoint: endpoint.map_err(|error| StoreError::Endpoint(error.to_string()))?,
            region: var("AWS_REGION")
                .or_else(|| var("AWS_DEFAULT_REGION"))
                .unwrap_or_else(|| "us-east-1".to_owned()),
            credentials: Credentials::from_env(),
        })
    }

    pub fn new(endpoint: Option<Url>, region: &str, credentials: Option<Credentials>) -> Self {
        Self { endpoint, region: region.to_owned(), credentials }
    }

    /// The address of `s3://bucket/key` for one GET from now on.
    ///
    /// # Errors
    /// When the URL names no bucket.
    pub fn sign(&self, url: &Url) -> Result<Url, StoreError> {
        let name = url.host_str().unwrap_or_default().to_owned();
        // Names of a store of one's own need no DNS entry per bucket.
        let (endpoint, style) = match &self.endpoint {
            Some(endpoint) => (endpoint.clone(), UrlStyle::Path),
            None => (self.amazon()?, UrlStyle::VirtualHost),
        };
        let bucket = Bucket::new(endpoint, style, name, self.region.clone())
            .map_err(|error| StoreError::Bucket(error.to_string()))?;
        let key = url.path().trim_start_matches('/');
        let key = percent_encoding::percent_decode_str(key).decode_utf8_lossy().into_owned();
        Ok(bucket.get_object(self.credentials.as_ref(), &key).sign(SIGNED_FOR))
    }

    fn amazon(&self) -> Result<Url, StoreError> {
        let text = format!("https://s3.{}.amazonaws.com", self.region);
        Url::parse(&text).map_err(|error| StoreError::Endpoint(error.to_string()))
    }
}
