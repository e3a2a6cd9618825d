//! A cluster and its instances as tables.

use shoal_crds::{RoleStatus, ServingCluster, condition, unix_seconds};

use super::{Table, age};
use crate::{
    failure::Failure,
    local::{ClusterDir, Lock, Record, Subject, now},
};

/// A cluster with the status that is true now. Without a `shoal up` nobody keeps the published one true:
/// then either nothing runs, or processes serve on unwatched.
pub(crate) fn load(dir: &ClusterDir) -> Result<Option<ServingCluster>, Failure> {
    let Some(mut cluster) = dir.spec()? else { return Ok(None) };
    let mut status = dir.status().unwrap_or_default();
    if !Lock::is_held(dir) {
        let gateway = dir.gateway_record()?.is_some_and(|record| record.life.is_alive());
        let engines = dir.records()?.iter().any(|record| record.life.is_alive());
        if !gateway {
            status.endpoint = None;
        }
        let (reason, message) = if gateway || engines {
            ("Unwatched", "its `shoal up` is gone and its processes run on; `shoal up` takes them over")
        } else {
            status.prefill = RoleStatus::new(cluster.spec.prefill.replicas, 0);
            status.decode = RoleStatus::new(cluster.spec.decode.replicas, 0);
            ("Stopped", "no `shoal up` runs for this cluster")
        };
        for found in &mut status.conditions {
            "Unknown".clone_into(&mut found.status);
            reason.clone_into(&mut found.reason);
            message.clone_into(&mut found.message);
        }
        if reason == "Stopped" {
            status.conditions.iter_mut().for_each(|found| "False".clone_into(&mut found.status));
        }
    }
    cluster.status = Some(status);
    Ok(Some(cluster))
}

/// The columns of `kubectl get servingclusters`; `wide` adds the endpoint and the generation.
pub(crate) fn clusters(clusters: &[ServingCluster], wide: bool) -> Table {
    let mut head = vec!["NAME", "READY", "PREFILL", "DECODE", "MODEL", "STATUS", "AGE"];
    if wide {
        head.extend(["ENDPOINT", "GENERATION"]);
    }
    let mut table = Table::new(&head);
    for cluster in clusters {
        let status = cluster.status.clone().unwrap_or_default();
        let ready = status.condition(condition::READY);
        let created = cluster.metadata.creation_timestamp.as_ref().map(unix_seconds);
        let mut cells = vec![
            cluster.metadata.name.clone().unwrap_or_default(),
            ready.map_or("Unknown", |ready| ready.status.as_str()).to_owned(),
            status.prefill.summary.clone(),
            status.decode.summary.clone(),
            cluster.spec.model.name.clone(),
            ready.map_or("Stopped", |ready| ready.reason.as_str()).to_owned(),
            created.map_or_else(String::new, |created| age(now().as_second() - created)),
        ];
        if wide {
            cells.push(status.endpoint.clone().unwrap_or_else(|| "-".to_owned()));
            cells.push(cluster.metadata.generation.unwrap_or_default().to_string());
        }
        table.row(cells);
    }
    table
}

/// Every process of a cluster.
pub(crate) fn processes<'a>(records: impl IntoIterator<Item = &'a Record>) -> Table {
    let mut table = Table::new(&["INSTANCE", "ROLE", "STATE", "CRASHES", "PID", "ADDRESS", "AGE"]);
    for record in records {
        let role = match &record.subject {
            Subject::Engine { role, .. } => role.as_str(),
            Subject::Gateway { .. } => "gateway",
        };
        let life = &record.life;
        table.row(vec![
            record.name.clone(),
            role.to_owned(),
            state(record).to_owned(),
            life.crashes.count.to_string(),
            life.process.map_or_else(|| "-".to_owned(), |process| process.pid.to_string()),
            life.ready.as_ref().map_or_else(|| "-".to_owned(), |ready| ready.address.clone()),
            age(now().as_second() - life.started.unwrap_or(record.created).as_second()),
        ]);
    }
    table
}

/// The state as far as a record tells; whether the process answers only its `shoal up` knows.
fn state(record: &Record) -> &'static str {
    let life = &record.life;
    match &record.subject {
        _ if life.stopping.is_some() => "Stopping",
        _ if life.crashed.is_some() => "Crashed",
        _ if !life.is_alive() => "Gone",
        Subject::Engine { draining: Some(_), .. } => "Draining",
        _ if life.ready.is_some() => "Ready",
        _ => "Starting",
    }
}
