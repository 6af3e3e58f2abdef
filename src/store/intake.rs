//! The way of what attempts say to the writer: bounded, and never in the way of an event loop.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::Lease;
use crate::job::Note;

/// How much may wait for the writer, in units: at most half as many notes as there is room for commands.
const UNITS: usize = 4_096;
/// Bytes of one unit; a note takes at least one.
const UNIT: usize = 4 << 10;

/// A note on its way, with the room that it takes up.
pub(super) struct Noted {
    pub(super) lease: Lease,
    /// How many notes before it found no room.
    missing: u64,
    note: Note,
    _room: OwnedSemaphorePermit,
}

impl Noted {
    /// What is to be written: the note and, before it, how many are missing.
    pub(super) fn notes(&self) -> impl Iterator<Item = Cow<'_, Note>> {
        let missing = (self.missing > 0).then(|| Cow::Owned(Note::missing(self.missing)));
        missing.into_iter().chain([Cow::Borrowed(&self.note)])
    }
}

/// Hands notes to the writer, as commands among others, as long as there is room for them.
pub(super) struct Intake<C> {
    commands: mpsc::Sender<C>,
    room: Arc<Semaphore>,
    /// How many notes of which attempts found no room.
    missing: Mutex<HashMap<Lease, u64>>,
    any_missing: AtomicBool,
}

impl<C: From<Noted>> Intake<C> {
    pub(super) fn new(commands: mpsc::Sender<C>) -> Self {
        let room = Arc::new(Semaphore::new(UNITS));
        Self { commands, room, missing: Mutex::default(), any_missing: AtomicBool::new(false) }
    }

    /// Waits for room.
    pub(super) async fn note(&self, lease: Lease, note: Note) {
        // Nobody closes the semaphore; and a store that is shut takes no notes.
        if let Ok(room) = Arc::clone(&self.room).acquire_many_owned(units(&note)).await
            && let Ok(place) = self.commands.reserve().await
        {
            // Whoever waits for room may be dropped before.
            let missing = self.take_missing(lease);
            place.send(Noted { lease, missing, note, _room: room }.into());
        }
    }

    /// Counts what there is no room for.
    pub(super) fn offer(&self, lease: Lease, note: Note) {
        let missing = self.take_missing(lease);
        let room = Arc::clone(&self.room).try_acquire_many_owned(units(&note));
        let noted = room.map(|room| C::from(Noted { lease, missing, note, _room: room }));
        if noted.is_err() || noted.is_ok_and(|noted| self.commands.try_send(noted).is_err()) {
            *self.missing().entry(lease).or_default() += missing + 1;
            self.any_missing.store(true, Ordering::Relaxed);
        }
    }

    /// Whether all that was said is written.
    pub(super) fn is_empty(&self) -> bool {
        self.room.available_permits() == UNITS
    }

    /// The attempt says nothing more: if its last notes found no room, that is said.
    pub(super) async fn end(&self, lease: Lease) {
        let count = self.take_missing(lease);
        if count > 0 {
            self.note(lease, Note::missing(count)).await;
        }
    }

    fn take_missing(&self, lease: Lease) -> u64 {
        if !self.any_missing.load(Ordering::Relaxed) {
            return 0;
        }
        let mut missing = self.missing();
        let count = missing.remove(&lease).unwrap_or_default();
        self.any_missing.store(!missing.is_empty(), Ordering::Relaxed);
        count
    }

    fn missing(&self) -> MutexGuard<'_, HashMap<Lease, u64>> {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn units(note: &Note) -> u32 {
    u32::try_from(note.bytes().div_ceil(UNIT).max(1)).unwrap_or(u32::MAX)
}
