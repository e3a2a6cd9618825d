//! The loop's state and one turn of it.

use std::{
    collections::BTreeMap,
    net::TcpListener,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use serde_json::json;
use shoal_crds::{ServingCluster, ServingClusterStatus};
use shoal_plan::{Cluster, Observed, Plan, model_digest};
use shoal_wire::FleetSecret;

use super::{
    Programs,
    children::Children,
    probe::Probes,
    process::{end_now, started_for},
    record::{Record, Subject},
    state_dir::ClusterDir,
};
use crate::failure::{Attempt, Failure};

/// How long a new host listens to what it took over before it acts.
const ACQUAINTANCE: Duration = Duration::from_secs(2);

/// Everything one `shoal up` knows. All of it can be built again from the directory.
#[derive(Debug)]
pub(crate) struct Host {
    pub(super) dir: ClusterDir,
    pub(super) programs: Programs,
    pub(super) children: Children,
    pub(super) probes: Probes,
    pub(super) records: BTreeMap<String, Record>,
    pub(super) gateway: Option<Record>,
    /// The status last published.
    pub(super) status: Option<ServingClusterStatus>,
    /// Compute threads of an instance whose spec names none.
    pub(super) shared_threads: usize,
}

/// One turn: what was seen, and what was done about it.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) observed: Observed,
    pub(crate) plan: Plan,
}

impl Host {
    /// Takes over whatever an earlier host left; says what in words.
    pub(crate) fn take_over(dir: ClusterDir, programs: Programs) -> Result<(Self, Vec<String>), Failure> {
        dir.create()?;
        let mut notes = Vec::new();
        let known_secret = dir.secret_path().exists();
        let mut records = dir.records()?;
        records.extend(dir.gateway_record()?);
        end_unknown(&dir, &records, &mut notes);
        records.retain(|record| keep(&dir, record, known_secret, &mut notes));
        if !records.iter().any(|record| record.life.is_alive()) {
            // Nothing of what was published last is true any more.
            dir.clear_status()?;
        }
        dir.ensure_secret()?;
        let secret = FleetSecret::read(&dir.secret_path()).attempt(|| "the fleet's secret".to_owned())?;
        let probes = Probes::new(secret, dir.next_epoch()?);
        let (gateways, engines): (Vec<_>, Vec<_>) =
            records.into_iter().partition(|record| matches!(record.subject, Subject::Gateway { .. }));
        let host = Self {
            status: dir.status(),
            dir,
            programs,
            children: Children::default(),
            probes,
            records: engines.into_iter().map(|record| (record.name.clone(), record)).collect(),
            gateway: gateways.into_iter().next(),
            shared_threads: 1,
        };
        Ok((host, notes))
    }

    /// Hears from every process that was taken over before anything is decided about it, so that a new host
    /// alone changes nothing, not even the status. One that stays silent is left to the turns.
    pub(crate) async fn meet(&mut self) {
        let begun = Instant::now();
        while begun.elapsed() < ACQUAINTANCE && !self.all_answered() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn all_answered(&mut self) -> bool {
        let engines = self.records.values().filter_map(|record| Some((record, record.life.ready.as_ref()?)));
        let mut silent = 0;
        for (record, ready) in engines {
            silent += usize::from(
                self.probes.engine(&record.name, ready).is_none_or(|probe| probe.latest().is_none()),
            );
        }
        let gateway = self.gateway.as_ref().and_then(|record| record.life.ready.as_ref());
        if let Some(ready) = gateway {
            silent += usize::from(self.probes.gateway(ready).is_none_or(|probe| probe.latest().is_none()));
        }
        silent == 0
    }

    /// Refuses a port that somebody else listens on.
    pub(crate) fn check_port(&self, port: u16) -> Result<(), Failure> {
        if self.gateway.as_ref().is_some_and(|record| record.life.is_alive()) {
            return Ok(());
        }
        TcpListener::bind(("127.0.0.1", port)).map(drop).map_err(|error| {
            Failure::conflict(format!(
                "port {port} cannot be used ({error}); end what listens there or set spec.gateway.port to another one"
            ))
        })
    }

    /// Observes, plans, applies, publishes.
    pub(crate) fn turn(
        &mut self,
        resource: &ServingCluster,
        stopping: bool,
        now: Timestamp,
    ) -> Result<Outcome, Failure> {
        self.shared_threads = shared_threads(resource);
        let cluster = Cluster {
            name: self.dir.name.clone(),
            generation: resource.metadata.generation.unwrap_or(1),
            spec: resource.spec.clone(),
            image: String::new(),
            tls: false,
            stopping,
        };
        let observed = self.observe(now)?;
        let plan = shoal_plan::plan(&cluster, &observed, now);
        for step in &plan.steps {
            self.apply(&step.action, now)?;
        }
        self.publish_instances()?;
        if self.status.as_ref() != Some(&plan.status) {
            self.dir.write_status(&plan.status)?;
            self.status = Some(plan.status.clone());
        }
        Ok(Outcome { observed, plan })
    }

    /// Tells the gateway which engines of its model it may call.
    pub(super) fn publish_instances(&self) -> Result<(), Failure> {
        let Some(gateway) = &self.gateway else { return Ok(()) };
        let callable = self.records.values().filter(|record| {
            let life = &record.life;
            record.model == gateway.model && life.stopping.is_none() && life.crashed.is_none()
        });
        let placed: Vec<_> = callable
            .filter_map(|record| {
                Some(json!({"name": record.name, "grpc": record.life.ready.as_ref()?.address}))
            })
            .collect();
        self.dir.write_instances(&json!({ "instances": placed }).to_string()).map(drop)
    }

    /// Ends everything at once: nothing is finished, nothing is left.
    pub(crate) fn end_everything(&mut self) -> Result<(), Failure> {
        for record in self.records.values().chain(&self.gateway) {
            if let Some(identity) = &record.life.process {
                end_now(identity);
            }
            self.dir.forget(record)?;
        }
        self.dir.clear_run()
    }

    /// Removes what only a running fleet needs.
    pub(crate) fn finish(self) -> Result<(), Failure> {
        self.dir.clear_run()
    }

    /// Every process, the gateway first.
    pub(crate) fn processes(&self) -> impl Iterator<Item = &Record> {
        self.gateway.iter().chain(self.records.values())
    }

    /// Whether the gateway serves this cluster's present model.
    pub(crate) fn is_of(&self, resource: &ServingCluster) -> bool {
        self.gateway.as_ref().is_some_and(|record| record.model == model_digest(&resource.spec.model))
    }
}

/// The machine's cores shared among the instances that are asked for.
fn shared_threads(resource: &ServingCluster) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let instances = resource.spec.prefill.replicas + resource.spec.decode.replicas;
    (cores / usize::try_from(instances).unwrap_or(1).max(1)).max(1)
}

/// Ends processes that an earlier host started and did not live to write down.
fn end_unknown(dir: &ClusterDir, records: &[Record], notes: &mut Vec<String>) {
    for identity in started_for(&dir.run_dir()) {
        if !records.iter().any(|record| record.life.process == Some(identity)) {
            end_now(&identity);
            notes.push(format!("ended process {}, which an earlier run left", identity.pid));
        }
    }
}

/// Whether a record still means something: its process lives and can be talked to, or its crash is to be
/// remembered.
fn keep(dir: &ClusterDir, record: &Record, known_secret: bool, notes: &mut Vec<String>) -> bool {
    let alive = record.life.is_alive();
    if alive && known_secret {
        let pid = record.life.process.map_or(0, |identity| identity.pid);
        notes.push(format!("took over {} (process {pid})", record.name));
        return true;
    }
    if let (true, Some(identity)) = (alive, &record.life.process) {
        end_now(identity);
        notes.push(format!("ended {}, whose secret is lost", record.name));
    }
    let remembered = !alive && record.life.crashed.is_some();
    if !remembered {
        // A file that cannot be removed is found again on the next start.
        let _ = dir.forget(record);
    }
    remembered
}
