//! Files of a model that a step of each pod brings before its process starts.

// Doc comments are printed as plain text by `kubectl explain`. KubeSchema clones each struct into a function,
// where `pub` reaches nobody.
#![allow(clippy::doc_markdown, unreachable_pub)]

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// Files that are fetched before a process starts.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Download {
    /// The files, 1 to 512. A single one is stored as `path` says; of several `path` is the folder, and each has the last
    /// part of its URL as name. Required. Example: [{url: "s3://models/smollm2.gguf", sha256: 6a1a2f…}].
    #[schemars(length(min = 1, max = 512))]
    pub files: Vec<DownloadFile>,
    /// Secret in the resource's own namespace whose keys are environment variables of the fetching step:
    /// AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION and AWS_ENDPOINT_URL for s3 URLs,
    /// SHOAL_FETCH_TOKEN for a bearer token of https URLs, HTTPS_PROXY for a proxy. Default: none. Example: model-store.
    #[schemars(length(max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$')")
        .message("must be the name of a Secret: at most 253 lower-case letters, digits, '-' or '.'"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<String>,
}

/// One file.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct DownloadFile {
    /// Where it is: https, http or s3://bucket/key. Whoever may read the resource reads it, so no password belongs here.
    /// Required. Example: "s3://models/smollm2.gguf".
    #[schemars(length(max = 2048))]
    #[x_kube(validation = Rule::new("self.matches('^(https|http|s3)://[^/?#@]+/([^?#]*/)?[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}([?#].*)?$')")
        .message("must be an https, http or s3 URL without user or password, whose last part is a file name of at most 200 letters, digits, '.', '_' or '-'"))]
    pub url: String,
    /// SHA-256 of its content, 64 hex digits: what has another one is not used. Required.
    /// Example: 5bbd09f1d9bb4a0e4b4ac4d4ba3f1f1c8f3a6d4a1e3b6c9b5f2d7e8a9c0b1d2e.
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("self.matches('^[0-9a-f]{64}$')")
        .message("must be a SHA-256: 64 hex digits, in lower case"))]
    pub sha256: String,
}

impl DownloadFile {
    /// The last part of its URL: what it is called in a folder.
    pub fn name(&self) -> &str {
        let path = self.url.split(['?', '#']).next().unwrap_or_default();
        path.rsplit('/').next().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_called_as_its_url_ends_whatever_a_query_says() {
        let named = |url: &str| DownloadFile { url: url.to_owned(), sha256: String::new() }.name().to_owned();
        assert_eq!(named("s3://bucket/a/model.gguf"), "model.gguf");
        assert_eq!(named("https://host/model.gguf?sig=a/b#part/two"), "model.gguf");
    }
}
