//! Carries out steps: the only place that starts and ends processes.

use std::path::Path;

use jiff::Timestamp;
use shoal_plan::{Action, CrashHistory, GatewayTemplate, Role, Template, model_digest};

use super::{
    host::Host,
    process::{Identity, end_now},
    record::{Crash, Life, Record, Subject},
};
use crate::failure::{Attempt, Failure};

const GATEWAY: &str = "gateway";

impl Host {
    pub(super) fn apply(&mut self, action: &Action, now: Timestamp) -> Result<(), Failure> {
        match action {
            // The name is the planner's: if it is taken, an earlier try got this far.
            Action::CreateInstance { name, .. } if self.records.contains_key(name) => Ok(()),
            Action::CreateInstance { name, role, template } => {
                self.start_engine(name, *role, template, CrashHistory::default(), now)
            }
            Action::ReplaceInstance { name, role, template } => {
                let old = self.records.get(name).map(|record| record.life.clone()).unwrap_or_default();
                self.start_engine(name, *role, template, after_end_of(&old, now), now)
            }
            Action::DrainInstance { name } => self.set_draining(name, Some(now)),
            Action::UndrainInstance { name } => self.set_draining(name, None),
            Action::DeleteInstance { name } => {
                let record = self.records.remove(name);
                let Some(record) = self.ask_to_end(record, now)? else { return Ok(()) };
                self.records.insert(name.clone(), record);
                Ok(())
            }
            Action::CreateGateway { .. } if self.gateway.is_some() => Ok(()),
            Action::CreateGateway { template } => self.start_gateway(template, CrashHistory::default(), now),
            Action::ReplaceGateway { template } => {
                let old = self.gateway.as_ref().map(|record| record.life.clone()).unwrap_or_default();
                self.start_gateway(template, after_end_of(&old, now), now)
            }
            Action::StopGateway => {
                let record = self.gateway.take();
                self.gateway = self.ask_to_end(record, now)?;
                Ok(())
            }
        }
    }

    fn start_engine(
        &mut self,
        name: &str,
        role: Role,
        template: &Template,
        crashes: CrashHistory,
        now: Timestamp,
    ) -> Result<(), Failure> {
        let subject = Subject::Engine { role, template: template.hash(), draining: None };
        let record = self.begin(name, model_digest(&template.model), subject, crashes, now)?;
        let arguments = self.engine_arguments(name, role, template)?;
        let program = self.programs.engine.clone();
        let record = self.launch(record, &program, &arguments, now)?;
        self.records.insert(name.to_owned(), record);
        Ok(())
    }

    fn start_gateway(
        &mut self,
        template: &GatewayTemplate,
        crashes: CrashHistory,
        now: Timestamp,
    ) -> Result<(), Failure> {
        let subject = Subject::Gateway { port: template.port };
        let record = self.begin(GATEWAY, model_digest(&template.model), subject, crashes, now)?;
        // It must find a list, even an empty one, when it starts.
        self.gateway = Some(record.clone());
        self.publish_instances()?;
        let arguments = self.gateway_arguments(template);
        let program = self.programs.gateway.clone();
        self.gateway = Some(self.launch(record, &program, &arguments, now)?);
        Ok(())
    }

    /// Writes down what is about to be started.
    fn begin(
        &mut self,
        name: &str,
        model: String,
        subject: Subject,
        crashes: CrashHistory,
        now: Timestamp,
    ) -> Result<Record, Failure> {
        self.probes.forget(name);
        let life = Life::beginning(now, crashes);
        let record = Record { name: name.to_owned(), model, created: now, subject, life };
        self.dir.forget(&record)?;
        self.dir.write_record(&record)?;
        Ok(record)
    }

    /// Starts the process and writes down which one it is. One that cannot be started is a crash, with its
    /// pause and its place in the status.
    fn launch(
        &mut self,
        mut record: Record,
        program: &Path,
        arguments: &[String],
        now: Timestamp,
    ) -> Result<Record, Failure> {
        match self.children.start(program, arguments, &self.dir.log_path(&record.name)) {
            Ok(identity) => record.life.process = Some(identity),
            Err(error) => {
                let exit = format!("cannot start {}: {error}", program.display());
                record.life.crashes = record.life.crashes.after_crash(None, now);
                record.life.crashed = Some(Crash { at: now, exit });
            }
        }
        self.dir.write_record(&record)?;
        Ok(record)
    }

    /// Asks a process to end; the record that is left until it has, or none if it had ended before.
    fn ask_to_end(&mut self, record: Option<Record>, now: Timestamp) -> Result<Option<Record>, Failure> {
        let Some(mut record) = record else { return Ok(None) };
        let Some(identity) = record.life.process.filter(Identity::is_alive) else {
            self.probes.forget(&record.name);
            self.dir.forget(&record)?;
            return Ok(None);
        };
        record.life.stopping = Some(now);
        self.dir.write_record(&record)?;
        identity.ask_to_end();
        Ok(Some(record))
    }

    /// Records the wish; `observe` sees to it that the engine follows.
    fn set_draining(&mut self, name: &str, since: Option<Timestamp>) -> Result<(), Failure> {
        let Some(record) = self.records.get_mut(name) else { return Ok(()) };
        if let Subject::Engine { draining, .. } = &mut record.subject {
            *draining = since;
        }
        self.dir.write_record(record)
    }

    fn engine_arguments(&self, name: &str, role: Role, template: &Template) -> Result<Vec<String>, Failure> {
        // Destructured without a rest pattern: a field that is not handed on must not compile.
        let Template { model, engine, image: _, tls: _ } = template;
        let shoal_crds::EngineSpec {
            device: shoal_crds::Device::Cpu,
            threads,
            kv_memory: _,
            max_batch,
            chunk,
            max_context,
            image: _,
            image_pull_policy: _,
            pod_template: _,
        } = engine;
        let memory = engine.kv_memory_bytes().attempt(|| "spec.engine.kvMemory".to_owned())?;
        let threads = threads.map_or(self.shared_threads, |threads| threads as usize);
        let mut arguments = flags(&[
            ("--model", &model.source.path),
            ("--model-name", &model.name),
            ("--instance", name),
            ("--listen", "127.0.0.1:0"),
            ("--data-listen", "127.0.0.1:0"),
            ("--role", role.as_str()),
            ("--secret-file", &self.dir.secret_path().to_string_lossy()),
            ("--threads", &threads.to_string()),
            ("--kv-memory", &memory.to_string()),
            ("--max-batch", &max_batch.to_string()),
            ("--chunk", &chunk.to_string()),
            ("--ready-file", &self.dir.ready_path(name).to_string_lossy()),
        ]);
        if let Some(tokens) = max_context {
            arguments.extend(flags(&[("--max-context", &tokens.to_string())]));
        }
        Ok(arguments)
    }

    fn gateway_arguments(&self, template: &GatewayTemplate) -> Vec<String> {
        let GatewayTemplate { model, port } = template;
        flags(&[
            ("--listen", &format!("127.0.0.1:{port}")),
            ("--model", &model.source.path),
            ("--model-name", &model.name),
            ("--instances", &self.dir.instances_path().to_string_lossy()),
            ("--secret-file", &self.dir.secret_path().to_string_lossy()),
            ("--ready-file", &self.dir.ready_path(GATEWAY).to_string_lossy()),
        ])
    }
}

fn flags(pairs: &[(&str, &str)]) -> Vec<String> {
    pairs.iter().flat_map(|(flag, value)| [(*flag).to_owned(), (*value).to_owned()]).collect()
}

/// Ends what is left of a process that is to be replaced. One that lives counts as crashed.
fn after_end_of(old: &Life, now: Timestamp) -> CrashHistory {
    match &old.process {
        Some(identity) if identity.is_alive() => {
            end_now(identity);
            old.crashes.after_crash(old.ready.as_ref().map(|ready| ready.since), now)
        }
        _ => old.crashes,
    }
}
