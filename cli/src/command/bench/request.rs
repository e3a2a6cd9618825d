//! One request and what was measured of it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::histogram::Histogram;
use crate::http::{Client, HttpError};

#[derive(Debug, Clone)]
pub(super) struct Sender {
    client: Client,
    url: String,
    model: String,
    max_tokens: u32,
}

#[derive(Debug, Default)]
pub(super) struct Measured {
    pub(super) first: Duration,
    pub(super) whole: Duration,
    pub(super) gaps: Histogram,
    pub(super) prompt_tokens: u64,
    pub(super) cached_tokens: u64,
    pub(super) output_tokens: u64,
    pub(super) kv_bytes: u64,
}

impl Sender {
    pub(super) fn new(base: &str, model: &str, max_tokens: u32) -> Self {
        Self {
            client: Client::default(),
            url: format!("{base}/completions"),
            model: model.to_owned(),
            max_tokens,
        }
    }

    /// Sends `prompt`; times count from `due`, when it should have been sent. The error is its kind.
    pub(super) async fn send(&self, prompt: String, due: Instant) -> Result<Measured, String> {
        self.measure(prompt, due).await.map_err(|error| match error {
            HttpError::Refused { status, .. } => format!("http {status}"),
            HttpError::Unreachable { .. } => "unreachable".to_owned(),
            HttpError::Broken(_) => "broken stream".to_owned(),
            HttpError::Url { .. } => "address".to_owned(),
        })
    }

    async fn measure(&self, prompt: String, due: Instant) -> Result<Measured, HttpError> {
        let body = json!({
            "model": self.model,
            "prompt": prompt,
            "max_tokens": self.max_tokens,
            "ignore_eos": true,
            "temperature": 0,
            "stream": true,
            "stream_options": {"include_usage": true},
        });
        let mut events = self.client.stream(&self.url, &body).await?;
        let mut measured = Measured::default();
        let mut last = None;
        while let Some(event) = events.next().await.transpose()? {
            if event["choices"][0]["text"].as_str().is_some_and(|text| !text.is_empty()) {
                let now = Instant::now();
                match last.replace(now) {
                    None => measured.first = now - due,
                    Some(before) => measured.gaps.record(now - before),
                }
            }
            if event["usage"].is_object() {
                count(&mut measured, &event);
            }
        }
        measured.whole = due.elapsed();
        if last.is_none() {
            measured.first = measured.whole;
        }
        Ok(measured)
    }
}

fn count(measured: &mut Measured, event: &Value) {
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let usage = &event["usage"];
    measured.prompt_tokens = number(&usage["prompt_tokens"]);
    measured.output_tokens = number(&usage["completion_tokens"]);
    measured.cached_tokens = number(&usage["prompt_tokens_details"]["cached_tokens"]);
    measured.kv_bytes = number(&event["shoal"]["kv_bytes"]);
}
