//! `shoal up`: the fleet, in the foreground.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use shoal_crds::{ServingCluster, condition};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{State, manifest};
use crate::{
    failure::{Attempt, Failure},
    local::{ClusterDir, Host, Lock, Outcome, Programs, now},
    present::{fleet, live::Live, style},
};

/// Between turns while something moves, and while nothing does. A child that ends ends the pause.
const MOVING: Duration = Duration::from_millis(50);
const RESTING: Duration = Duration::from_millis(500);
/// Exit code after a second Ctrl-C.
const INTERRUPTED: i32 = 130;

const EXAMPLES: &str = "\
Examples:
  shoal up -f cluster.yaml
  SHOAL_STATE_DIR=/tmp/shoal shoal up -f cluster.yaml

It runs until Ctrl-C, which lets running answers finish and then ends every process it started; a second
Ctrl-C ends them at once. Killed in any other way, its processes serve on, and the next `shoal up` takes
them over. A process that crashes is started again after 1 s, doubling up to 5 min; one that is alive but
silent for 10 s is reported, and replaced after 30 s of silence. `shoal apply` from a second terminal
changes the fleet while it runs.

The engine and gateway programs are found beside this one, or named by SHOAL_ENGINE and SHOAL_GATEWAY.";

/// Start a fleet in the foreground and keep it as its manifest says.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Up {
    /// Manifest of a `ServingCluster`; - is standard input
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    state: State,
}

impl Up {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let cluster = manifest::read(&self.file)?;
        let name = cluster.metadata.name.clone().unwrap_or_default();
        let dir = self.state.open()?.cluster(&name);
        dir.create()?;
        let _lock = Lock::take(&dir)?;
        let programs = Programs::find()?;
        check_model(&cluster)?;
        let (mut host, notes) = Host::take_over(dir.clone(), programs)?;
        host.check_port(u16::try_from(cluster.spec.gateway.port).unwrap_or(0))?;
        dir.store(cluster)?;
        host.meet().await;
        let mut live = Live::new();
        for note in notes {
            live.say(&note);
        }
        Foreground { dir, host, live, announced: None }.run().await
    }
}

/// A model that is not there is told at once; each engine would only tell its log.
fn check_model(cluster: &ServingCluster) -> Result<(), Failure> {
    let path = &cluster.spec.model.source.path;
    std::fs::metadata(path)
        .map(drop)
        .map_err(|error| Failure::invalid(format!("spec.model.source.path: {path} cannot be read: {error}")))
}

struct Foreground {
    dir: ClusterDir,
    host: Host,
    live: Live,
    /// Generation whose fleet table was printed.
    announced: Option<i64>,
}

/// Why the fleet goes down.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stop {
    Interrupted,
    Deleted,
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    child: Signal,
}

impl Foreground {
    async fn run(mut self) -> Result<(), Failure> {
        let listen = |kind| signal(kind).attempt(|| "cannot listen to signals".to_owned());
        let mut signals = Signals {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            child: listen(SignalKind::child())?,
        };
        let mut stop = None;
        let mut resource = self.dir.spec()?.ok_or_else(|| Failure::failed("the spec is gone"))?;
        loop {
            self.reread(&mut resource, &mut stop);
            let moment = now();
            let outcome = self.host.turn(&resource, stop.is_some(), moment)?;
            self.live.show(&outcome.observed, &outcome.plan, moment);
            self.announce(&resource, &outcome);
            if let Some(stop) = stop
                && outcome.plan.is_settled()
            {
                return self.end(stop);
            }
            let pause = if outcome.plan.is_settled() { RESTING } else { MOVING };
            if signals.wait(pause).await {
                if stop.is_some() {
                    self.host.end_everything()?;
                    std::process::exit(INTERRUPTED);
                }
                self.live
                    .say("stopping: answers in flight finish first; Ctrl-C again ends everything at once");
                stop = Some(Stop::Interrupted);
            }
        }
    }

    /// Takes up what `apply` and `delete` wrote; a spec that cannot be read changes nothing.
    fn reread(&mut self, resource: &mut ServingCluster, stop: &mut Option<Stop>) {
        match self.dir.spec() {
            Ok(Some(found)) => {
                if found.metadata.deletion_timestamp.is_some() && stop.is_none() {
                    self.live.say("deleted: the fleet goes down");
                    *stop = Some(Stop::Deleted);
                }
                *resource = found;
            }
            Ok(None) if stop.is_none() => {
                self.live.say("the spec was removed: the fleet goes down");
                *stop = Some(Stop::Deleted);
            }
            Ok(None) | Err(_) => {}
        }
    }

    /// Prints the fleet and its endpoint once per generation, when all of it is there.
    fn announce(&mut self, resource: &ServingCluster, outcome: &Outcome) {
        let status = &outcome.plan.status;
        let complete = status.is(condition::READY) && outcome.plan.is_settled() && self.host.is_of(resource);
        if !complete || self.announced == resource.metadata.generation {
            return;
        }
        self.announced = resource.metadata.generation;
        let shown = ServingCluster { status: Some(status.clone()), ..resource.clone() };
        self.live.say(&format!("\n{}", fleet::clusters(&[shown], false)));
        self.live.say(&fleet::processes(self.host.processes()).to_string());
        let endpoint = status.endpoint.clone().unwrap_or_default();
        self.live.say(&format!("Endpoint: {}", style::bold(&endpoint)));
        self.live.say(&style::dim("Ask it something: shoal chat -m 'Hello'    Stop it: Ctrl-C"));
    }

    fn end(mut self, stop: Stop) -> Result<(), Failure> {
        self.live.say(&format!("{} is down", self.dir.name));
        self.host.finish()?;
        match stop {
            Stop::Interrupted => Ok(()),
            Stop::Deleted => self.dir.remove(),
        }
    }
}

impl Signals {
    /// Waits for the pause to pass or a child to end; true if the user wants an end.
    async fn wait(&mut self, pause: Duration) -> bool {
        tokio::select! {
            _ = self.interrupt.recv() => true,
            _ = self.terminate.recv() => true,
            _ = self.child.recv() => false,
            () = tokio::time::sleep(pause) => false,
        }
    }
}
