//! Waiting requests: first come, first served within a tenant; tenants take turns.

use std::collections::{BTreeSet, HashMap, VecDeque};

use crate::request::SequenceId;

#[derive(Debug, Default)]
pub(super) struct FairQueue {
    /// Sequences that had been admitted before go first, the oldest at the front.
    resumed: BTreeSet<SequenceId>,
    /// Never empty queues.
    tenants: HashMap<Vec<u8>, VecDeque<SequenceId>>,
    /// The tenants with waiting requests; the front one's turn is next.
    turns: VecDeque<Vec<u8>>,
}

impl FairQueue {
    pub(super) fn push(&mut self, tenant: &[u8], id: SequenceId) {
        if !self.tenants.contains_key(tenant) {
            self.turns.push_back(tenant.to_vec());
        }
        self.tenants.entry(tenant.to_vec()).or_default().push_back(id);
    }

    pub(super) fn resume(&mut self, id: SequenceId) {
        self.resumed.insert(id);
    }

    /// Whose turn it is.
    pub(super) fn front(&self) -> Option<SequenceId> {
        let turn = || self.tenants.get(self.turns.front()?)?.front();
        self.resumed.first().or_else(turn).copied()
    }

    /// The front was admitted; its tenant's next turn is after everybody else's.
    pub(super) fn pop(&mut self) {
        if self.resumed.pop_first().is_none()
            && let Some(tenant) = self.turns.front().cloned()
        {
            if let Some(id) = self.tenants.get(&tenant).and_then(|queue| queue.front().copied()) {
                self.remove(&tenant, id);
            }
            if self.tenants.contains_key(&tenant) {
                self.turns.rotate_left(1);
            }
        }
    }

    /// A request ended while it waited; no turn is used up.
    pub(super) fn remove(&mut self, tenant: &[u8], id: SequenceId) {
        if self.resumed.remove(&id) {
            return;
        }
        if let Some(queue) = self.tenants.get_mut(tenant) {
            queue.retain(|waiting| *waiting != id);
            if queue.is_empty() {
                self.tenants.remove(tenant);
                self.turns.retain(|turn| turn != tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(queue: &mut FairQueue) -> Vec<u64> {
        let mut order = Vec::new();
        while let Some(id) = queue.front() {
            order.push(id.0);
            queue.pop();
        }
        order
    }

    #[test]
    fn a_tenant_with_many_requests_does_not_delay_one_with_few() {
        let mut queue = FairQueue::default();
        for id in 1..=4 {
            queue.push(b"many", SequenceId(id));
        }
        queue.push(b"few", SequenceId(5));
        queue.push(b"few", SequenceId(6));
        assert_eq!(order(&mut queue), [1, 5, 2, 6, 3, 4]);
    }

    #[test]
    fn resumed_requests_go_first_and_ended_ones_cost_no_turn() {
        let mut queue = FairQueue::default();
        for (tenant, id) in [(b"a", 3), (b"a", 4), (b"b", 5), (b"c", 6)] {
            queue.push(tenant, SequenceId(id));
        }
        queue.resume(SequenceId(2));
        queue.resume(SequenceId(1));
        queue.remove(b"a", SequenceId(3));
        queue.remove(b"c", SequenceId(6));
        queue.remove(b"x", SequenceId(2));
        assert_eq!(order(&mut queue), [1, 4, 5]);
        assert!(queue.tenants.is_empty() && queue.turns.is_empty());
    }
}
