//! What is true of the processes: the only place that looks at them.
//!
//! Looking also brings the records up to date: a process that ended becomes a crash, a ready file becomes an
//! address. Both are written before the planner sees them.

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use shoal_plan::{Gateway, Instance, Observed, Phase, Role};
use shoal_wire::rpc;

use super::{
    children::last_words,
    files,
    host::Host,
    probe::SILENCE,
    process::end_now,
    record::{Crash, Ready, Record, Subject},
};
use crate::failure::Failure;

/// After SIGTERM an engine, which holds nothing any more, has this long.
const ENGINE_EXIT: SignedDuration = SignedDuration::from_secs(10);
/// A gateway finishes its streams first.
const GATEWAY_EXIT: SignedDuration = SignedDuration::from_secs(45);

/// What a process writes when it listens.
#[derive(Debug, Deserialize)]
struct ReadyFile {
    pid: i32,
    #[serde(default)]
    grpc: String,
    #[serde(default)]
    incarnation: String,
}

impl Host {
    pub(super) fn observe(&mut self, now: Timestamp) -> Result<Observed, Failure> {
        self.children.reap();
        let names: Vec<String> = self.records.keys().cloned().collect();
        for name in names {
            if let Some(mut record) = self.records.remove(&name)
                && self.refresh(&mut record, now)?
            {
                self.records.insert(name, record);
            }
        }
        if let Some(mut record) = self.gateway.take()
            && self.refresh(&mut record, now)?
        {
            self.gateway = Some(record);
        }
        let records: Vec<Record> = self.records.values().cloned().collect();
        let instances = records.iter().filter_map(|record| self.instance(record, now)).collect();
        let gateway = self.gateway.clone().and_then(|record| self.gateway_seen(&record, now));
        Ok(Observed { instances, gateway, status: self.status.clone() })
    }

    /// Brings a record up to date; false if its process is gone as asked and the record with it.
    fn refresh(&mut self, record: &mut Record, now: Timestamp) -> Result<bool, Failure> {
        let alive = record.life.is_alive();
        if let Some(since) = record.life.stopping {
            if !alive {
                self.probes.forget(&record.name);
                self.dir.forget(record)?;
                return Ok(false);
            }
            press(record, since, now);
        } else if record.life.crashed.is_none() && !alive {
            self.note_crash(record, now)?;
        } else if record.life.crashed.is_none() && record.life.ready.is_none() {
            self.note_ready(record, now)?;
        }
        Ok(true)
    }

    fn note_crash(&mut self, record: &mut Record, now: Timestamp) -> Result<(), Failure> {
        let exit = match record.life.process {
            Some(identity) => self.children.exit_of(&identity),
            None => "not started".to_owned(),
        };
        let words = last_words(&self.dir.log_path(&record.name));
        // A signal comes from outside: the log does not tell why.
        let exit = match words.filter(|_| !exit.starts_with("signal")) {
            Some(words) => format!("{exit}: {words}"),
            None => exit,
        };
        let ready_since = record.life.ready.take().map(|ready| ready.since);
        record.life.crashes = record.life.crashes.after_crash(ready_since, now);
        record.life.crashed = Some(Crash { at: now, exit });
        record.life.process = None;
        if let Subject::Engine { draining, .. } = &mut record.subject {
            *draining = None;
        }
        self.probes.forget(&record.name);
        self.dir.write_record(record)
    }

    fn note_ready(&mut self, record: &mut Record, now: Timestamp) -> Result<(), Failure> {
        let Ok(Some(bytes)) = files::read(&self.dir.ready_path(&record.name)) else { return Ok(()) };
        let Ok(file) = serde_json::from_slice::<ReadyFile>(&bytes) else { return Ok(()) };
        if Some(file.pid) != record.life.process.map(|identity| identity.pid) {
            return Ok(());
        }
        let address = match record.subject {
            Subject::Engine { .. } => file.grpc,
            Subject::Gateway { port } => format!("127.0.0.1:{port}"),
        };
        record.life.ready = Some(Ready { since: now, address, incarnation: file.incarnation });
        self.dir.write_record(record)
    }

    /// An engine as the planner sees it.
    fn instance(&mut self, record: &Record, now: Timestamp) -> Option<Instance> {
        let Subject::Engine { role, template, draining } = &record.subject else { return None };
        let (phase, in_flight) = match settled_phase(record) {
            Some(phase) => (phase, 0),
            None => self.answered_phase(record, *role, *draining, now),
        };
        Some(Instance {
            name: record.name.clone(),
            role: *role,
            template: template.clone(),
            model: record.model.clone(),
            created: record.created,
            phase,
            crashes: record.life.crashes,
            in_flight,
        })
    }

    /// The phase of a living engine that has said where it listens, from what it answers.
    fn answered_phase(
        &mut self,
        record: &Record,
        role: Role,
        draining: Option<Timestamp>,
        now: Timestamp,
    ) -> (Phase, u32) {
        let starting = Phase::Starting { since: record.life.started.unwrap_or(record.created) };
        let Some(ready) = &record.life.ready else { return (starting, 0) };
        let Some(probe) = self.probes.engine(&record.name, ready) else { return (starting, 0) };
        let (silence, latest) = (probe.silence(), probe.latest());
        let state = latest.map(|answer| answer.said);
        let drains = state.as_ref().is_some_and(|state| state.draining);
        if state.is_some() && drains != draining.is_some() {
            self.probes.drain(ready, draining.is_none());
        }
        let held = state.as_ref().map_or(0, in_flight);
        if let Some(since) = draining {
            // Before the engine says that it drains, it may still be given something.
            return (Phase::Draining { since }, if drains { held } else { held.max(1) });
        }
        let phase = match &state {
            _ if silence >= SILENCE => {
                Phase::Unresponsive { since: now.checked_sub(silence).unwrap_or(record.created) }
            }
            Some(state) if !drains && has_role(state, role) => Phase::Ready { since: ready.since },
            _ => starting,
        };
        (phase, held)
    }

    fn gateway_seen(&mut self, record: &Record, now: Timestamp) -> Option<Gateway> {
        let Subject::Gateway { port } = record.subject else { return None };
        let starting = Phase::Starting { since: record.life.started.unwrap_or(record.created) };
        let (phase, serving) = match (settled_phase(record), &record.life.ready) {
            (Some(phase), _) => (phase, false),
            (None, None) => (starting, false),
            (None, Some(ready)) => match self.probes.gateway(ready) {
                Some(probe) if probe.silence() >= SILENCE => {
                    let since = now.checked_sub(probe.silence()).unwrap_or(record.created);
                    (Phase::Unresponsive { since }, false)
                }
                Some(probe) => match probe.latest() {
                    Some(answer) => (Phase::Ready { since: ready.since }, answer.said),
                    None => (starting, false),
                },
                None => (starting, false),
            },
        };
        Some(Gateway {
            model: record.model.clone(),
            port,
            phase,
            crashes: record.life.crashes,
            serving,
            endpoint: format!("http://127.0.0.1:{port}/v1"),
            rolls: false,
            trouble: None,
        })
    }
}

/// Phases that do not depend on what the process answers.
fn settled_phase(record: &Record) -> Option<Phase> {
    let life = &record.life;
    if let Some(since) = life.stopping {
        return Some(Phase::Stopping { since });
    }
    life.crashed.as_ref().map(|crash| Phase::Crashed { at: crash.at, exit: crash.exit.clone() })
}

fn in_flight(state: &rpc::EngineState) -> u32 {
    let load = state.load.unwrap_or_default();
    load.running + load.waiting
}

fn has_role(state: &rpc::EngineState, role: Role) -> bool {
    let wanted = match role {
        Role::Prefill => rpc::Role::Prefill,
        Role::Decode => rpc::Role::Decode,
    };
    state.role() == wanted
}

/// Ends a process that was asked to and does not.
fn press(record: &Record, since: Timestamp, now: Timestamp) {
    let limit = match record.subject {
        Subject::Engine { .. } => ENGINE_EXIT,
        Subject::Gateway { .. } => GATEWAY_EXIT,
    };
    if now.duration_since(since) > limit
        && let Some(identity) = &record.life.process
    {
        end_now(identity);
    }
}
