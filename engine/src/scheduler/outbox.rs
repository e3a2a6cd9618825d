//! Tokens that wait until the next step is under way: waking their readers then takes none of the device's time.

use tokio::sync::mpsc;

use crate::request::Event;

/// Emptied by each step once it has begun, and before anything else is said to a reader whose sequence ends.
#[derive(Debug, Default)]
pub(super) struct Outbox(Vec<(mpsc::UnboundedSender<Event>, Event)>);

impl Outbox {
    pub(super) fn put(&mut self, reader: &mpsc::UnboundedSender<Event>, event: Event) {
        self.0.push((reader.clone(), event));
    }

    /// A closed channel is noticed by the scheduler at the next step.
    pub(super) fn send(&mut self) {
        for (reader, event) in self.0.drain(..) {
            let _ = reader.send(event);
        }
    }
}
