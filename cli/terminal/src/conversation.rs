//! A conversation with a served model: what a person types, and answers that stream to the terminal.

use std::{
    io::{IsTerminal, Write},
    time::{Duration, Instant},
};

use clap::Args;
use serde_json::{Value, json};

use crate::{
    failure::{Attempt, Failure},
    http::{Events, HttpError},
    style,
};

/// What is asked, and how it is to be answered.
#[derive(Debug, Args)]
pub struct Wishes {
    /// Ask this and end
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// Instructions that precede the conversation
    #[arg(short, long, value_name = "TEXT")]
    system: Option<String>,
    /// Most tokens of an answer
    #[arg(long, default_value_t = 512, value_name = "TOKENS")]
    max_tokens: u32,
    /// Randomness, 0 to 2; 0 always takes the likeliest token [default: the server's]
    #[arg(short, long)]
    temperature: Option<f32>,
    /// Seed of the randomness [default: a new one for each answer]
    #[arg(long)]
    seed: Option<u64>,
    /// After each answer, print time to first token, tokens per second, prompt tokens and KV bytes moved
    #[arg(long)]
    stats: bool,
}

/// The way to a server.
pub trait Server {
    /// Sends a chat request; the answer streams. Dropping it ends the request.
    fn ask(&self, request: &Value) -> impl Future<Output = Result<Events, HttpError>>;

    /// What an error on this way means to the person.
    fn failure(error: &HttpError) -> Failure {
        Failure::failed(error.to_string())
    }
}

/// What an answer said of itself, and what it looked like from here.
#[derive(Debug, Default)]
struct Told {
    text: String,
    first: Option<Duration>,
    whole: Duration,
    usage: Value,
    shoal: Value,
    interrupted: bool,
}

impl Wishes {
    /// One question and its answer if there is a message, else a conversation until the input ends.
    pub async fn talk(&self, server: impl Server, model: String) -> Result<(), Failure> {
        let mut talk = Talk { wishes: self, server, model, history: Vec::new() };
        if let Some(system) = &self.system {
            talk.history.push(json!({"role": "system", "content": system}));
        }
        match &self.message {
            Some(message) => talk.turn(message).await,
            None => talk.converse().await,
        }
    }
}

struct Talk<'a, S> {
    wishes: &'a Wishes,
    server: S,
    model: String,
    history: Vec<Value>,
}

impl<S: Server> Talk<'_, S> {
    async fn converse(&mut self) -> Result<(), Failure> {
        if std::io::stdin().is_terminal() {
            println!(
                "{}",
                style::dim(&format!("{}; Ctrl-C ends an answer, Ctrl-D the conversation", self.model))
            );
        }
        let mut editor = rustyline::DefaultEditor::new().attempt(|| "cannot read lines".to_owned())?;
        loop {
            let prompt = if std::io::stdin().is_terminal() { "> " } else { "" };
            // Blocks this thread alone: nothing else runs while a person types.
            let line = match tokio::task::block_in_place(|| editor.readline(prompt)) {
                Ok(line) => line,
                Err(rustyline::error::ReadlineError::Interrupted) => continue,
                Err(rustyline::error::ReadlineError::Eof) => return Ok(()),
                Err(error) => return Err(Failure::failed(format!("cannot read lines: {error}"))),
            };
            if line.trim().is_empty() {
                continue;
            }
            let _ = editor.add_history_entry(line.as_str());
            if let Err(failure) = self.turn(&line).await {
                // A script has nobody who would ask again.
                if !std::io::stdin().is_terminal() {
                    return Err(failure);
                }
                eprintln!("{} {failure}", style::error("error:"));
            }
        }
    }

    /// One question and its answer. A question without an answer is not part of the history.
    async fn turn(&mut self, message: &str) -> Result<(), Failure> {
        self.history.push(json!({"role": "user", "content": message}));
        let told = match self.answer().await {
            Ok(told) => told,
            Err(error) => {
                self.history.pop();
                return Err(S::failure(&error));
            }
        };
        println!();
        if told.interrupted {
            println!("{}", style::dim("(interrupted)"));
        }
        if self.wishes.stats {
            println!("{}", style::dim(&summary(&told)));
        }
        self.history.push(json!({"role": "assistant", "content": told.text}));
        Ok(())
    }

    /// Streams the answer to the terminal. Ctrl-C drops the stream, which ends the work in the fleet.
    async fn answer(&self) -> Result<Told, HttpError> {
        let begun = Instant::now();
        let mut told = Told::default();
        let mut events = self.server.ask(&self.request()).await?;
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                _ = tokio::signal::ctrl_c() => {
                    told.interrupted = true;
                    None
                }
            };
            let Some(event) = event.transpose()? else { break };
            if let Some(text) =
                event["choices"][0]["delta"]["content"].as_str().filter(|text| !text.is_empty())
            {
                told.first.get_or_insert_with(|| begun.elapsed());
                told.text.push_str(text);
                print!("{}", printable(text));
                let _ = std::io::stdout().flush();
            }
            if event["usage"].is_object() {
                told.usage = event["usage"].clone();
                told.shoal = event["shoal"].clone();
            }
        }
        told.whole = begun.elapsed();
        Ok(told)
    }

    fn request(&self) -> Value {
        let mut request = json!({
            "model": self.model,
            "messages": self.history,
            "max_tokens": self.wishes.max_tokens,
            "stream": true,
            "stream_options": {"include_usage": true},
        });
        if let Some(temperature) = self.wishes.temperature {
            request["temperature"] = json!(temperature);
        }
        if let Some(seed) = self.wishes.seed {
            request["seed"] = json!(seed);
        }
        request
    }
}

/// A model's text must not steer the terminal.
fn printable(text: &str) -> String {
    text.chars().filter(|character| !character.is_control() || matches!(character, '\n' | '\t')).collect()
}

fn summary(told: &Told) -> String {
    let first = told.first.unwrap_or(told.whole);
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let output = number(&told.usage["completion_tokens"]);
    let decoding = told.whole.saturating_sub(first).as_secs_f64();
    let rate = if output > 1 && decoding > 0.0 { (output - 1) as f64 / decoding } else { 0.0 };
    let mut parts = vec![
        format!("ttft {:.0} ms", first.as_secs_f64() * 1e3),
        format!("{rate:.1} tokens/s"),
        format!("prompt {} tokens", number(&told.usage["prompt_tokens"])),
        format!("cached {}", number(&told.usage["prompt_tokens_details"]["cached_tokens"])),
        format!("answer {output} tokens"),
    ];
    if told.shoal.is_object() {
        parts.push(format!(
            "KV moved {} bytes ({} tokens, {})",
            number(&told.shoal["kv_bytes"]),
            number(&told.shoal["kv_tokens"]),
            told.shoal["prefill"].as_str().unwrap_or("unknown"),
        ));
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_names_time_rate_tokens_and_what_moved() {
        let told = Told {
            first: Some(Duration::from_millis(250)),
            whole: Duration::from_millis(1250),
            usage: json!({"prompt_tokens": 70, "completion_tokens": 11, "prompt_tokens_details": {"cached_tokens": 64}}),
            shoal: json!({"kv_bytes": 1_613_000, "kv_tokens": 70, "prefill": "remote"}),
            ..Told::default()
        };
        assert_eq!(
            summary(&told),
            "ttft 250 ms, 10.0 tokens/s, prompt 70 tokens, cached 64, answer 11 tokens, KV moved 1613000 bytes (70 tokens, remote)"
        );
    }

    #[test]
    fn control_characters_of_an_answer_do_not_reach_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\n\tc\r"), "a[2Jb\n\tc");
    }
}
