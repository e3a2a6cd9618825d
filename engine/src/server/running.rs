//! Requests that run, by the gateway's id, so that they can be aborted.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::request::SequenceId;
use crate::scheduler::Handle;

/// All running requests. The same id may run twice: as decode owner and as prefill, or again after a retry.
#[derive(Debug, Default, Clone)]
pub struct RunningRequests(Arc<Mutex<HashMap<Arc<str>, Vec<SequenceId>>>>);

impl RunningRequests {
    pub(super) fn enter(&self, request_id: &str, handle: &Handle, id: SequenceId) -> Running {
        let request_id: Arc<str> = request_id.into();
        self.0.lock().entry(Arc::clone(&request_id)).or_default().push(id);
        Running { requests: self.clone(), request_id, handle: handle.clone(), id, ended: false }
    }

    /// Cancels every sequence of a request; false if there is none.
    pub fn abort(&self, request_id: &str, handle: &Handle) -> bool {
        let requests = self.0.lock();
        let ids = requests.get(request_id).map_or(&[][..], Vec::as_slice);
        for id in ids {
            handle.cancel(*id);
        }
        !ids.is_empty()
    }

    /// Sequences in the table.
    pub fn count(&self) -> usize {
        self.0.lock().values().map(Vec::len).sum()
    }
}

/// One sequence handed to the scheduler. Dropping it before its end cancels it.
#[derive(Debug)]
pub(super) struct Running {
    requests: RunningRequests,
    request_id: Arc<str>,
    handle: Handle,
    id: SequenceId,
    ended: bool,
}

impl Running {
    pub(super) fn id(&self) -> SequenceId {
        self.id
    }

    /// The scheduler has already let go of it.
    pub(super) fn ended(&mut self) {
        self.ended = true;
    }

    /// Gives the pages of a computed prompt back.
    pub(super) fn release(mut self) {
        self.handle.release(self.id);
        self.ended = true;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            self.handle.cancel(self.id);
        }
        let mut requests = self.requests.0.lock();
        if let Some(ids) = requests.get_mut(&self.request_id) {
            ids.retain(|id| *id != self.id);
            if ids.is_empty() {
                requests.remove(&self.request_id);
            }
        }
    }
}
