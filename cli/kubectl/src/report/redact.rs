//! What must not leave the cluster, in objects and in texts.

use std::borrow::Cow;

use regex::Regex;
use serde_json::Value;
use shoal_terminal::failure::{Attempt as _, Failure};

const REDACTED: &str = "[redacted]";
const APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Patterns of secrets in any text, and what takes their place.
const PATTERNS: [(&str, &str); 7] = [
    (r"(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----", REDACTED),
    (r"(?i)\b(bearer|basic)\s+[A-Za-z0-9+/_.=~-]{8,}", "$1 [redacted]"),
    // User names of URLs, and queries, which sign requests of object stores.
    (r"://[^\s/@\x22']+@", "://[redacted]@"),
    (r"(https?://[^\s?\x22'<>]+)\?[^\s\x22'<>]+", "$1?[redacted]"),
    // JSON Web Tokens; tokens of well-known services.
    (r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*", REDACTED),
    (r"\b(?:sk-|hf_|gh[pousr]_|github_pat_|xox[abprs]-|AKIA|ASIA)[A-Za-z0-9_-]{12,}", REDACTED),
    (
        r#"(?i)((?:password|passwd|secret|token|api[-_]?key|access[-_]?key|authorization|credential)["']?\s*[:=]\s*["']?)[^\s"',;}\[]+"#,
        "$1[redacted]",
    ),
];

/// Names of fields and flags whose values are secrets.
const WORDS: [&str; 8] =
    ["password", "passwd", "secret", "token", "apikey", "accesskey", "authorization", "credential"];
/// They contain such a word and name, rather than hold, a secret.
const REFERENCES: [&str; 6] = ["name", "ref", "file", "path", "uid", "secrets"];

#[derive(Debug)]
pub(super) struct Redaction(Vec<(Regex, &'static str)>);

impl Redaction {
    pub(super) fn new() -> Result<Self, Failure> {
        let compiled = PATTERNS.iter().map(|(pattern, instead)| Ok((Regex::new(pattern)?, *instead)));
        let compiled: Result<_, regex::Error> = compiled.collect();
        Ok(Self(compiled.attempt(|| "a pattern of secrets is wrong".to_owned())?))
    }

    pub(super) fn text(&self, text: &str) -> String {
        let whole = Cow::Borrowed(text);
        let redacted = self.0.iter().fold(whole, |text, (pattern, instead)| {
            Cow::Owned(pattern.replace_all(&text, *instead).into_owned())
        });
        redacted.into_owned()
    }

    pub(super) fn object(&self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.text(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.object(item)),
            Value::Object(fields) => {
                fields.remove("managedFields");
                for (name, field) in fields.iter_mut() {
                    self.field(name, field);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn field(&self, name: &str, field: &mut Value) {
        match (name, &mut *field) {
            (APPLIED, _) => *field = REDACTED.into(),
            ("env", Value::Array(variables)) => {
                for value in variables.iter_mut().filter_map(|variable| variable.get_mut("value")) {
                    *value = REDACTED.into();
                }
            }
            ("args" | "command", Value::Array(arguments)) => self.arguments(arguments),
            (name, Value::String(_)) if holds_secret(name) => *field = REDACTED.into(),
            (_, field) => self.object(field),
        }
    }

    /// `--token=x` and `--token x`.
    fn arguments(&self, arguments: &mut [Value]) {
        let mut secret = false;
        for argument in arguments {
            let Value::String(text) = argument else { continue };
            let flag = text.starts_with('-');
            *text = match text.split_once('=') {
                _ if secret && !flag => REDACTED.to_owned(),
                Some((name, _)) if flag && holds_secret(name) => format!("{name}={REDACTED}"),
                _ => self.text(text),
            };
            secret = flag && !text.contains('=') && holds_secret(text);
        }
    }
}

fn holds_secret(name: &str) -> bool {
    let plain: String = name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase();
    WORDS.iter().any(|word| plain.contains(word)) && !REFERENCES.iter().any(|ending| plain.ends_with(ending))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_in_texts_go_and_figures_of_tokens_stay() {
        let redaction = Redaction::new().unwrap();
        for (text, expected) in [
            ("Authorization: Bearer abcdefgh12345", "Authorization: [redacted] [redacted]"),
            ("got bearer abcdefgh12345.", "got bearer [redacted]"),
            ("get https://u:p@h/m?sig=1 now", "get https://[redacted]@h/m?[redacted] now"),
            ("token eyJhbGciOiJI.eyJzdWIi.c2ln end", "token [redacted] end"),
            ("key hf_abcdefghijklmnop", "key [redacted]"),
            (r#"{"api_key": "abc", "n": 1}"#, r#"{"api_key": "[redacted]", "n": 1}"#),
            ("a -----BEGIN PRIVATE KEY-----\nx\n-----END PRIVATE KEY----- b", "a [redacted] b"),
            ("prompt_tokens=12 tokens: 5 max_tokens=7", "prompt_tokens=12 tokens: 5 max_tokens=7"),
            ("http://chat-gateway.team:8000/v1", "http://chat-gateway.team:8000/v1"),
        ] {
            assert_eq!(redaction.text(text), expected, "{text}");
        }
    }

    #[test]
    fn names_of_secrets_stay_and_their_values_go() {
        let mut object = json!({
            "secretName": "chat-fleet", "secretKeyRef": { "name": "a", "key": "b" },
            "dbPassword": "x", "automountServiceAccountToken": false,
            "args": ["--secret-file", "/etc/shoal/fleet/key", "--token", "x", "--listen=0.0.0.0:8000"]
        });
        Redaction::new().unwrap().object(&mut object);
        assert_eq!(
            object,
            json!({
                "secretName": "chat-fleet", "secretKeyRef": { "name": "a", "key": "b" },
                "dbPassword": "[redacted]", "automountServiceAccountToken": false,
                "args": ["--secret-file", "/etc/shoal/fleet/key", "--token", "[redacted]", "--listen=0.0.0.0:8000"]
            })
        );
    }
}
