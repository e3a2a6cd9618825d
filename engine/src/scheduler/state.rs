//! What the scheduler tells about itself.

use shoal_wire::rpc::Load;

use super::Role;

/// A copy of the scheduler's state after a step.
#[derive(Debug, Clone, PartialEq)]
pub struct StateView {
    pub role: Role,
    /// Of the last accepted control call.
    pub epoch: u64,
    pub draining: bool,
    /// Everything but the transfer figures, which are zero here.
    pub load: Load,
    /// Requests of a role no longer held that still run.
    pub prefill_residue: usize,
    pub decode_residue: usize,
    /// Requests in any state.
    pub in_flight: usize,
    /// Pages given up while a transfer thread still borrows them; they return when it lets go.
    pub pages_borrowed: usize,
    /// Page references that no request and no cache entry accounts for. Anything but 0 is a defect.
    pub leaked_pages: usize,
}

impl StateView {
    pub(super) fn new(role: Role) -> Self {
        Self {
            role,
            epoch: 0,
            draining: false,
            load: Load::default(),
            prefill_residue: 0,
            decode_residue: 0,
            in_flight: 0,
            pages_borrowed: 0,
            leaked_pages: 0,
        }
    }
}
