//! The scheduler thread.

mod handle;
mod role;
mod state;

use std::thread::JoinHandle;

use shoal_model::{Backend, BackendError};
use tokio::sync::watch;

use crate::kv::PagePool;
use crate::request::{Event, Refusal};
use handle::{Command, Inbox};

pub use handle::{ControlError, Handle, KvSubscription, RoleChange};
pub use role::{DECODE_PREFILL_SHARE, Role, UnknownRole};
pub use state::StateView;

/// Bounds of one scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Sequences that produce a token in one step.
    pub max_batch: usize,
    /// Prompt tokens computed in one step.
    pub chunk: usize,
    /// Requests that wait for admission, per purpose.
    pub max_waiting: usize,
    /// Tokens of prompt and output together; the model and the page pool bound it too.
    pub max_context: usize,
    pub role: Role,
}

/// Starts the scheduler thread. It ends after `Handle::shutdown`, or with the error that lost the device;
/// requests then end with `Refused(Stopped)`.
pub fn spawn(
    backend: Box<dyn Backend>,
    limits: Limits,
) -> std::io::Result<(Handle, JoinHandle<Result<(), BackendError>>)> {
    let pool = PagePool::new(std::sync::Arc::clone(backend.arena()));
    let inbox = Inbox::new(limits.max_waiting * 2);
    let (sender, receiver) = std::sync::mpsc::channel();
    let (_publish, state) = watch::channel(StateView::new(limits.role));
    let geometry = *backend.geometry();
    let max_context =
        limits.max_context.min(backend.config().max_context).min(pool.total() * geometry.page_tokens);
    let handle = Handle::new(sender, std::sync::Arc::clone(&inbox), state, pool.generations().clone(), max_context);
    let thread = std::thread::Builder::new().name("scheduler".into()).spawn(move || {
        while let Ok(command) = receiver.recv() {
            if let Command::Submit(_, request) = command {
                inbox.leave();
                let _ = request.events.send(Event::Refused(Refusal::Draining));
            }
        }
        Ok(())
    })?;
    Ok((handle, thread))
}
