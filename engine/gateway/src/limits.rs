//! Ceilings on what a client may ask for. Each is checked before anything is allocated for it, and each
//! refusal names the field and the limit.

use std::time::Duration;

/// Options of the same names; the defaults suit one model on one machine.
#[derive(Debug, Clone, clap::Args)]
pub struct Limits {
    /// Bytes of a request body
    #[arg(long = "max-body-bytes", default_value_t = 4 << 20)]
    pub body_bytes: usize,
    /// Bytes of all request headers together (8192 to 1048576)
    #[arg(long = "max-header-bytes", default_value_t = 32 << 10, value_parser = header_bytes)]
    pub header_bytes: usize,
    /// Number of request headers
    #[arg(long = "max-headers", default_value_t = 64)]
    pub headers: usize,
    /// Open client connections; one more is answered 503 and closed
    #[arg(long = "max-connections", default_value_t = 2048)]
    pub connections: usize,
    /// Requests generating at the same time; one more is answered 429
    #[arg(long = "max-streams", default_value_t = 512)]
    pub streams: usize,
    /// Messages of a chat request
    #[arg(long = "max-messages", default_value_t = 1024)]
    pub messages: usize,
    /// Tools of a chat request
    #[arg(long = "max-tools", default_value_t = 128)]
    pub tools: usize,
    /// Choices (`n`) for one prompt
    #[arg(long = "max-choices", default_value_t = 16)]
    pub choices: u32,
    /// Prompts of one completions request
    #[arg(long = "max-prompts", default_value_t = 32)]
    pub prompts: usize,
    /// Ceiling of `max_tokens`; the model's context is another one
    #[arg(long = "max-output-tokens", default_value_t = 131_072)]
    pub output_tokens: u32,
    /// Seconds to receive a request's headers; also how long an idle connection is kept
    #[arg(long = "header-timeout", default_value = "30", value_parser = seconds)]
    pub header_timeout: Duration,
    /// Seconds to receive a request's body
    #[arg(long = "body-timeout", default_value = "30", value_parser = seconds)]
    pub body_timeout: Duration,
    /// Seconds a client may leave its stream unread before it is ended
    #[arg(long = "reader-timeout", default_value = "60", value_parser = seconds)]
    pub reader_timeout: Duration,
}

/// Strings in `stop`.
pub const MAX_STOP_STRINGS: usize = 16;
/// Bytes of one stop string.
pub const MAX_STOP_BYTES: usize = 512;
/// Bytes of a `cache_salt`, `user` or `model` value.
pub const MAX_NAME_BYTES: usize = 512;
/// Bytes of bodies that are parsed and encoded on the network thread; larger ones go to a worker.
pub const INLINE_BYTES: usize = 16 << 10;

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 4 << 20,
            header_bytes: 32 << 10,
            headers: 64,
            connections: 2048,
            streams: 512,
            messages: 1024,
            tools: 128,
            choices: 16,
            prompts: 32,
            output_tokens: 131_072,
            header_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(30),
            reader_timeout: Duration::from_mins(1),
        }
    }
}

/// Parses a positive number of seconds, fractions allowed.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let allowed = "must be a number of seconds from 0.001 to 86400";
    let value: f64 = text.parse().map_err(|_| allowed.to_owned())?;
    if (0.001..=86_400.0).contains(&value) {
        Ok(Duration::from_secs_f64(value))
    } else {
        Err(allowed.to_owned())
    }
}

fn header_bytes(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(bytes) if (8192..=1 << 20).contains(&bytes) => Ok(bytes),
        _ => Err("must be 8192 to 1048576".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        limits: Limits,
    }

    #[test]
    fn the_options_default_to_what_default_says() {
        let parsed = Only::parse_from(["gateway"]).limits;
        assert_eq!(format!("{parsed:?}"), format!("{:?}", Limits::default()));
    }

    #[test]
    fn durations_outside_the_range_name_the_range() {
        for bad in ["0", "-1", "nan", "inf", "1e9", "soon"] {
            assert!(seconds(bad).is_err_and(|e| e.contains("0.001 to 86400")), "{bad}");
        }
        assert_eq!(seconds("1.5"), Ok(Duration::from_millis(1500)));
    }
}
