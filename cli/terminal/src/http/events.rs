//! Server-sent events whose data is JSON, up to `[DONE]`.

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use hyper::body::Body;
use serde_json::Value;

use super::{AnyError, HttpError};

/// Bytes of one event.
const MAX_EVENT_BYTES: usize = 1 << 20;

#[derive(Debug)]
pub struct Events {
    body: UnsyncBoxBody<Bytes, AnyError>,
    buffer: Buffer,
}

impl Events {
    pub(super) fn new<B>(body: B) -> Self
    where
        B: Body<Data = Bytes, Error: Into<AnyError>> + Send + 'static,
    {
        Self { body: body.map_err(Into::into).boxed_unsync(), buffer: Buffer::default() }
    }

    /// The next event; `None` after `[DONE]`. A stream that ends before it is broken.
    pub async fn next(&mut self) -> Option<Result<Value, HttpError>> {
        loop {
            if let Some(data) = self.buffer.event() {
                return parse(&data);
            }
            if self.buffer.0.len() > MAX_EVENT_BYTES {
                return Some(Err(HttpError::Broken("an event of more than 1 MiB".to_owned())));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => self.buffer.0.extend(frame.into_data().unwrap_or_default()),
                Some(Err(error)) => return Some(Err(HttpError::Broken(error.to_string()))),
                None => return Some(Err(HttpError::Broken("the stream ended before [DONE]".to_owned()))),
            }
        }
    }
}

fn parse(data: &str) -> Option<Result<Value, HttpError>> {
    if data == "[DONE]" {
        return None;
    }
    let value = match serde_json::from_str::<Value>(data) {
        Ok(value) => value,
        Err(error) => return Some(Err(HttpError::Broken(error.to_string()))),
    };
    let failed = value["error"]["message"].as_str().map(|message| HttpError::Broken(message.to_owned()));
    Some(failed.map_or(Ok(value), Err))
}

#[derive(Debug, Default)]
struct Buffer(BytesMut);

impl Buffer {
    /// Takes the data of the first complete event that has any.
    fn event(&mut self) -> Option<String> {
        while let Some(end) = self.0.windows(2).position(|pair| pair == b"\n\n") {
            let event = self.0.split_to(end + 2);
            let text = String::from_utf8_lossy(&event);
            let lines: Vec<&str> =
                text.lines().filter_map(|line| line.strip_prefix("data:")).map(str::trim_start).collect();
            if !lines.is_empty() {
                return Some(lines.join("\n"));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_out_whole_however_they_are_cut_and_comments_are_skipped() {
        let text = ": keep-alive\n\ndata: {\"a\":\ndata: 1}\n\nevent: x\ndata: [DONE]\n\n";
        for cut in 0..text.len() {
            let mut buffer = Buffer::default();
            let mut found = Vec::new();
            for part in [&text[..cut], &text[cut..]] {
                buffer.0.extend_from_slice(part.as_bytes());
                found.extend(std::iter::from_fn(|| buffer.event()));
            }
            assert_eq!(found, ["{\"a\":\n1}", "[DONE]"], "cut at {cut}");
        }
    }
}
