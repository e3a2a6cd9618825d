//! A small world that the planner's steps act on: processes start, end, crash and hang in it.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use shoal_crds::{ModelSource, ModelSpec, ServingClusterSpec};
use shoal_plan::{
    Action, Cluster, CrashHistory, Gateway, GatewayTemplate, Instance, Observed, Phase, Plan, Role, Template,
    model_digest, plan,
};

pub const LOADING: SignedDuration = SignedDuration::from_secs(3);

pub fn cluster(prefill: i32, decode: i32) -> Cluster {
    let source =
        ModelSource { path: "/models/smollm2.gguf".to_owned(), claim: None, host_path: None, download: None };
    let mut spec = ServingClusterSpec {
        model: ModelSpec { name: "smollm2".to_owned(), source },
        engine: shoal_crds::EngineSpec::default(),
        prefill: shoal_crds::PrefillSpec::default(),
        decode: shoal_crds::DecodeSpec::default(),
        gateway: shoal_crds::GatewaySpec::default(),
    };
    (spec.prefill.replicas, spec.decode.replicas) = (prefill, decode);
    Cluster {
        name: "chat".to_owned(),
        generation: 1,
        spec,
        image: String::new(),
        tls: false,
        stopping: false,
    }
}

pub fn start() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

#[derive(Debug, Clone)]
pub struct World {
    pub cluster: Cluster,
    pub observed: Observed,
    pub now: Timestamp,
    /// Templates whose instances crash while they start.
    pub broken: BTreeSet<String>,
    pub created: usize,
    pub deleted: usize,
    pub replaced: usize,
}

impl World {
    pub fn new(cluster: Cluster) -> Self {
        let observed = Observed::default();
        Self { cluster, observed, now: start(), broken: BTreeSet::new(), created: 0, deleted: 0, replaced: 0 }
    }

    /// A world in which everything that was asked for runs.
    pub fn settled(cluster: Cluster) -> Self {
        let mut world = Self::new(cluster);
        world.converge();
        world
    }

    pub fn change(&mut self, edit: impl FnOnce(&mut ServingClusterSpec)) {
        edit(&mut self.cluster.spec);
        self.cluster.generation += 1;
    }

    pub fn plan(&self) -> Plan {
        plan(&self.cluster, &self.observed, self.now)
    }

    /// Plans and carries out all of it.
    pub fn reconcile(&mut self) -> Plan {
        self.look();
        let plan = self.plan();
        for step in &plan.steps {
            self.apply(&step.action);
        }
        self.observed.status = Some(plan.status.clone());
        plan
    }

    /// The gateway sees the instances of its model.
    pub fn look(&mut self) {
        let Some(gateway) = &mut self.observed.gateway else { return };
        let serves = |instance: &Instance| {
            let ready = matches!(instance.phase, Phase::Ready { .. });
            ready && instance.role == Role::Decode && instance.model == gateway.model
        };
        let up = matches!(gateway.phase, Phase::Ready { .. });
        gateway.serving = up && self.observed.instances.iter().any(serves);
    }

    pub fn instance(&mut self, name: &str) -> &mut Instance {
        self.observed.instances.iter_mut().find(|instance| instance.name == name).unwrap()
    }

    pub fn phases(&self) -> Vec<String> {
        let line =
            |instance: &Instance| format!("{} {} {}", instance.name, instance.role, instance.phase.as_str());
        self.observed.instances.iter().map(line).collect()
    }

    pub fn ready(&self, role: Role) -> usize {
        let serves =
            |instance: &&Instance| instance.role == role && matches!(instance.phase, Phase::Ready { .. });
        self.observed.instances.iter().filter(serves).count()
    }

    pub fn apply(&mut self, action: &Action) {
        let now = self.now;
        match action {
            Action::CreateInstance { name, role, template } => self.create(name, *role, template),
            Action::ReplaceInstance { name, template, .. } => {
                self.replaced += 1;
                let instance = self.instance(name);
                (instance.template, instance.model) = (template.hash(), model_digest(&template.model));
                instance.phase = Phase::Starting { since: now };
                instance.in_flight = 0;
            }
            Action::DrainInstance { name } => self.instance(name).phase = Phase::Draining { since: now },
            Action::UndrainInstance { name } => self.instance(name).phase = Phase::Ready { since: now },
            Action::DeleteInstance { name } => {
                self.deleted += 1;
                self.instance(name).phase = Phase::Stopping { since: now };
            }
            Action::CreateGateway { template } => {
                if self.observed.gateway.is_none() {
                    self.observed.gateway = Some(gateway(template, now, CrashHistory::default()));
                }
            }
            Action::ReplaceGateway { template } => {
                let old = self.observed.gateway.as_ref().unwrap();
                let new = Gateway { rolls: old.rolls, ..gateway(template, now, old.crashes) };
                self.observed.gateway = Some(new);
            }
            Action::StopGateway => {
                self.observed.gateway.as_mut().unwrap().phase = Phase::Stopping { since: now };
            }
        }
    }

    fn create(&mut self, name: &str, role: Role, template: &Template) {
        if self.observed.instances.iter().any(|instance| instance.name == name) {
            return;
        }
        self.created += 1;
        self.observed.instances.push(Instance {
            name: name.to_owned(),
            role,
            template: template.hash(),
            model: model_digest(&template.model),
            created: self.now,
            phase: Phase::Starting { since: self.now },
            crashes: CrashHistory::default(),
            in_flight: 0,
        });
    }

    /// Lets time pass: what starts becomes ready (or crashes), what stops is gone, work gets done.
    pub fn tick(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
        let now = self.now;
        self.observed.instances.retain(|instance| !matches!(instance.phase, Phase::Stopping { .. }));
        for instance in &mut self.observed.instances {
            instance.in_flight = instance.in_flight.saturating_sub(1);
            if let Phase::Starting { since } = instance.phase
                && now.duration_since(since) >= LOADING
            {
                if self.broken.contains(&instance.template) {
                    crash(instance, now);
                } else {
                    instance.phase = Phase::Ready { since: now };
                }
            }
        }
        self.observed.gateway.take_if(|gateway| matches!(gateway.phase, Phase::Stopping { .. }));
        if let Some(gateway) = &mut self.observed.gateway
            && matches!(gateway.phase, Phase::Starting { .. })
        {
            gateway.phase = Phase::Ready { since: now };
        }
    }

    pub fn crash(&mut self, index: usize) {
        let (count, now) = (self.observed.instances.len(), self.now);
        if count > 0 {
            crash(&mut self.observed.instances[index % count], now);
        }
    }

    pub fn hang(&mut self, index: usize) {
        let (count, now) = (self.observed.instances.len(), self.now);
        if count > 0 && matches!(self.observed.instances[index % count].phase, Phase::Ready { .. }) {
            self.observed.instances[index % count].phase = Phase::Unresponsive { since: now };
        }
    }

    pub fn crash_gateway(&mut self) {
        let now = self.now;
        if let Some(gateway) = &mut self.observed.gateway {
            gateway.crashes = gateway.crashes.after_crash(None, now);
            gateway.phase = Phase::Crashed { at: now, exit: "signal 9".to_owned() };
        }
    }

    /// Runs until nothing is left to do; at most an hour of its own time.
    pub fn converge(&mut self) {
        for _ in 0..720 {
            let plan = self.reconcile();
            self.check();
            if plan.is_settled() {
                return;
            }
            self.tick(5);
        }
        panic!("no end after an hour: {:?} {:?}", self.phases(), self.plan());
    }

    /// What must hold in every world that the planner made.
    pub fn check(&self) {
        let names: BTreeSet<&str> =
            self.observed.instances.iter().map(|instance| instance.name.as_str()).collect();
        assert_eq!(names.len(), self.observed.instances.len(), "two instances of one name");
        for name in names {
            let label =
                name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
            assert!(label && name.len() <= 63, "{name:?} is not a DNS label");
        }
    }
}

fn crash(instance: &mut Instance, now: Timestamp) {
    let ready_since = match instance.phase {
        Phase::Ready { since } => Some(since),
        _ => None,
    };
    instance.crashes = instance.crashes.after_crash(ready_since, now);
    instance.phase = Phase::Crashed { at: now, exit: "signal 9".to_owned() };
    instance.in_flight = 0;
}

fn gateway(template: &GatewayTemplate, now: Timestamp, crashes: CrashHistory) -> Gateway {
    Gateway {
        model: model_digest(&template.model),
        port: template.port,
        phase: Phase::Starting { since: now },
        crashes,
        serving: false,
        endpoint: format!("http://127.0.0.1:{}/v1", template.port),
        rolls: false,
        trouble: None,
    }
}
