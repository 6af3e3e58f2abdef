//! The calls that a host works on, and what becomes of them when it says so or is gone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot, watch};

use super::protocol::Done;
use crate::clock::Monotonic;
use crate::executor::slots::Slot;
use crate::job::{FailureKind, Note};
use crate::workload::Reporter;

/// For how long it may not have been seen at the most that a limit is exceeded.
const UNSEEN: Duration = Duration::from_secs(2);

/// A host that is gone, with what became of it.
#[derive(Clone, Debug)]
pub(super) struct Gone {
    /// Whether the job itself is at fault, because it exceeded a limit, or the host died for a reason that is not known.
    pub(super) kind: FailureKind,
    /// Said of the process.
    pub(super) how: String,
    /// Nobody ended it.
    pub(super) by_itself: bool,
    /// What was too much may have been left by a call that had ended.
    pub(super) may_be_left: bool,
}

/// Why the host says nothing of a call.
#[derive(Debug)]
pub(super) enum Unsaid {
    /// It is gone.
    Gone(Gone),
    /// The call stood behind another one, and has not begun.
    Returned,
}

/// How a call ended: what the host says of it, or why it says nothing.
pub(super) type Ended = Result<Box<Done>, Unsaid>;

/// What is being worked on.
#[derive(Debug)]
pub(super) struct Calls {
    /// Whether the host makes one call after the other, in the order in which they were sent.
    in_order: bool,
    state: Mutex<State>,
    /// Told when there is one fewer.
    pub(super) fewer: Notify,
    /// Told when the host says that it hears.
    pub(super) heard: Notify,
    /// How many were told to stop and are waited for.
    stopping: watch::Sender<usize>,
}

/// That a call was told to stop and is waited for, until this is dropped.
pub(super) struct Stopping<'a>(&'a Calls);

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.stopping.send_modify(|calls| *calls -= 1);
    }
}

#[derive(Debug, Default)]
struct State {
    open: HashMap<u64, Call>,
    /// How many were sent.
    sent: u64,
    /// When the turn of the call came that is being made, where they are made in order.
    since: Option<Monotonic>,
    /// The last one has left something behind: the next one that is made is one that was sent after that, and not behind it.
    is_left: bool,
    /// When the latest one ended.
    ended: Option<Monotonic>,
    /// What became of the host.
    gone: Option<Gone>,
}

/// A call that is being worked on.
#[derive(Debug)]
pub(super) struct Call {
    ended: oneshot::Sender<Ended>,
    reporter: Reporter,
    /// Free again when the host has really ended the call, whether or not somebody still waits for that.
    _slot: Arc<Slot>,
    /// Told when its turn comes, where calls are made in order.
    turn: Option<Arc<Notify>>,
    /// Whether it stands behind another call, or did.
    behind: bool,
    /// Where it stands among those that were sent.
    order: u64,
}

impl Call {
    /// One that tells `ended` how it ended; and `turn`, where calls are made in order, when its turn comes, whether or not it may stand behind
    /// another one.
    pub(super) fn new(
        ended: oneshot::Sender<Ended>,
        reporter: Reporter,
        slot: &Arc<Slot>,
        turn: Option<(&Arc<Notify>, bool)>,
    ) -> Self {
        let (turn, behind) = turn.map_or((None, false), |(turn, behind)| (Some(Arc::clone(turn)), behind));
        Self { ended, reporter, _slot: Arc::clone(slot), turn, behind, order: 0 }
    }
}

impl State {
    /// The turn of the next call has come, if there is one.
    fn next_turn(&mut self) {
        self.since = None;
        if let Some(next) = self.open.values().min_by_key(|call| call.order) {
            self.since = Some(Monotonic::now());
            next.turn.as_ref().inspect(|turn| turn.notify_one());
        }
    }
}

impl Calls {
    pub(super) fn new(in_order: bool) -> Self {
        let (fewer, heard, stopping) = (Notify::new(), Notify::new(), watch::Sender::default());
        Self { in_order, state: Mutex::default(), fewer, heard, stopping }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a call and has it sent, unless it can't be made any more.
    pub(super) fn begin(&self, id: u64, call: Call, send: impl FnOnce()) {
        let mut state = self.state();
        if let Some(gone) = &state.gone {
            let _ = call.ended.send(Err(if call.behind { Unsaid::Returned } else { Unsaid::Gone(gone.clone()) }));
            return;
        }
        if call.behind && state.is_left {
            let _ = call.ended.send(Err(Unsaid::Returned));
            return;
        }
        state.is_left = false;
        state.sent += 1;
        let order = state.sent;
        state.open.insert(id, Call { order, ..call });
        if self.in_order {
            if state.open.len() == 1 {
                state.next_turn();
            }
            // Before any other one is: their order is the host's.
            send();
        } else {
            drop(state);
            send();
        }
    }

    pub(super) fn reporter(&self, id: u64) -> Option<Reporter> {
        self.state().open.get(&id).map(|call| call.reporter.clone())
    }

    /// Whether a call can come back. One of which the host was not told that it stands behind others can't: it is no host that says so, but a
    /// job that would begin once more, with all the time that it may take.
    pub(super) fn may_return(&self, id: u64) -> bool {
        self.state().open.get(&id).is_none_or(|call| call.behind)
    }

    /// A call has ended, or has come back without having begun.
    pub(super) fn end(&self, id: u64, ended: Ended) {
        let leaves = ended.as_ref().is_ok_and(|done| done.worn || done.artifacts);
        let (call, returned) = {
            let mut state = self.state();
            let Some(call) = state.open.remove(&id) else { return };
            state.ended = Some(Monotonic::now());
            let mut returned = HashMap::new();
            if self.in_order && state.open.values().all(|other| other.order > call.order) {
                if leaves {
                    state.is_left = true;
                    returned = std::mem::take(&mut state.open);
                }
                state.next_turn();
            }
            (call, returned)
        };
        // Nobody may be waiting for it any more.
        let _ = call.ended.send(ended);
        for (_, call) in returned {
            let _ = call.ended.send(Err(Unsaid::Returned));
        }
        self.fewer.notify_waiters();
    }

    pub(super) fn stopping(&self) -> Stopping<'_> {
        self.stopping.send_modify(|calls| *calls += 1);
        Stopping(self)
    }

    /// Tells a note of a call. Where the store has no room for it, the host waits; but not while a call has only so long to end, since
    /// its end comes behind the note.
    pub(super) async fn note(&self, id: u64, note: Note) {
        let Some(reporter) = self.reporter(id) else { return };
        let mut stopping = self.stopping.subscribe();
        reporter.note_until(note, stopping.wait_for(|calls| *calls > 0)).await;
    }

    /// Ends them all, and every later one. Of a host that makes one after the other, and of which all is known that it said, those behind
    /// the first have not begun.
    pub(super) fn end_all(&self, gone: &Gone, all_is_heard: bool) {
        let (open, one_has_ended) = {
            let mut state = self.state();
            let one_has_ended = state.ended.is_some_and(|at| Monotonic::now().since(at) < UNSEEN);
            // Those that come now have no part in it.
            state.gone = Some(Gone { kind: FailureKind::Lost, by_itself: false, ..gone.clone() });
            (std::mem::take(&mut state.open), one_has_ended)
        };
        let is_one = (open.len() < 2 && !(gone.may_be_left && one_has_ended)) || (self.in_order && all_is_heard);
        // Which of several has exceeded a limit is not known, nor whether it was one that has just ended.
        let gone = if is_one || gone.kind == FailureKind::Lost {
            gone
        } else {
            &Gone { kind: FailureKind::Lost, by_itself: true, ..gone.clone() }
        };
        let first = open.values().map(|call| call.order).min();
        for (_, call) in open {
            let is_behind = self.in_order && all_is_heard && Some(call.order) != first;
            let _ = call.ended.send(Err(if is_behind { Unsaid::Returned } else { Unsaid::Gone(gone.clone()) }));
        }
        self.fewer.notify_waiters();
    }

    /// What became of the host, if it is gone.
    pub(super) fn gone(&self) -> Option<Gone> {
        self.state().gone.clone()
    }

    pub(super) fn is_gone(&self) -> bool {
        self.state().gone.is_some()
    }

    /// How many there are.
    pub(super) fn open(&self) -> usize {
        self.state().open.len()
    }

    /// Whether this one stands behind another one.
    pub(super) fn is_behind(&self, id: u64) -> bool {
        let state = self.state();
        self.in_order && state.open.get(&id).is_some_and(|it| state.open.values().any(|call| call.order < it.order))
    }

    /// Whether nobody waits for any of them.
    pub(super) fn are_given_up(&self) -> bool {
        self.state().open.values().all(|call| call.ended.is_closed())
    }

    /// Whether one more may stand behind the others: the one that is being made has not taken longer than `most` yet, and nothing was left
    /// behind.
    pub(super) fn are_short(&self, most: Duration) -> bool {
        let state = self.state();
        !state.is_left && state.since.is_some_and(|since| Monotonic::now().since(since) < most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    /// A host's calls, and what became of those that were sent to it.
    struct Told {
        calls: Calls,
        ended: Vec<oneshot::Receiver<Ended>>,
        turns: Vec<Arc<Notify>>,
    }

    impl Told {
        fn new(in_order: bool) -> Self {
            Self { calls: Calls::new(in_order), ended: Vec::new(), turns: Vec::new() }
        }

        /// Sends the next ones, by whether they may stand behind others.
        fn send(&mut self, calls: &[bool]) {
            for &behind in calls {
                let ((report, ended), turn) = (oneshot::channel(), Arc::new(Notify::new()));
                let call = Call::new(report, Reporter::default(), &Arc::default(), Some((&turn, behind)));
                self.calls.begin(self.ended.len() as u64, call, || ());
                self.ended.push(ended);
                self.turns.push(turn);
            }
        }

        fn done(&self, id: u64, rest: &str) {
            let done: Done = serde_json::from_str(&format!("{{\"id\":{id},\"output\":null{rest}}}")).unwrap();
            self.calls.end(id, Ok(Box::new(done)));
        }

        /// A letter for each: it waits, is being made, is done, has come back, or was lost.
        fn seen(&mut self) -> String {
            let turns = self.turns.iter().map(|turn| turn.notified().now_or_never().map(|()| turn.notify_one()).is_some());
            let ended = self.ended.iter_mut().zip(turns.collect::<Vec<_>>());
            let letter = |(ended, turn): (&mut oneshot::Receiver<Ended>, bool)| match ended.try_recv() {
                Ok(Ok(_)) => 'd',
                Ok(Err(Unsaid::Returned)) => 'r',
                Ok(Err(Unsaid::Gone(_))) => 'l',
                Err(oneshot::error::TryRecvError::Empty) if turn => 'm',
                Err(oneshot::error::TryRecvError::Empty) => 'w',
                Err(oneshot::error::TryRecvError::Closed) => '-',
            };
            ended.map(letter).collect()
        }
    }

    fn gone() -> Gone {
        Gone { kind: FailureKind::Lost, how: "crashed".into(), by_itself: true, may_be_left: false }
    }

    fn three() -> Told {
        let mut told = Told::new(true);
        told.send(&[false, true, true]);
        told
    }

    #[test]
    fn one_after_the_other_has_its_turn() {
        let mut told = three();
        assert_eq!(told.seen(), "mww");
        assert!(told.calls.is_behind(1) && !told.calls.is_behind(0));
        told.done(0, "");
        assert_eq!(told.seen(), "dmw");
        // One that comes back has no effect on whose turn it is.
        told.calls.end(2, Err(Unsaid::Returned));
        assert_eq!(told.seen(), "-mr");
        told.send(&[true]);
        assert_eq!(told.seen(), "-m-w");
        // Unless it was its turn, as far as was known.
        told.calls.end(1, Err(Unsaid::Returned));
        assert_eq!(told.seen(), "-r-m");
        told.done(3, "");
        assert!(!told.calls.are_short(Duration::MAX), "none is being made");
    }

    #[test]
    fn only_what_was_sent_behind_another_one_can_come_back() {
        let mut told = three();
        assert!(!told.calls.may_return(0) && told.calls.may_return(1) && told.calls.may_return(2));
        told.done(0, "");
        assert!(told.calls.may_return(1), "it may have been on its way back");
        told.done(1, "");
        told.done(2, "");
        assert!(told.calls.may_return(2), "it has ended, which is nothing new");
        // The other one had ended as it was sent, which the host was not told.
        told.send(&[true, false]);
        assert!(told.calls.may_return(3) && !told.calls.may_return(4));
    }

    #[test]
    fn only_the_one_that_was_being_made_goes_with_the_host() {
        let mut told = three();
        told.done(0, "");
        told.calls.end_all(&gone(), true);
        assert_eq!(told.seen(), "dlr");
        // It is gone for those that come now; one that may stand behind another looks for another process.
        told.send(&[true, false]);
        assert_eq!(told.seen(), "---rl");
        let mut unheard = three();
        unheard.calls.end_all(&gone(), false);
        assert_eq!(unheard.seen(), "lll", "it may have begun any of them");
        let mut shared = Told::new(false);
        shared.send(&[false, false]);
        shared.calls.end_all(&gone(), true);
        assert_eq!(shared.seen(), "ll");
    }

    #[test]
    fn what_is_left_behind_is_met_only_by_what_is_sent_after_it() {
        for leaves in [",\"worn\":true", ",\"artifacts\":true"] {
            let mut told = three();
            told.done(0, leaves);
            assert_eq!(told.seen(), "drr");
            assert!(!told.calls.are_short(Duration::MAX));
            // It was on its way when that was heard.
            told.send(&[true]);
            assert_eq!(told.seen(), "---r");
            told.send(&[false, true]);
            assert_eq!(told.seen(), "----mw");
            assert!(told.calls.are_short(Duration::MAX) && !told.calls.are_short(Duration::ZERO));
        }
    }
}
