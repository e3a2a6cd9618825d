//! What every life has to come to, whatever happened in it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};
use serde_json::Value;

use super::{Record, normal::differences};
use crate::kubernetes::proxy::Write;

/// Paths that may differ between undisturbed lives. More of them would hide what is looked for.
const MASKS: usize = 6;
/// Requests of a disturbed life: a restart lists every kind again, a lost watch too. A loop makes thousands.
const REQUESTS: usize = 4;

/// Undisturbed lives.
#[derive(Debug)]
pub struct Reference {
    end: Value,
    /// Paths at which undisturbed lives differ.
    pub masks: BTreeSet<String>,
    counts: BTreeMap<String, (u32, u32)>,
    requests: usize,
}

impl Reference {
    pub fn of(first: &Record, second: &Record) -> Result<Self> {
        let mut found = Vec::new();
        differences(&first.end, &second.end, "", &mut found);
        let told: Vec<String> = found.iter().map(|(path, values)| format!("{path}: {values}")).collect();
        ensure!(found.len() <= MASKS, "two undisturbed lives differ:\n{}", told.join("\n"));
        let (counts, again) = (counts(&first.writes), counts_of(second));
        ensure!(
            counts == again,
            "two undisturbed lives create and delete otherwise: {}",
            unlike(&counts, &again)
        );
        for life in [first, second] {
            ensure!(life.left.is_empty(), "left of an undisturbed life: {:?}", life.left);
        }
        let masks = found.into_iter().map(|(path, _)| path).collect();
        Ok(Self { end: first.end.clone(), masks, counts, requests: first.requests.max(second.requests) })
    }

    /// # Errors
    /// What is wrong with this life.
    pub fn judge(&self, life: &Record) -> Result<()> {
        ensure!(life.disturbed, "the call at which it was to be disturbed never came");
        let mut found = Vec::new();
        differences(&self.end, &life.end, "", &mut found);
        found.retain(|(path, _)| !self.masks.contains(path));
        let told: Vec<String> = found.iter().map(|(path, values)| format!("{path}: {values}")).collect();
        ensure!(found.is_empty(), "the end differs:\n{}", told.join("\n"));
        let counts = counts_of(life);
        ensure!(counts == self.counts, "created and deleted otherwise: {}", unlike(&self.counts, &counts));
        ensure!(life.left.is_empty(), "left after deletion: {:?}", life.left);
        let elsewhere: Vec<String> = life
            .writes
            .iter()
            .filter(|write| write.namespace != life.namespace)
            .map(|write| format!("{} in {}", write.call, write.namespace))
            .collect();
        ensure!(elsewhere.is_empty(), "written outside its namespace: {elsewhere:?}");
        let most = self.requests * REQUESTS;
        ensure!(
            life.requests <= most,
            "{} requests; an undisturbed life has {}",
            life.requests,
            self.requests
        );
        Ok(())
    }
}

fn counts_of(life: &Record) -> BTreeMap<String, (u32, u32)> {
    counts(&life.writes)
}

/// Creations and deletions by object; an instance's pod is who it is by role and settings.
fn counts(writes: &[Write]) -> BTreeMap<String, (u32, u32)> {
    let mut named: BTreeMap<String, String> = BTreeMap::new();
    let mut counts: BTreeMap<String, (u32, u32)> = BTreeMap::new();
    for write in writes {
        let at = format!("{} {}", write.call.resource, write.call.name);
        // Events are told again by an operator that did not learn that they were told.
        if write.call.resource == "events" || write.call.is_lease() {
            continue;
        }
        if write.created() {
            named.insert(at.clone(), write.object.as_ref().and_then(instance).unwrap_or_else(|| at.clone()));
            counts.entry(named[&at].clone()).or_default().0 += 1;
        } else if write.deleted() {
            let name = named.get(&at).cloned().unwrap_or(at);
            counts.entry(name).or_default().1 += 1;
        }
    }
    counts
}

fn instance(object: &Value) -> Option<String> {
    let meta = &object["metadata"];
    let role = meta["labels"]["shoal.dev/role"].as_str()?;
    let settings = meta["annotations"]["shoal.dev/template-hash"].as_str()?;
    Some(format!("pods of {role} with {settings}"))
}

fn unlike(expected: &BTreeMap<String, (u32, u32)>, found: &BTreeMap<String, (u32, u32)>) -> String {
    let names: BTreeSet<&String> = expected.keys().chain(found.keys()).collect();
    let words = names.into_iter().filter(|name| expected.get(*name) != found.get(*name)).map(|name| {
        let told = |counts: Option<&(u32, u32)>| {
            counts
                .map_or_else(|| "never".to_owned(), |(made, gone)| format!("{made} created, {gone} deleted"))
        };
        format!("{name}: {}, undisturbed {}", told(found.get(name)), told(expected.get(name)))
    });
    words.collect::<Vec<String>>().join("; ")
}
