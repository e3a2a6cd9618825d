//! Parameters that chat and completions share: what OpenAI has, and what serving people add to it.
//!
//! Extensions: `top_k`, `min_p`, `repetition_penalty`, `ignore_eos`, `min_tokens`, `stop_token_ids`,
//! `cache_salt`.

use serde_json::Value;
use shoal_wire::limits::{MAX_LOGIT_BIAS, MAX_STOP_TOKENS, MAX_TOP_LOGPROBS};
use shoal_wire::rpc::{LogitBias, Sampling};

use super::error::ApiError;
use super::fields::Fields;
use crate::limits::{Limits, MAX_NAME_BYTES, MAX_STOP_BYTES, MAX_STOP_STRINGS};
use crate::route::random::random_u64;

#[derive(Debug)]
pub(super) struct Common {
    /// Without `max_tokens`, `logprobs` and `grammar`, which depend on the dialect.
    pub sampling: Sampling,
    pub choices: u32,
    pub stop: Vec<String>,
    pub cache_salt: String,
    pub stream: bool,
    pub include_usage: bool,
}

/// Reads the shared parameters; `model` must be ours if it is given.
pub(super) fn common(
    body: &mut Fields,
    limits: &Limits,
    model: &str,
    vocabulary: u32,
) -> Result<Common, ApiError> {
    if let Some(asked) = body.string("model", MAX_NAME_BYTES)?
        && asked != model
    {
        return Err(ApiError::no_such_model(&asked));
    }
    let stream = body.boolean("stream")?.unwrap_or(false);
    let include_usage = match body.object("stream_options")? {
        None => false,
        Some(_) if !stream => {
            return Err(ApiError::invalid("stream_options", "`stream_options` needs `stream` to be true"));
        }
        Some(mut options) => options.boolean("include_usage")?.unwrap_or(false),
    };
    Ok(Common {
        sampling: sampling(body, vocabulary)?,
        choices: body.integer("n", 1, i64::from(limits.choices))?.unwrap_or(1) as u32,
        stop: stop_strings(body)?,
        cache_salt: body.string("cache_salt", MAX_NAME_BYTES)?.unwrap_or_default(),
        stream,
        include_usage,
    })
}

fn sampling(body: &mut Fields, vocabulary: u32) -> Result<Sampling, ApiError> {
    let top_p = body.number("top_p", 0.0, 1.0)?.unwrap_or(1.0);
    let repetition_penalty = body.number("repetition_penalty", 0.0, 2.0)?.unwrap_or(1.0);
    if repetition_penalty <= 0.0 {
        return Err(body.refuse("repetition_penalty", "must be above 0; 1 is off"));
    }
    Ok(Sampling {
        temperature: body.number("temperature", 0.0, 2.0)?.unwrap_or(1.0),
        // -1 and 0 both mean off.
        top_k: body.integer("top_k", -1, i64::from(u32::MAX))?.unwrap_or(0).max(0) as u32,
        // 0 keeps the likeliest token alone, as the smallest positive share does.
        top_p: top_p.max(f32::MIN_POSITIVE),
        min_p: body.number("min_p", 0.0, 1.0)?.unwrap_or(0.0),
        repetition_penalty,
        frequency_penalty: body.number("frequency_penalty", -2.0, 2.0)?.unwrap_or(0.0),
        presence_penalty: body.number("presence_penalty", -2.0, 2.0)?.unwrap_or(0.0),
        logit_bias: logit_bias(body, vocabulary)?,
        seed: body.integer("seed", i64::MIN, i64::MAX)?.map_or_else(random_u64, |seed| seed as u64),
        stop_token_ids: stop_token_ids(body, vocabulary)?,
        ignore_eos: body.boolean("ignore_eos")?.unwrap_or(false),
        max_tokens: 0,
        min_tokens: body.integer("min_tokens", 0, i64::from(u32::MAX))?.unwrap_or(0) as u32,
        logprobs: None,
        grammar: None,
    })
}

/// `max_tokens` that fit: what was asked for or `default`, below ceiling and the context's rest.
pub(super) fn room(
    asked: Option<u32>,
    default: Option<u32>,
    prompt_tokens: usize,
    context: u32,
    limits: &Limits,
) -> Result<u32, ApiError> {
    let left = context.saturating_sub(u32::try_from(prompt_tokens).unwrap_or(u32::MAX));
    let wanted = asked.or(default).unwrap_or_else(|| left.max(1));
    // What a client asked for must fit; what nobody asked for is cut to what fits.
    if left == 0 || asked.is_some_and(|asked| asked > left) {
        return Err(ApiError::context_length(prompt_tokens, wanted, context));
    }
    Ok(wanted.min(left).min(limits.output_tokens))
}

fn logit_bias(body: &mut Fields, vocabulary: u32) -> Result<Vec<LogitBias>, ApiError> {
    let Some(map) = body.object("logit_bias")?.map(Fields::into_map) else { return Ok(vec![]) };
    if map.len() > MAX_LOGIT_BIAS {
        return Err(body.refuse("logit_bias", format_args!("must have at most {MAX_LOGIT_BIAS} entries")));
    }
    let entry = |(id, bias): (String, Value)| {
        let token = id.parse().ok().filter(|&token: &u32| token < vocabulary);
        let bias = bias.as_f64().filter(|bias| (-100.0..=100.0).contains(bias));
        token.zip(bias).map(|(token, bias)| LogitBias { token, bias: bias as f32 })
    };
    let entries: Option<Vec<_>> = map.into_iter().map(entry).collect();
    entries.ok_or_else(|| {
        let allowed = format!("must map token ids below {vocabulary} to numbers from -100 to 100");
        body.refuse("logit_bias", allowed)
    })
}

fn stop_strings(body: &mut Fields) -> Result<Vec<String>, ApiError> {
    let allowed = || {
        format!(
            "must be a string or an array of at most {MAX_STOP_STRINGS} strings of 1 to {MAX_STOP_BYTES} bytes"
        )
    };
    let items = match body.take("stop") {
        None => return Ok(vec![]),
        Some(Value::Array(items)) if items.len() <= MAX_STOP_STRINGS => items,
        Some(Value::Array(_)) => return Err(body.refuse("stop", allowed())),
        Some(one) => vec![one],
    };
    let strings = items.into_iter().map(|item| match item {
        Value::String(text) if (1..=MAX_STOP_BYTES).contains(&text.len()) => Some(text),
        _ => None,
    });
    strings.collect::<Option<_>>().ok_or_else(|| body.refuse("stop", allowed()))
}

fn stop_token_ids(body: &mut Fields, vocabulary: u32) -> Result<Vec<u32>, ApiError> {
    let items = body.array("stop_token_ids", MAX_STOP_TOKENS)?.unwrap_or_default();
    token_ids(&items, vocabulary)
        .ok_or_else(|| body.refuse("stop_token_ids", format_args!("must be token ids below {vocabulary}")))
}

/// All of `items` as ids of the vocabulary; none if one is not.
pub(super) fn token_ids(items: &[Value], vocabulary: u32) -> Option<Vec<u32>> {
    let id = |item: &Value| item.as_u64().filter(|&id| id < u64::from(vocabulary)).map(|id| id as u32);
    items.iter().map(id).collect()
}

/// Number of top log-probabilities a client may ask for.
pub(super) const TOP_LOGPROBS: i64 = MAX_TOP_LOGPROBS as i64;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<Common, ApiError> {
        common(&mut Fields::parse(body.as_bytes()).expect("object"), &Limits::default(), "m", 1000)
    }

    #[test]
    fn every_bad_value_is_a_400_that_names_its_parameter() {
        for (body, param) in [
            (r#"{"temperature":3}"#, "temperature"),
            (r#"{"temperature":"hot"}"#, "temperature"),
            (r#"{"top_p":1.1}"#, "top_p"),
            (r#"{"top_k":-2}"#, "top_k"),
            (r#"{"top_k":1e30}"#, "top_k"),
            (r#"{"min_p":-0.1}"#, "min_p"),
            (r#"{"repetition_penalty":0}"#, "repetition_penalty"),
            (r#"{"frequency_penalty":2.1}"#, "frequency_penalty"),
            (r#"{"presence_penalty":[]}"#, "presence_penalty"),
            (r#"{"n":0}"#, "n"),
            (r#"{"n":1000000000}"#, "n"),
            (r#"{"n":99999999999999999999}"#, "n"),
            (r#"{"seed":1.5}"#, "seed"),
            (r#"{"stop":[""]}"#, "stop"),
            (r#"{"stop":[1]}"#, "stop"),
            (r#"{"stop":["1","2","3","4","5","6","7","8","9","0","a","b","c","d","e","f","g"]}"#, "stop"),
            (r#"{"stop_token_ids":[1000]}"#, "stop_token_ids"),
            (r#"{"stop_token_ids":[-1]}"#, "stop_token_ids"),
            (r#"{"logit_bias":{"1000":1}}"#, "logit_bias"),
            (r#"{"logit_bias":{"x":1}}"#, "logit_bias"),
            (r#"{"logit_bias":{"1":101}}"#, "logit_bias"),
            (r#"{"logit_bias":[]}"#, "logit_bias"),
            (r#"{"ignore_eos":1}"#, "ignore_eos"),
            (r#"{"min_tokens":-1}"#, "min_tokens"),
            (r#"{"stream":"yes"}"#, "stream"),
            (r#"{"stream_options":{"include_usage":true}}"#, "stream_options"),
            (r#"{"stream":true,"stream_options":{"include_usage":1}}"#, "stream_options.include_usage"),
            (r#"{"cache_salt":7}"#, "cache_salt"),
        ] {
            let error = read(body).expect_err(body);
            assert_eq!(
                (error.status.as_u16(), error.param.as_deref()),
                (400, Some(param)),
                "{body}: {}",
                error.message
            );
            assert!(error.message.contains(param), "{}", error.message);
        }
    }

    #[test]
    fn another_model_is_a_404_and_none_is_ours() {
        assert_eq!(
            read(r#"{"model":"x"}"#).map(|_| ()).map_err(|e| (e.status.as_u16(), e.code)),
            Err((404, Some("model_not_found")))
        );
        assert!(read(r#"{"model":"m"}"#).is_ok() && read("{}").is_ok());
    }

    #[test]
    fn the_defaults_change_nothing() {
        let Common { sampling, choices, stop, stream, .. } = read("{}").expect("defaults");
        assert_eq!((sampling.temperature, sampling.top_p, sampling.top_k), (1.0, 1.0, 0));
        assert_eq!((sampling.repetition_penalty, choices, stop.len(), stream), (1.0, 1, 0, false));
        assert_ne!(sampling.seed, read("{}").expect("defaults").sampling.seed, "seeds differ");
        assert_eq!(read(r#"{"seed":-1}"#).expect("seed").sampling.seed, u64::MAX);
    }

    #[test]
    fn output_room_is_what_is_asked_for_and_fits() {
        let limits = Limits { output_tokens: 500, ..Limits::default() };
        let room = |asked, default, prompt| room(asked, default, prompt, 1000, &limits).map_err(|e| e.code);
        assert_eq!(room(Some(100), None, 900), Ok(100));
        assert_eq!(room(Some(101), None, 900), Err(Some("context_length_exceeded")));
        assert_eq!(room(None, None, 900), Ok(100));
        assert_eq!(room(None, None, 100), Ok(500), "the ceiling");
        assert_eq!(room(None, Some(16), 990), Ok(10));
        assert_eq!(room(None, Some(16), 1000), Err(Some("context_length_exceeded")));
        assert_eq!(room(None, None, usize::MAX), Err(Some("context_length_exceeded")));
    }
}
