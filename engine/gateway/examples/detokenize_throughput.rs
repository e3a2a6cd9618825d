//! What turning token ids into text costs: replays a stream of real ids through whole replies and prints
//! nanoseconds per token, and the share of a core that 10,000 tokens/s take.
//!
//! `SHOAL_TEST_MODEL=model.gguf cargo run --release --example detokenize_throughput [-- --json]`

use std::time::Instant;

use anyhow::Context as _;
use shoal_gateway::text::{CompletionInput, Detokenizer, Prompt, TextLimits, TextModel};

/// Tokens per second of the figure.
const RATE: f64 = 10_000.0;
/// Tokens replayed per measurement.
const TOKENS: usize = 1_000_000;
const TEXT: &str = "In 1889 the Tour Eiffel (330 m, 10 100 t) opened; naïve critics called it « inutile ». \
    fn main() { println!(\"{}\", 6 * 7); } 東京は日本の首都です。 Привет, мир! 🦀🦀 The quick brown fox jumps over \
    the lazy dog, again and again, until nobody counts any more.\n";

fn main() -> anyhow::Result<()> {
    let path = std::env::var_os("SHOAL_TEST_MODEL").context("SHOAL_TEST_MODEL must name a model file")?;
    let model = TextModel::open(path.as_ref(), "model", TextLimits::default())?;
    let once = model.encode(TEXT, false)?;
    let ids: Vec<u32> = once.iter().copied().cycle().take(TOKENS).collect();
    let bytes = measure(|| Ok(detokenize(&model, &ids)))?;
    let reply = measure(|| reply(&model, &ids))?;
    if std::env::args().any(|argument| argument == "--json") {
        println!(
            "{{\"tokens\": {TOKENS}, \"detokenize_ns_per_token\": {bytes:.1}, \"reply_ns_per_token\": {reply:.1}, \
             \"core_share_at_10k_tokens_per_s\": {:.6}}}",
            share(reply)
        );
    } else {
        println!("{TOKENS} tokens of a {}-token vocabulary", model.vocabulary().len());
        println!(
            "ids to text:                    {bytes:>7.1} ns/token, {:.3} % of a core",
            share(bytes) * 100.0
        );
        println!(
            "ids to deltas, 4 stop strings:  {reply:>7.1} ns/token, {:.3} % of a core",
            share(reply) * 100.0
        );
        println!("(share of one core at {RATE} tokens/s; the ceiling is 5 %)");
    }
    Ok(())
}

/// Share of a core at `RATE`.
fn share(nanoseconds: f64) -> f64 {
    nanoseconds * RATE / 1e9
}

/// Nanoseconds per token: the best of five, since the machine may be busy with other things.
fn measure(mut run: impl FnMut() -> anyhow::Result<usize>) -> anyhow::Result<f64> {
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let begun = Instant::now();
        let bytes = run()?;
        best = best.min(begun.elapsed().as_nanos() as f64 / TOKENS as f64);
        anyhow::ensure!(bytes > TOKENS, "the stream gave only {bytes} bytes of text");
    }
    Ok(best)
}

fn detokenize(model: &TextModel, ids: &[u32]) -> usize {
    let mut detokenizer = Detokenizer::new(model.vocabulary().clone());
    let (mut text, mut bytes) = (String::new(), 0);
    for id in ids {
        text.clear();
        detokenizer.push(*id, &mut text);
        bytes += text.len();
    }
    bytes
}

fn reply(model: &TextModel, ids: &[u32]) -> anyhow::Result<usize> {
    let stop = ["\n\nHuman:", "###", "<end>", "counts any less"].map(str::to_owned).to_vec();
    let input = CompletionInput { prompt: Prompt::default(), stop, response_format: None };
    let mut reply = model.completion(&input)?.reply();
    let (mut deltas, mut bytes) = (Vec::new(), 0);
    for id in ids {
        deltas.clear();
        reply.push(*id, &mut deltas);
        bytes += deltas.iter().map(text_bytes).sum::<usize>();
    }
    Ok(bytes)
}

fn text_bytes(delta: &shoal_gateway::text::Delta) -> usize {
    match delta {
        shoal_gateway::text::Delta::Content(text) => text.len(),
        _ => 0,
    }
}
