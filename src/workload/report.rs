//! What an attempt says while it runs: how far it is, and lines of log.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use serde::Serialize;

use crate::job::{LogStream, Note};
use crate::outbound::Room;

/// The shortest time between two progresses of native work, and the most that it is shorter than all the time before.
const PACE: (Duration, u32) = (Duration::from_millis(100), 100);

/// Takes what one attempt says.
pub trait Sink: Send + Sync {
    /// Takes a note if there is room for it; what is missing is told of later.
    fn offer(&self, note: Note);

    /// Takes a note once there is room for it.
    fn note(&self, note: Note) -> BoxFuture<'_, ()>;

    /// Keeps what the attempt's output takes up until that is recorded, if it is recorded here.
    fn keep(&self, room: Room) {
        drop(room);
    }
}

/// How one attempt tells the world of itself; the default tells nobody. Clones tell of the same attempt.
///
/// Nothing here blocks: not in async code, not in a blocking call.
#[derive(Clone, Default)]
pub struct Reporter(Option<Arc<dyn Sink>>);

impl Reporter {
    /// Tells `sink`.
    pub fn new(sink: Arc<dyn Sink>) -> Self {
        Self(Some(sink))
    }

    /// How far the attempt is: any value that is at most 4 KiB of JSON; a longer one is not told.
    pub fn progress(&self, value: &(impl Serialize + ?Sized)) {
        if let (Some(sink), Some(note)) = (&self.0, Note::progress(value)) {
            sink.offer(note);
        }
    }

    /// A line that the attempt wrote. If lines come faster than they can be written, some are dropped and their number is told.
    pub fn log(&self, stream: LogStream, line: impl Into<String>) {
        if let Some(sink) = &self.0 {
            sink.offer(Note::log(stream, line));
        }
    }

    /// The attempt's output takes up this room until it is recorded.
    pub fn keep(&self, room: Room) {
        if let Some(sink) = &self.0 {
            sink.keep(room);
        }
    }

    /// Either of them; waits while there is no room, so that whoever awaits it can go no faster than the store. Drops nothing.
    pub async fn note(&self, note: Note) {
        if let Some(sink) = &self.0 {
            sink.note(note).await;
        }
    }

    /// The same, but waits no longer than until something else is more urgent: what there is no room for then is dropped and counted.
    pub async fn note_until(&self, note: Note, urgent: impl Future) {
        let Some(sink) = &self.0 else { return };
        tokio::select! {
            biased;
            () = sink.note(note.clone()) => {}
            _ = urgent => sink.offer(note),
        }
    }
}

impl fmt::Debug for Reporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reporter").field(&self.0.is_some()).finish()
    }
}

/// When to tell of progress: ten times a second at first, less often the longer it takes, so that a day of it is a thousand times.
#[derive(Debug)]
pub struct Pace {
    began: Instant,
    next: Instant,
}

impl Pace {
    /// Begins now. Work that is over at once tells nothing.
    pub fn start() -> Self {
        let began = Instant::now();
        Self { began, next: began + PACE.0 }
    }

    /// Whether it is time again. Costs a look at the clock.
    pub fn is_due(&mut self) -> bool {
        let now = Instant::now();
        let due = now >= self.next;
        if due {
            self.next = now + PACE.0.max((now - self.began) / PACE.1);
        }
        due
    }
}
