//! Tokens per second of one model on this machine: prefill, and decode of one and of eight sequences.
//!
//! `cargo run --release --example throughput -- MODEL [--threads N] [--prompt N] [--decode N] [--runs N]
//! [--reference] [--json]`
//!
//! Each figure is the median of `--runs` runs. With `--json` the last line is one JSON object.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use shoal_checkpoint::Checkpoint;
use shoal_model::{Backend, Compute, KvGeometry, KvMemory, LoadOptions, LogitRows, SequenceRows, load};

type Failure = Box<dyn std::error::Error>;

struct Arguments {
    model: String,
    threads: usize,
    prompt: usize,
    decode: usize,
    runs: usize,
    compute: Compute,
    json: bool,
}

impl Arguments {
    fn parse() -> Result<Self, Failure> {
        let mut parsed = Self {
            model: String::new(),
            threads: 1,
            prompt: 512,
            decode: 64,
            runs: 3,
            compute: Compute::Fast,
            json: false,
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut number = || arguments.next().ok_or_else(|| format!("{argument} needs a number"));
            match argument.as_str() {
                "--threads" => parsed.threads = number()?.parse()?,
                "--prompt" => parsed.prompt = number()?.parse::<usize>()?.max(1),
                "--decode" => parsed.decode = number()?.parse::<usize>()?.max(1),
                "--runs" => parsed.runs = number()?.parse::<usize>()?.max(1),
                "--reference" => parsed.compute = Compute::Reference,
                "--json" => parsed.json = true,
                _ => parsed.model = argument,
            }
        }
        if parsed.model.is_empty() { Err("name a model file".into()) } else { Ok(parsed) }
    }
}

const STREAMS: usize = 8;
const CHUNK: usize = 512;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("throughput: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Failure> {
    let arguments = Arguments::parse()?;
    let start = Instant::now();
    let pages_each = (arguments.prompt + arguments.decode).div_ceil(KvGeometry::PAGE_TOKENS);
    let options = LoadOptions {
        compute: arguments.compute,
        threads: arguments.threads,
        kv: KvMemory::Pages(pages_each * STREAMS),
        page_tokens: KvGeometry::PAGE_TOKENS,
        progress: &|_, _| {},
    };
    let mut bench = Bench { backend: load(&Checkpoint::open(&arguments.model)?, &options)?, pages_each };
    let load_seconds = start.elapsed().as_secs_f64();
    let (mut prefill, mut single, mut batch) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..arguments.runs {
        prefill.push(rate(arguments.prompt, bench.prefill(0, arguments.prompt)?));
        single.push(rate(arguments.decode, bench.decode(1, &arguments)?));
        for stream in 1..STREAMS {
            bench.prefill(stream, arguments.prompt)?;
        }
        batch.push(rate(arguments.decode * STREAMS, bench.decode(STREAMS, &arguments)?));
    }
    let (prefill, single, batch) = (median(prefill), median(single), median(batch));
    println!("load {load_seconds:.2} s, {} thread(s), prompt {} tokens", arguments.threads, arguments.prompt);
    println!("prefill {prefill:.0} tok/s");
    println!("decode, 1 sequence {single:.0} tok/s");
    println!("decode, {STREAMS} sequences {batch:.0} tok/s ({:.1}x of one)", batch / single);
    if arguments.json {
        println!(
            "{{\"threads\":{},\"prompt_tokens\":{},\"decode_tokens\":{},\"load_seconds\":{load_seconds:.3},\
             \"prefill_tokens_per_second\":{prefill:.1},\"decode_tokens_per_second\":{single:.1},\
             \"decode_batch8_tokens_per_second\":{batch:.1}}}",
            arguments.threads, arguments.prompt, arguments.decode
        );
    }
    Ok(())
}

struct Bench {
    backend: Box<dyn Backend>,
    pages_each: usize,
}

impl Bench {
    fn pages(&self, stream: usize) -> Vec<u32> {
        (0..self.pages_each).map(|p| (stream * self.pages_each + p) as u32).collect()
    }

    fn prefill(&mut self, stream: usize, prompt: usize) -> Result<Duration, Failure> {
        let vocabulary = self.backend.config().vocabulary;
        let tokens: Vec<u32> = (0..prompt).map(|i| ((i * 7919 + stream * 131) % vocabulary) as u32).collect();
        let pages = self.pages(stream);
        let mut logits = Vec::new();
        let start = Instant::now();
        for (index, chunk) in tokens.chunks(CHUNK).enumerate() {
            let last = (index + 1) * CHUNK >= prompt;
            let logits_of = if last { LogitRows::Last } else { LogitRows::None };
            let rows = SequenceRows { tokens: chunk, start: index * CHUNK, pages: &pages, logits: logits_of };
            self.backend.forward(&[rows], &mut logits)?;
        }
        Ok(start.elapsed())
    }

    /// Greedy decoding of `streams` sequences after their prompts.
    fn decode(&mut self, streams: usize, arguments: &Arguments) -> Result<Duration, Failure> {
        let vocabulary = self.backend.config().vocabulary;
        let pages: Vec<Vec<u32>> = (0..streams).map(|s| self.pages(s)).collect();
        let mut tokens: Vec<u32> = (0..streams as u32).collect();
        let mut logits = Vec::new();
        let start = Instant::now();
        for step in 0..arguments.decode {
            let rows = tokens.iter().zip(&pages).map(|(token, pages)| SequenceRows {
                tokens: std::slice::from_ref(token),
                start: arguments.prompt + step,
                pages,
                logits: LogitRows::Last,
            });
            let rows: Vec<SequenceRows<'_>> = rows.collect();
            self.backend.forward(&rows, &mut logits)?;
            tokens = logits.chunks_exact(vocabulary).map(greedy).collect();
        }
        Ok(start.elapsed())
    }
}

fn greedy(logits: &[f32]) -> u32 {
    let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    best.map_or(0, |(token, _)| token as u32)
}

fn rate(tokens: usize, time: Duration) -> f64 {
    tokens as f64 / time.as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
