//! API keys. Only hashes are kept, and they are compared in constant time.

use std::path::{Path, PathBuf};

use axum::http::{HeaderMap, header};

const MAX_FILE_BYTES: u64 = 1 << 20;
const MIN_KEY_BYTES: usize = 16;

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("cannot read the API keys {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the API key file {0} is larger than {MAX_FILE_BYTES} bytes")]
    TooLarge(PathBuf),
    #[error(
        "{path} line {line}: a key must have at least {MIN_KEY_BYTES} bytes, or be `blake3:` and 64 hex digits"
    )]
    Line { path: PathBuf, line: usize },
    #[error("the API key file {0} holds no key")]
    Empty(PathBuf),
}

/// BLAKE3 hashes, whose comparison takes the same time wherever they differ.
pub struct ApiKeys(Vec<blake3::Hash>);

impl std::fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ApiKeys({})", self.0.len())
    }
}

impl ApiKeys {
    /// One key per line, as such or as `blake3:<hex>`; empty lines and `#` lines do not count.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let failed = |source| KeyError::Read { path: path.to_owned(), source };
        if std::fs::metadata(path).map_err(failed)?.len() > MAX_FILE_BYTES {
            return Err(KeyError::TooLarge(path.to_owned()));
        }
        let text = std::fs::read_to_string(path).map_err(failed)?;
        let lines = text.lines().map(str::trim).enumerate();
        let hashes =
            lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')).map(|(at, line)| {
                parse(line).ok_or_else(|| KeyError::Line { path: path.to_owned(), line: at + 1 })
            });
        let hashes: Vec<_> = hashes.collect::<Result<_, _>>()?;
        if hashes.is_empty() { Err(KeyError::Empty(path.to_owned())) } else { Ok(Self(hashes)) }
    }

    /// The hash of the request's key, if it is one of ours. Compares with all of them.
    pub fn check(&self, headers: &HeaderMap) -> Option<blake3::Hash> {
        let given = headers.get(header::AUTHORIZATION)?.as_bytes();
        let (scheme, key) = given.split_at_checked(7)?;
        let hash = blake3::hash(key.trim_ascii());
        let matches = self.0.iter().fold(0u8, |found, ours| found | u8::from(*ours == hash));
        (scheme.eq_ignore_ascii_case(b"bearer ") && matches == 1).then_some(hash)
    }
}

fn parse(line: &str) -> Option<blake3::Hash> {
    match line.strip_prefix("blake3:") {
        Some(hex) => blake3::Hash::from_hex(hex).ok(),
        None => (line.len() >= MIN_KEY_BYTES).then(|| blake3::hash(line.as_bytes())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, value.parse().expect("header"));
        headers
    }

    #[test]
    fn a_key_or_its_hash_in_the_file_admits_the_key_and_nothing_else() {
        let file = tempfile::NamedTempFile::new().expect("file");
        let hash = blake3::hash(b"second-key-0123456789").to_hex();
        std::fs::write(&file, format!("# ours\n\nfirst-key-0123456789\nblake3:{hash}\n")).expect("write");
        let keys = ApiKeys::read(file.path()).expect("keys");
        assert!(keys.check(&headers("Bearer first-key-0123456789")).is_some());
        assert!(keys.check(&headers("bearer second-key-0123456789")).is_some());
        for bad in ["Bearer first-key-012345678", "Basic first-key-0123456789", "Bearer", "Bearer ", "x"] {
            assert!(keys.check(&headers(bad)).is_none(), "{bad}");
        }
        assert!(keys.check(&headers(&format!("Bearer blake3:{hash}"))).is_none(), "a hash is no key");
        assert!(keys.check(&HeaderMap::new()).is_none());
        assert_eq!(format!("{keys:?}"), "ApiKeys(2)");
    }

    #[test]
    fn short_keys_and_empty_files_are_refused() {
        let file = tempfile::NamedTempFile::new().expect("file");
        std::fs::write(&file, "short").expect("write");
        assert!(ApiKeys::read(file.path()).is_err_and(|e| e.to_string().contains("line 1")));
        std::fs::write(&file, "\n#\n").expect("write");
        assert!(matches!(ApiKeys::read(file.path()), Err(KeyError::Empty(_))));
    }
}
