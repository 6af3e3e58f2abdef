//! The line before the processes: who gets one next, and who may stand behind a short call in the process that makes it.
//!
//! A process that has made a call would sleep until the server has heard of that and has sent the next one, which costs both of them more than
//! many a call. So where calls are short, the next ones for a process are sent to it while it is still busy. They have not begun: if the one
//! before them takes long after all, leaves something behind or ends the process, they come back and stand in the line again, in front.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use super::Key;
use super::host::Host;
use super::run::NoProcess;
use crate::executor::deadline::passed;
use crate::executor::pool::{Pool, Taken};
use crate::executor::slots::Slot;

/// How many calls may stand behind one.
pub(in crate::executor) const BEHIND: usize = 2;
/// None goes behind another that takes more bytes to send: they would be read, and kept, while that one is made.
const LITTLE: usize = 16 << 10;
/// None goes behind a call that runs for so long already.
const SHORT: Duration = Duration::from_millis(16);

/// The line. Clones are handles to the same one.
#[derive(Clone)]
pub(super) struct Line {
    shared: Arc<Shared>,
}

struct Shared {
    pool: Pool<Arc<Host>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Those that make calls.
    busy: Vec<Busy>,
    /// How many are about to be taken.
    rooms: usize,
    /// Those that wait, the first in front.
    waiting: VecDeque<Waiting>,
}

/// One that waits for its turn.
struct Waiting {
    wish: Wish,
    tell: oneshot::Sender<Turn>,
}

/// What a call wants.
#[derive(Clone)]
pub(super) struct Wish {
    /// Of which kind the process has to be.
    pub(super) key: Key,
    /// How many bytes are sent for it.
    pub(super) bytes: usize,
    /// It has come back, and stands in front.
    pub(super) is_back: bool,
    /// Its turn had come when it came back, as far as was known: it stands behind none any more.
    pub(super) had_turn: bool,
}

/// A process that makes calls.
struct Busy {
    taken: Taken<Arc<Host>>,
    /// How many have a place in it.
    places: usize,
    /// It can't be used again.
    spoiled: bool,
}

/// Whose turn it is.
enum Turn {
    /// To take a process.
    First(Room),
    /// To stand behind others.
    Behind(Place),
}

/// That a process may be taken, until this is dropped.
struct Room(Line);

/// The place of a call in a process. Unless it is well as this is dropped, the process is killed.
struct Place {
    line: Line,
    host: Arc<Host>,
    is_well: bool,
}

/// What a call has of a process, which is killed as this is dropped unless it is left.
pub(super) struct Seat {
    place: Place,
    /// Told when its turn comes.
    pub(super) turn: Arc<Notify>,
    /// Whether it stands behind another call, or did.
    pub(super) is_behind: bool,
}

impl Line {
    /// A line before the processes of a pool.
    pub(super) fn new(pool: Pool<Arc<Host>>) -> Self {
        Self { shared: Arc::new(Shared { pool, state: Mutex::default() }) }
    }

    /// Waits for a place in a process; for none if the call has stood in the line for as long as it may. `turn` is told when a process is there to
    /// be taken; behind another call, it is told later.
    ///
    /// # Errors
    /// None can be started, and it is one that not all jobs need: those of others must not wait for it.
    pub(super) async fn seat(&self, wish: &Wish, slot: &Arc<Slot>, turn: &Arc<Notify>) -> Result<Option<Seat>, NoProcess> {
        let pool = &self.shared.pool;
        let come = tokio::select! {
            biased;
            come = self.turn(wish) => come,
            () = passed(slot.patience()) => return Ok(None),
        };
        let (mut place, is_behind) = match come {
            Turn::Behind(place) => (place, true),
            Turn::First(room) => {
                turn.notify_one();
                let taken = if pool.settings().is_first(&wish.key) {
                    pool.take(&wish.key, slot).await
                } else {
                    pool.try_to_take(&wish.key, slot).await.map_err(|_| NoProcess)?
                };
                (self.first(room, taken), false)
            }
        };
        // Until now, nothing was sent.
        place.is_well = false;
        Ok(Some(Seat { place, turn: Arc::clone(turn), is_behind }))
    }

    async fn turn(&self, wish: &Wish) -> Turn {
        let turn = {
            let mut state = self.state();
            if (state.waiting.is_empty() || wish.is_back)
                && let Some(turn) = self.next_for(&mut state, wish)
            {
                return turn;
            }
            let (tell, turn) = oneshot::channel();
            let waiting = Waiting { wish: wish.clone(), tell };
            if wish.is_back {
                state.waiting.push_front(waiting);
            } else {
                state.waiting.push_back(waiting);
            }
            turn
        };
        match turn.await {
            Ok(turn) => turn,
            // It stays in the line until it is told, and the line lives as long as `self`.
            Err(_) => std::future::pending().await,
        }
    }

    /// What there is for a call, if there is something.
    fn next_for(&self, state: &mut State, wish: &Wish) -> Option<Turn> {
        let pool = &self.shared.pool;
        if state.busy.len() + state.rooms < pool.size() {
            state.rooms += 1;
            return Some(Turn::First(Room(self.clone())));
        }
        if wish.had_turn || wish.bytes > LITTLE {
            return None;
        }
        let short = state.busy.iter_mut().filter(|busy| {
            busy.places <= BEHIND && !busy.spoiled && busy.taken.worker.takes_one_behind(&wish.key, pool.settings(), SHORT)
        });
        let busy = short.min_by_key(|busy| busy.places)?;
        busy.places += 1;
        busy.taken.gets_another();
        Some(Turn::Behind(self.place(&busy.taken.worker)))
    }

    /// Tells those in front whose turn has come.
    fn serve(&self) {
        loop {
            let mut state = self.state();
            let Some(Waiting { wish, tell }) = state.waiting.pop_front() else { return };
            if tell.is_closed() {
                continue; // it does not wait any more
            }
            let Some(turn) = self.next_for(&mut state, &wish) else {
                state.waiting.push_front(Waiting { wish, tell });
                return;
            };
            // If it has gone just now, what it was given is dropped, which needs the lock.
            drop(state);
            drop(tell.send(turn));
        }
    }

    /// The first place in a process that was taken.
    fn first(&self, room: Room, taken: Taken<Arc<Host>>) -> Place {
        let place = self.place(&taken.worker);
        self.state().busy.push(Busy { taken, places: 1, spoiled: false });
        // It is counted itself from here on.
        drop(room);
        place
    }

    fn place(&self, host: &Arc<Host>) -> Place {
        Place { line: self.clone(), host: Arc::clone(host), is_well: true }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.0.state().rooms -= 1;
        self.0.serve();
    }
}

impl Seat {
    pub(super) fn host(&self) -> &Host {
        &self.place.host
    }

    /// Its call was sent: others may stand behind it.
    pub(super) fn is_sent(&self) {
        self.place.line.serve();
    }

    /// The process can be used again.
    pub(super) fn leave(mut self) {
        self.place.is_well = true;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.is_well {
            self.host.kill();
        }
        let empty = {
            let mut state = self.line.state();
            let Some(at) = state.busy.iter().position(|busy| Arc::ptr_eq(&busy.taken.worker, &self.host)) else { return };
            let busy = &mut state.busy[at];
            busy.places -= 1;
            busy.spoiled |= !self.is_well;
            (busy.places == 0).then(|| state.busy.swap_remove(at))
        };
        if let Some(Busy { taken, spoiled, .. }) = empty
            && !spoiled
        {
            taken.give_back();
        }
        self.line.serve();
    }
}
