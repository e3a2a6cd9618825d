//! A file that is wanted: its name, what it must contain, and where it comes from.

use std::{fmt, str::FromStr};

use url::Url;

/// Characters of a file's name, as most file systems allow.
const LONGEST_NAME: usize = 200;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum WantedError {
    #[error(
        "name {0:?}: must be 1 to {LONGEST_NAME} letters, digits, '.', '_' or '-', not starting with '.'"
    )]
    Name(String),
    #[error("checksum {0:?}: must be a SHA-256 of 64 hex digits")]
    Checksum(String),
    #[error("URL {0}")]
    Url(String),
}

/// SHA-256 of a whole file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Checksum(pub [u8; 32]);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// One component of a path.
    pub name: String,
    pub checksum: Checksum,
    /// `https:`, `http:` or `s3:`.
    pub url: Url,
}

impl Wanted {
    /// # Errors
    /// When one of the three has not the form that it must have.
    pub fn new(name: &str, checksum: &str, url: &str) -> Result<Self, WantedError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let fits = (1..=LONGEST_NAME).contains(&name.len()) && !name.starts_with('.');
        if !fits || !name.chars().all(allowed) {
            return Err(WantedError::Name(name.to_owned()));
        }
        let parsed = Url::parse(url).map_err(|error| WantedError::Url(error.to_string()))?;
        let scheme = parsed.scheme();
        if !matches!(scheme, "https" | "http" | "s3") {
            return Err(WantedError::Url(format!("has scheme {scheme}: must be https, http or s3")));
        }
        if parsed.host_str().is_none_or(str::is_empty) || parsed.path().len() < 2 {
            return Err(WantedError::Url("names no host or no file".to_owned()));
        }
        Ok(Self { name: name.to_owned(), checksum: checksum.parse()?, url: parsed })
    }
}

/// Whatever comes after `?` may be a signature, and user and password are nobody's business either.
pub fn shown(url: &Url) -> String {
    format!("{}://{}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
}

impl FromStr for Checksum {
    type Err = WantedError;

    fn from_str(text: &str) -> Result<Self, WantedError> {
        let bad = || WantedError::Checksum(text.to_owned());
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(bad());
        }
        let mut bytes = [0; 32];
        for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
            *byte = u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| bad())?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUM: &str = "00ffaa1100ffaa1100ffaa1100ffaa1100ffaa1100ffaa1100ffaa1100ffaa11";

    #[test]
    fn a_checksum_prints_as_it_was_written() {
        assert_eq!(SUM.parse::<Checksum>().unwrap().to_string(), SUM);
    }

    #[test]
    fn names_that_leave_the_folder_and_addresses_nobody_serves_are_refused() {
        assert!(Wanted::new("model.gguf", SUM, "https://models.example/a/model.gguf?x=1").is_ok());
        assert!(Wanted::new("model.gguf", SUM, "s3://bucket/key/model.gguf").is_ok());
        for (name, sum, url, message) in [
            ("../x", SUM, "https://a/b", "name \"../x\": must be"),
            (".part", SUM, "https://a/b", "not starting with '.'"),
            ("a", "00", "https://a/b", "must be a SHA-256 of 64 hex digits"),
            (
                "a",
                "+fffaa1100ffaa1100ffaa1100ffaa1100ffaa1100ffaa1100ffaa1100ffaa11",
                "https://a/b",
                "64 hex",
            ),
            ("a", SUM, "file:///etc/passwd", "has scheme file: must be https, http or s3"),
            ("a", SUM, "https://host", "names no host or no file"),
            ("a", SUM, "no url", "relative URL"),
        ] {
            let told = Wanted::new(name, sum, url).unwrap_err().to_string();
            assert!(told.contains(message), "{told}");
        }
    }

    #[test]
    fn what_is_shown_of_an_address_holds_no_signature_and_no_password() {
        let url = Url::parse("https://user:secret@host:444/a/b?X-Amz-Signature=abc").unwrap();
        assert_eq!(shown(&url), "https://host/a/b");
    }
}
