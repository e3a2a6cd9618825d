//! The text that Prometheus reads, as far as Shoal's programs write it.

use serde::Serialize;

#[derive(Debug, Clone, Default)]
pub(crate) struct Exposition(Vec<Sample>);

#[derive(Debug, Clone)]
struct Sample {
    name: String,
    labels: String,
    value: f64,
}

impl Exposition {
    /// Lines that are no samples are left out.
    pub(crate) fn read(text: &str) -> Self {
        Self(text.lines().filter_map(sample).collect())
    }

    /// The sum over all labels; none if there is no such metric.
    pub(crate) fn value(&self, name: &str) -> Option<f64> {
        self.0.iter().filter(|sample| sample.name == name).map(|sample| sample.value).reduce(|a, b| a + b)
    }

    /// The value under one label.
    pub(crate) fn under(&self, name: &str, label: &str, value: &str) -> Option<f64> {
        let wanted = format!("{label}=\"{value}\"");
        let found = self.0.iter().find(|sample| sample.name == name && sample.labels.contains(&wanted))?;
        Some(found.value)
    }

    pub(crate) fn histogram(&self, name: &str) -> Histogram {
        let bucket = format!("{name}_bucket");
        let buckets = self.0.iter().filter(|sample| sample.name == bucket).filter_map(|sample| {
            let bound = sample.labels.split("le=\"").nth(1)?.split('"').next()?;
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().ok()? };
            Some((bound, sample.value))
        });
        Histogram { buckets: buckets.collect() }
    }
}

fn sample(line: &str) -> Option<Sample> {
    if line.starts_with('#') {
        return None;
    }
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    Some(Sample {
        name: name.to_owned(),
        labels: labels.trim_end_matches('}').to_owned(),
        value: value.parse().ok()?,
    })
}

/// Upper bounds and how many were at most that.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Histogram {
    buckets: Vec<(f64, f64)>,
}

impl Histogram {
    /// What came since. A process that started anew counts from zero.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let restarted = self.count() < earlier.count() || self.buckets.len() != earlier.buckets.len();
        if restarted {
            return self.clone();
        }
        let pairs = self.buckets.iter().zip(&earlier.buckets);
        Self { buckets: pairs.map(|(now, then)| (now.0, (now.1 - then.1).max(0.0))).collect() }
    }

    /// Both together, if they have the same bounds.
    pub(crate) fn with(mut self, other: &Self) -> Self {
        if self.buckets.is_empty() {
            return other.clone();
        }
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            mine.1 += theirs.1;
        }
        self
    }

    pub(crate) fn count(&self) -> f64 {
        self.buckets.last().map_or(0.0, |last| last.1)
    }

    /// As Prometheus estimates it: evenly spread within a bucket; the highest bound for what is beyond.
    pub(crate) fn quantile(&self, share: f64) -> Option<f64> {
        let rank = share * self.count();
        if self.count() <= 0.0 {
            return None;
        }
        let (mut lower, mut below) = (0.0, 0.0);
        for (bound, at_most) in &self.buckets {
            if *at_most >= rank && at_most > &below {
                let within = (rank - below) / (at_most - below);
                return Some(if bound.is_finite() { lower + (bound - lower) * within } else { lower });
            }
            (lower, below) = (*bound, *at_most);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# HELP shoal_engine_kv_pages Pages of the pool by state.
# TYPE shoal_engine_kv_pages gauge
shoal_engine_kv_pages{state=\"free\"} 60
shoal_engine_kv_pages{state=\"used\"} 4
shoal_engine_running_sequences 3
seconds_bucket{le=\"0.1\"} 2
seconds_bucket{le=\"0.2\"} 4
seconds_bucket{le=\"+Inf\"} 5
seconds_sum 0.9
not a sample
";

    #[test]
    fn values_are_found_by_name_and_label() {
        let read = Exposition::read(TEXT);
        assert_eq!(read.value("shoal_engine_kv_pages"), Some(64.0));
        assert_eq!(read.under("shoal_engine_kv_pages", "state", "used"), Some(4.0));
        assert_eq!(read.value("shoal_engine_running_sequences"), Some(3.0));
        assert_eq!(read.value("absent"), None);
    }

    #[test]
    fn quantiles_are_those_of_the_time_between_two_looks() {
        let now = Exposition::read(TEXT).histogram("seconds");
        assert_eq!(now.quantile(0.5).map(|seconds| (seconds * 1e3).round()), Some(125.0));
        assert_eq!(now.quantile(0.99), Some(0.2), "beyond the last bound, the last bound is told");
        let then = Histogram { buckets: vec![(0.1, 2.0), (0.2, 2.0), (f64::INFINITY, 3.0)] };
        assert_eq!(now.since(&then).quantile(1.0), Some(0.2));
        assert_eq!(now.since(&now).quantile(0.5), None, "nothing came");
        assert_eq!(then.since(&now), then, "it was started again");
    }
}
