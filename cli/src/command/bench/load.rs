//! Begins requests, closed or open loop, and adds up what they measured.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use super::{
    Limit, Mode,
    prompt::{Prompts, Random},
    report::Report,
    request::{Measured, Sender},
};

/// Requests that an open loop keeps in flight; beyond it a request is counted as an error at once.
const MAX_IN_FLIGHT: usize = 16_384;

pub(super) async fn run(mode: Mode, limit: Limit, prompts: Prompts, sender: Sender, seed: u64) -> Report {
    let begun = Instant::now();
    let mut report = match mode {
        Mode::Closed { concurrency } => closed(concurrency, limit, prompts, sender, begun).await,
        Mode::Open { rate } => open(rate, limit, &prompts, &sender, seed, begun).await,
    };
    report.mode(mode);
    report.elapsed = begun.elapsed();
    report
}

/// `concurrency` workers that each send one request after another.
async fn closed(concurrency: u32, limit: Limit, prompts: Prompts, sender: Sender, begun: Instant) -> Report {
    let shared = Arc::new((prompts, sender, AtomicU64::new(0)));
    let mut workers = JoinSet::new();
    for _ in 0..concurrency {
        let shared = Arc::clone(&shared);
        workers.spawn(async move {
            let (prompts, sender, next) = &*shared;
            let mut report = Report::default();
            while limit.duration.is_none_or(|duration| begun.elapsed() < duration) {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= limit.requests {
                    break;
                }
                report.add(sender.send(prompts.get(number), Instant::now()).await);
            }
            report
        });
    }
    let mut total = Report::default();
    while let Some(joined) = workers.join_next().await {
        total.merge(&joined.unwrap_or_default());
    }
    total
}

/// Requests at moments whose distances are exponentially distributed.
async fn open(
    rate: f64,
    limit: Limit,
    prompts: &Prompts,
    sender: &Sender,
    seed: u64,
    begun: Instant,
) -> Report {
    let mut random = Random::new(seed);
    let mut flights: JoinSet<Result<Measured, String>> = JoinSet::new();
    let mut report = Report::default();
    let mut due = begun;
    for number in 0..limit.requests {
        due += Duration::from_secs_f64(-random.share().ln() / rate);
        if limit.duration.is_some_and(|duration| due - begun >= duration) {
            break;
        }
        tokio::time::sleep_until(due.into()).await;
        while let Some(joined) = flights.try_join_next() {
            report.add(joined.unwrap_or_else(|_| Err("worker".to_owned())));
        }
        if flights.len() >= MAX_IN_FLIGHT {
            report.add(Err("too many in flight".to_owned()));
            continue;
        }
        let (sender, prompt) = (sender.clone(), prompts.get(number));
        flights.spawn(async move { sender.send(prompt, due).await });
    }
    while let Some(joined) = flights.join_next().await {
        report.add(joined.unwrap_or_else(|_| Err("worker".to_owned())));
    }
    report
}
