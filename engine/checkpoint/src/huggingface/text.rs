//! Small text files of the directory, read whole but never more than a stated size.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use serde::Deserialize;

use crate::CheckpointError;
use crate::error::{Part, Problem};

/// The largest known `tokenizer.json` files have some 35 MiB. Parsed JSON takes up to ten times its text.
const MAX_TEXT: u64 = 64 << 20;

pub(super) fn read(path: &Path) -> Result<String, CheckpointError> {
    let file = File::open(path).map_err(CheckpointError::io("open", path))?;
    let mut bytes = Vec::new();
    file.take(MAX_TEXT + 1).read_to_end(&mut bytes).map_err(CheckpointError::io("read", path))?;
    if bytes.len() as u64 > MAX_TEXT {
        let problem = Problem::not_allowed("longer than 64 MiB", "at most 64 MiB");
        return Err(Part::File.has(problem).at(path));
    }
    String::from_utf8(bytes).map_err(|_| Part::File.has(Problem::NotUtf8).at(path))
}

pub(super) fn read_optional(path: &Path) -> Result<Option<String>, CheckpointError> {
    match read(path) {
        Ok(text) => Ok(Some(text)),
        Err(CheckpointError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[derive(Deserialize)]
struct TokenizerConfig {
    chat_template: Option<Templates>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Templates {
    One(String),
    Named(Vec<NamedTemplate>),
}

#[derive(Deserialize)]
struct NamedTemplate {
    name: String,
    template: String,
}

/// `chat_template.jinja` if there is one, else the template of `tokenizer_config.json`; of several named
/// ones the default.
pub(super) fn chat_template(directory: &Path) -> Result<Option<String>, CheckpointError> {
    if let Some(template) = read_optional(&directory.join("chat_template.jinja"))? {
        return Ok(Some(template));
    }
    let path = directory.join("tokenizer_config.json");
    let Some(text) = read_optional(&path)? else { return Ok(None) };
    let config: TokenizerConfig = serde_json::from_str(&text)
        .map_err(|error| Part::key("chat_template").has(Problem::Json(error)).at(&path))?;
    Ok(config.chat_template.and_then(Templates::default))
}

impl Templates {
    fn default(self) -> Option<String> {
        match self {
            Self::One(template) => Some(template),
            Self::Named(mut named) => {
                let index = named.iter().position(|entry| entry.name == "default").unwrap_or(0);
                (index < named.len()).then(|| named.swap_remove(index).template)
            }
        }
    }
}
