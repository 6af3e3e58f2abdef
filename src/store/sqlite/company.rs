//! How attempts have ended that nobody waits for, until the writer takes them along: it is not woken for each of them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::writer::Reply;
use crate::job::Queue;
use crate::store::{Lease, Settled, Settlement};

/// How many wait at the most before they are written.
pub(super) const MOST: usize = 512;

/// One of them, and who is told what became of it.
pub(super) type Settling = (Lease, Arc<Settlement>, Reply<Settled>);

/// Those that wait; `None` when nothing is written any more.
pub(super) struct Company(Mutex<Option<Waiting>>);

#[derive(Default)]
struct Waiting {
    /// In their order.
    settlings: Vec<Settling>,
    /// The queues that they come from.
    queues: [bool; Queue::ALL.len()],
}

impl Company {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Some(Waiting::default())))
    }

    /// Adds one that jobs of this queue have left, or drops it if nothing is written any more. Whether the writer is to be told: of the first of
    /// its queue, which may be in more haste than others, and when there are enough.
    pub(super) fn join(&self, settling: Settling, queue: Queue) -> bool {
        self.waiting().as_mut().is_some_and(|Waiting { settlings, queues }| {
            settlings.push(settling);
            !std::mem::replace(&mut queues[queue as usize], true) || settlings.len() == MOST
        })
    }

    /// How many there are, and the queues that they come from.
    pub(super) fn present(&self) -> (usize, impl Iterator<Item = Queue> + Clone + use<>) {
        let (count, queues) =
            self.waiting().as_ref().map(|waiting| (waiting.settlings.len(), waiting.queues)).unwrap_or_default();
        (count, Queue::ALL.into_iter().filter(move |queue| queues[*queue as usize]))
    }

    /// Whether there is one with such a lease.
    pub(super) fn any(&self, is_such: impl Fn(&Lease) -> bool) -> bool {
        self.waiting().as_ref().is_some_and(|waiting| waiting.settlings.iter().any(|(lease, ..)| is_such(lease)))
    }

    /// All that there are.
    pub(super) fn take(&self) -> Vec<Settling> {
        self.waiting().as_mut().map(std::mem::take).unwrap_or_default().settlings
    }

    /// Nothing is written any more: whoever still waits for an answer sees that there will be none.
    pub(super) fn close(&self) {
        self.waiting().take();
    }

    fn waiting(&self) -> MutexGuard<'_, Option<Waiting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;
    use crate::job::JobId;

    /// One that waits for nothing else is not to wait as long as those that a long queue stands behind: the writer has to hear of it.
    #[test]
    fn the_writer_is_told_of_the_first_of_each_queue() {
        let company = Company::new();
        let join = |queue| {
            let lease = Lease { id: JobId::new(), token: 1 };
            company.join((lease, Arc::new(Settlement::Release { begun: false }), oneshot::channel().0), queue)
        };
        let told = [Queue::PythonProcesses, Queue::PythonProcesses, Queue::Async, Queue::Async, Queue::PythonProcesses].map(join);
        assert_eq!(told, [true, false, true, false, false]);
        let (count, queues) = company.present();
        assert_eq!((count, queues.collect::<Vec<_>>()), (5, vec![Queue::Async, Queue::PythonProcesses]));
        assert_eq!(company.take().len(), 5);
        assert_eq!(company.present().1.count(), 0);
        assert!(join(Queue::Async), "what was told of is taken");
    }
}
