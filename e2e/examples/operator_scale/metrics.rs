//! The operator's own metrics page, and the difference of two.

use std::collections::BTreeMap;

/// Samples by name and labels, as they are on the page.
#[derive(Debug, Clone, Default)]
pub(crate) struct Page(BTreeMap<String, f64>);

impl Page {
    pub(crate) fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let samples = lines.filter_map(|line| {
            let (key, value) = line.rsplit_once(' ')?;
            Some((key.to_owned(), value.parse().ok()?))
        });
        Self(samples.collect())
    }

    pub(crate) fn since(&self, before: &Self) -> Self {
        let earlier = |key: &String| before.0.get(key).copied().unwrap_or_default();
        Self(self.0.iter().map(|(key, value)| (key.clone(), value - earlier(key))).collect())
    }

    /// Over all labels.
    pub(crate) fn sum(&self, name: &str) -> f64 {
        let of_name = self.0.iter().filter(|(key, _)| key.split('{').next() == Some(name));
        of_name.map(|(_, value)| value).sum()
    }

    /// Reconciles so far, whatever came of them.
    pub(crate) fn reconciles(&self) -> f64 {
        self.sum("shoal_operator_reconcile_duration_seconds_count")
    }

    /// Mean of a histogram.
    pub(crate) fn mean(&self, name: &str) -> f64 {
        self.sum(&format!("{name}_sum")) / self.sum(&format!("{name}_count")).max(1.0)
    }

    /// The upper end of the bucket in which this share of a histogram ends.
    pub(crate) fn quantile(&self, name: &str, share: f64) -> f64 {
        let prefix = format!("{name}_bucket{{");
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        for (key, value) in self.0.iter().filter(|(key, _)| key.starts_with(&prefix)) {
            let end = key.split("le=\"").nth(1).and_then(|rest| rest.split('"').next());
            let Some(end) = end.and_then(|end| end.replace("+Inf", "inf").parse::<f64>().ok()) else {
                continue;
            };
            match buckets.iter_mut().find(|(known, _)| known.total_cmp(&end).is_eq()) {
                Some((_, count)) => *count += value,
                None => buckets.push((end, *value)),
            }
        }
        buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
        let all = buckets.last().map_or(0.0, |(_, count)| *count);
        buckets.iter().find(|(_, count)| *count >= all * share).map_or(0.0, |(end, _)| *end)
    }

    /// Writes by what was written, the most frequent first.
    pub(crate) fn writes(&self) -> String {
        let label = |key: &str, name: &str| {
            let rest = key.split(&format!("{name}=\"")).nth(1)?;
            rest.split('"').next().map(ToOwned::to_owned)
        };
        let mut kinds: BTreeMap<String, f64> = BTreeMap::new();
        for (key, value) in self
            .0
            .iter()
            .filter(|(key, value)| key.starts_with("shoal_operator_writes_total{") && **value > 0.0)
        {
            let named = |name| label(key, name).unwrap_or_default();
            let outcome = match named("outcome").as_str() {
                "ok" => String::new(),
                other => format!(" ({other})"),
            };
            *kinds.entry(format!("{} {}{outcome}", named("verb"), named("kind"))).or_default() += value;
        }
        let mut kinds: Vec<_> = kinds.into_iter().collect();
        kinds.sort_by(|one, other| other.1.total_cmp(&one.1));
        kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect::<Vec<_>>().join(", ")
    }
}
