//! Streams that go on while the cluster is disturbed. A client sees an answer, whole and as it would be without
//! the disturbance, or it counts as failed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::Serving;
use crate::{http, until};

/// Tokens of one answer: some seconds of a small model on a shared core.
const TOKENS: u32 = 64;

#[derive(Debug)]
pub struct Load {
    ends: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Tally>>,
}

/// What the clients saw.
#[derive(Debug, Default)]
pub struct Tally {
    pub answered: usize,
    /// One line for each request that failed.
    pub failed: Vec<String>,
}

impl Tally {
    /// # Errors
    /// When a request failed, or there was none.
    pub fn flawless(&self) -> Result<()> {
        ensure!(self.answered > 0, "no request was answered");
        let (failed, first) = (self.failed.len(), self.failed.first());
        ensure!(failed == 0, "{failed} of {} requests failed: {first:?}", self.answered + failed);
        Ok(())
    }
}

impl Load {
    /// Starts `clients` that each stream one answer after the other, once each prompt was answered without a
    /// disturbance.
    pub async fn start(serving: &Serving, clients: usize) -> Result<Self> {
        let address = serving.address().await?;
        let (ends, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut tasks = Vec::new();
        for client in 0..clients {
            let body = request(client);
            let expected = stream(&address, &body).await.context("before any disturbance")?;
            let (address, ends, answered) = (address.clone(), Arc::clone(&ends), Arc::clone(&answered));
            tasks.push(tokio::spawn(
                async move { insist(&address, &body, &expected, &ends, &answered).await },
            ));
        }
        Ok(Self { ends, answered, clients: tasks })
    }

    /// Waits until `count` more answers have come, whose streams began before or after now.
    pub async fn answers(&self, count: usize, within: Duration) -> Result<()> {
        let goal = self.answered.load(Ordering::Relaxed) + count;
        until("answers go on", within, || async {
            let so_far = self.answered.load(Ordering::Relaxed);
            ensure!(so_far >= goal, "{} of {count}", count - (goal - so_far));
            Ok(())
        })
        .await
    }

    /// Lets running answers finish.
    pub async fn stop(self) -> Result<Tally> {
        self.ends.store(true, Ordering::Relaxed);
        let mut all = Tally::default();
        for client in self.clients {
            let tally = client.await?;
            all.answered += tally.answered;
            all.failed.extend(tally.failed);
        }
        Ok(all)
    }
}

fn request(client: usize) -> Value {
    json!({"model": "smollm2", "stream": true, "max_tokens": TOKENS, "temperature": 0, "ignore_eos": true,
        "logprobs": 1, "prompt": format!("Story {client}. Once upon a time there was a shoal of fish that")})
}

async fn insist(
    address: &str,
    body: &Value,
    expected: &[Value],
    ends: &AtomicBool,
    answered: &AtomicUsize,
) -> Tally {
    let mut tally = Tally::default();
    while !ends.load(Ordering::Relaxed) {
        match stream(address, body).await {
            Ok(tokens) if tokens == expected => {
                tally.answered += 1;
                answered.fetch_add(1, Ordering::Relaxed);
            }
            Ok(tokens) => {
                let same = tokens.iter().zip(expected).take_while(|(one, other)| one == other).count();
                tally.failed.push(format!("{} tokens, other than expected from token {same}", tokens.len()));
            }
            Err(error) => {
                tally.failed.push(format!("{error:#}"));
                // A client that is refused does not ask again at once.
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
    tally
}

/// The tokens of one answer, each with its log-probability.
async fn stream(address: &str, body: &Value) -> Result<Vec<Value>> {
    let mut reply = http::stream(address, "/v1/completions", body).await?;
    ensure!(reply.status == 200, "{}", reply.status);
    let mut tokens = Vec::new();
    while let Some(event) = reply.next().await? {
        ensure!(event.get("error").is_none(), "{event}");
        let said = &event["choices"][0]["logprobs"];
        let pairs = said["tokens"]
            .as_array()
            .into_iter()
            .flatten()
            .zip(said["token_logprobs"].as_array().into_iter().flatten());
        tokens.extend(pairs.map(|(token, logprob)| json!([token, logprob])));
    }
    ensure!(tokens.len() == TOKENS as usize, "{} tokens instead of {TOKENS}", tokens.len());
    Ok(tokens)
}
