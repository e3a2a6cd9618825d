//! `top` as text: what every instance does, from two looks at its counters.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;
use shoal_terminal::Table;

use super::pod::Load;
use crate::cluster::{Exposition, Histogram};

/// Rates and latencies between two looks.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Top {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) seconds: f64,
    pub(crate) instances: Vec<Row>,
    /// What clients of the gateways see, and everything of all instances together.
    pub(crate) sum: Row,
    pub(crate) unseen: Vec<String>,
}

/// None where nothing came to measure it by.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Row {
    pub(crate) pod: String,
    pub(crate) role: String,
    pub(crate) ttft_p50_seconds: Option<f64>,
    pub(crate) ttft_p95_seconds: Option<f64>,
    pub(crate) inter_token_seconds: Option<f64>,
    pub(crate) prompt_tokens_per_second: Option<f64>,
    pub(crate) output_tokens_per_second: Option<f64>,
    pub(crate) running: Option<f64>,
    pub(crate) waiting: Option<f64>,
    pub(crate) queued_prefill_tokens: Option<f64>,
    pub(crate) kv_use: Option<f64>,
    /// Pages sent by a prefill instance, received by a decode instance; in the sum, received.
    pub(crate) transfer_bytes_per_second: Option<f64>,
}

type Looks = BTreeMap<String, Exposition>;

impl Row {
    fn of_instance(pod: &str, role: &str, then: Option<&Exposition>, now: &Exposition, seconds: f64) -> Self {
        let rate = |name: &str| {
            let name = format!("shoal_engine_{name}");
            let (before, after) = (then?.value(&name)?, now.value(&name)?);
            // A process that started anew counts from zero.
            Some(if after < before { after } else { after - before } / seconds)
        };
        let load = Load::of(now);
        let ttft = ttft("shoal_engine", then, now);
        let sent = rate("kv_sent_bytes_total");
        let received = rate("kv_received_bytes_total");
        Self {
            pod: pod.to_owned(),
            role: role.to_owned(),
            ttft_p50_seconds: ttft.quantile(0.5),
            ttft_p95_seconds: ttft.quantile(0.95),
            inter_token_seconds: inter_token(now, load.as_ref()),
            prompt_tokens_per_second: rate("prompt_tokens_total"),
            output_tokens_per_second: rate("output_tokens_total"),
            running: load.as_ref().map(|load| load.running),
            waiting: load.as_ref().map(|load| load.waiting),
            queued_prefill_tokens: load.as_ref().map(|load| load.queued_prefill_tokens),
            kv_use: load.as_ref().map(Load::kv_use),
            transfer_bytes_per_second: sent.zip(received).map(|(sent, received)| sent.max(received)),
        }
    }
}

fn ttft(program: &str, then: Option<&Exposition>, now: &Exposition) -> Histogram {
    since(&format!("{program}_time_to_first_token_seconds"), then, now)
}

fn since(name: &str, then: Option<&Exposition>, now: &Exposition) -> Histogram {
    then.map_or_else(Histogram::default, |then| now.histogram(name).since(&then.histogram(name)))
}

/// Every sequence of a batch gets one token a step, so a step takes as long as the batch is large by the rate.
fn inter_token(now: &Exposition, load: Option<&Load>) -> Option<f64> {
    let rate = now.value("shoal_engine_decode_tokens_per_second").filter(|rate| *rate > 0.0)?;
    load.map(|load| load.running).filter(|running| *running > 0.0).map(|running| running / rate)
}

impl Top {
    /// From the figures of pods with their roles, now and some time before.
    pub(crate) fn of(
        (namespace, name): (&str, &str),
        roles: &BTreeMap<String, String>,
        (then, now): (&Looks, &Looks),
        between: Duration,
    ) -> Self {
        let seconds = between.as_secs_f64();
        let (mut instances, mut first, mut next) = (Vec::new(), Histogram::default(), Histogram::default());
        for (pod, figures) in now {
            let (role, before) = (roles.get(pod).map_or("", String::as_str), then.get(pod));
            if role == shoal_crds::labels::GATEWAY_COMPONENT {
                first = first.with(&ttft("shoal_gateway", before, figures));
                next = next.with(&since("shoal_gateway_inter_token_latency_seconds", before, figures));
            } else {
                instances.push(Row::of_instance(pod, role, before, figures, seconds));
            }
        }
        let sum = Row {
            pod: "all".to_owned(),
            ttft_p50_seconds: first.quantile(0.5),
            ttft_p95_seconds: first.quantile(0.95),
            inter_token_seconds: next.quantile(0.5),
            transfer_bytes_per_second: received(then, now, seconds),
            ..summed(&instances)
        };
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            seconds,
            instances,
            sum,
            unseen: Vec::new(),
        }
    }
}

/// What was sent was received by another, so only one side counts.
fn received(then: &Looks, now: &Looks, seconds: f64) -> Option<f64> {
    let name = "shoal_engine_kv_received_bytes_total";
    let one = |(pod, figures): (&String, &Exposition)| {
        let (before, after) = (then.get(pod)?.value(name)?, figures.value(name)?);
        Some(if after < before { after } else { after - before } / seconds)
    };
    now.iter().filter_map(one).reduce(|a, b| a + b)
}

fn summed(rows: &[Row]) -> Row {
    let sum = |of: fn(&Row) -> Option<f64>| rows.iter().filter_map(of).reduce(|a, b| a + b);
    let uses: Vec<f64> = rows.iter().filter_map(|row| row.kv_use).collect();
    Row {
        prompt_tokens_per_second: sum(|row| row.prompt_tokens_per_second),
        output_tokens_per_second: sum(|row| row.output_tokens_per_second),
        running: sum(|row| row.running),
        waiting: sum(|row| row.waiting),
        queued_prefill_tokens: sum(|row| row.queued_prefill_tokens),
        // Pools of a fleet are equally large.
        kv_use: (!uses.is_empty()).then(|| uses.iter().sum::<f64>() / uses.len() as f64),
        ..Row::default()
    }
}

pub(crate) fn top_table(top: &Top) -> Table {
    let mut table = Table::new(&[
        "POD", "ROLE", "TTFT p50", "p95", "ITL", "IN/s", "OUT/s", "RUNS", "WAITS", "QUEUED", "KV", "GB/s",
    ]);
    for row in top.instances.iter().chain([&top.sum]) {
        table.row(vec![
            row.pod.clone(),
            row.role.clone(),
            milliseconds(row.ttft_p50_seconds),
            milliseconds(row.ttft_p95_seconds),
            milliseconds(row.inter_token_seconds),
            number(row.prompt_tokens_per_second, 0),
            number(row.output_tokens_per_second, 1),
            number(row.running, 0),
            number(row.waiting, 0),
            number(row.queued_prefill_tokens, 0),
            row.kv_use.map_or_else(missing, |share| format!("{:.0}%", share * 100.0)),
            number(row.transfer_bytes_per_second.map(|bytes| bytes / 1e9), 3),
        ]);
    }
    table
}

fn missing() -> String {
    "-".to_owned()
}

fn milliseconds(seconds: Option<f64>) -> String {
    seconds.map_or_else(missing, |seconds| format!("{:.1}ms", seconds * 1e3))
}

fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(missing, |value| format!("{value:.digits$}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(tokens: u64, received: u64, first: u64) -> Looks {
        let engine = format!(
            "shoal_engine_running_sequences 4\nshoal_engine_decode_tokens_per_second 200\n\
             shoal_engine_output_tokens_total {tokens}\nshoal_engine_prompt_tokens_total 0\n\
             shoal_engine_kv_sent_bytes_total 0\nshoal_engine_kv_received_bytes_total {received}\n"
        );
        let gateway = format!(
            "shoal_gateway_time_to_first_token_seconds_bucket{{le=\"0.1\"}} {first}\n\
             shoal_gateway_time_to_first_token_seconds_bucket{{le=\"+Inf\"}} {first}\n"
        );
        let read = |(name, text): (&str, &str)| (name.to_owned(), Exposition::read(text));
        [("chat-0-1", engine.as_str()), ("chat-1-1", &engine), ("gateway", &gateway)].map(read).into()
    }

    fn top(then: &Looks, now: &Looks) -> Top {
        let roles = [("chat-0-1", "decode"), ("chat-1-1", "decode"), ("gateway", "gateway")];
        let roles = roles.map(|(pod, role)| (pod.to_owned(), role.to_owned())).into();
        Top::of(("team", "chat"), &roles, (then, now), Duration::from_secs(2))
    }

    #[test]
    fn rates_are_what_came_between_two_looks_and_their_sum() {
        insta::assert_snapshot!(top_table(&top(&look(100, 0, 0), &look(300, 4_000_000_000, 10))));
    }

    #[test]
    fn an_instance_that_was_not_there_before_has_no_rates_and_one_that_started_anew_no_negative_ones() {
        let fresh = top(&Looks::new(), &look(300, 8, 1));
        assert_eq!(fresh.sum.output_tokens_per_second, None);
        assert_eq!(fresh.sum.ttft_p50_seconds, None);
        let restarted = top(&look(300, 9, 5), &look(40, 8, 1));
        assert_eq!(restarted.instances[0].output_tokens_per_second, Some(20.0));
    }
}
