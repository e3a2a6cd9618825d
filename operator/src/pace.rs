//! How often one object is looked at.
//!
//! What happens to an object within a short time is one look. A storm of events slows looks down to an even
//! pace and never puts them off: a queue that waits for silence would see nothing of a thousand pods that
//! come up until the last one has.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::Hash,
    time::Duration,
};

use futures::{Stream, StreamExt as _, stream};
use tokio::time::{Instant, sleep_until};

/// What happens within this time after a first event is the same look.
const WINDOW: Duration = Duration::from_millis(50);
/// Looks at one object that events cause are at least this far apart.
const PACE: Duration = Duration::from_millis(250);

/// Each object that something happened to, when it is due.
pub fn paced<T: Clone + Eq + Hash + Send + 'static>(
    events: impl Stream<Item = T> + Send + Unpin + 'static,
) -> impl Stream<Item = T> + Send {
    let queue =
        Queue { due: BTreeMap::new(), waiting: HashSet::new(), passed: HashMap::new(), next: 0, events };
    stream::unfold(queue, async |mut queue| queue.pop().await.map(|object| (object, queue)))
}

struct Queue<S, T> {
    /// By time, and among equals in order of arrival.
    due: BTreeMap<(Instant, u64), T>,
    waiting: HashSet<T>,
    /// What passed less than `PACE` ago.
    passed: HashMap<T, Instant>,
    next: u64,
    events: S,
}

impl<S: Stream<Item = T> + Unpin, T: Clone + Eq + Hash> Queue<S, T> {
    async fn pop(&mut self) -> Option<T> {
        loop {
            let first = self.due.first_key_value().map(|((at, _), _)| *at);
            tokio::select! {
                biased;
                () = sleep_until(first.unwrap_or_else(Instant::now)), if first.is_some() => {
                    let (_, object) = self.due.pop_first()?;
                    self.waiting.remove(&object);
                    self.passed.retain(|_, at| at.elapsed() < PACE);
                    self.passed.insert(object.clone(), Instant::now());
                    return Some(object);
                }
                event = self.events.next() => self.push(event?),
            }
        }
    }

    fn push(&mut self, object: T) {
        if !self.waiting.insert(object.clone()) {
            return;
        }
        let soon = Instant::now() + WINDOW;
        let due = self.passed.get(&object).map_or(soon, |passed| soon.max(*passed + PACE));
        self.due.insert((due, self.next), object);
        self.next += 1;
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    fn channel() -> (mpsc::UnboundedSender<&'static str>, impl Stream<Item = &'static str> + Send + Unpin) {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        (sender, Box::pin(paced(stream::poll_fn(move |context| receiver.poll_recv(context)))))
    }

    #[tokio::test]
    async fn events_that_never_pause_do_not_put_a_look_off_and_do_not_multiply_it() {
        let (sender, mut looks) = channel();
        // Ends when nobody listens any more; a queue that waits for silence would never let it.
        let storm = tokio::spawn(async move {
            while sender.send("chat").is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        let begun = Instant::now();
        for _ in 0..3 {
            assert_eq!(looks.next().await, Some("chat"));
        }
        assert!(begun.elapsed() >= 2 * PACE, "three looks are two paces apart");
        drop(looks);
        storm.await.unwrap();
    }

    #[tokio::test]
    async fn an_object_is_due_once_and_objects_do_not_wait_for_each_other() {
        let (sender, mut looks) = channel();
        for object in ["a", "b", "a", "b"] {
            sender.send(object).unwrap();
        }
        let begun = Instant::now();
        assert_eq!((looks.next().await, looks.next().await), (Some("a"), Some("b")));
        let took = begun.elapsed();
        sender.send("end").unwrap();
        assert_eq!(looks.next().await, Some("end"), "nothing of it is left");
        assert!(took >= WINDOW);
    }
}
