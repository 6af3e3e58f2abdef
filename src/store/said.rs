//! How much of what a job says is kept.

use std::borrow::Cow;

use crate::job::{LogStream, Note};

/// The most that is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct NoteLimits {
    pub(super) rows: u64,
    pub(super) bytes: u64,
}

/// How much a job has said.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Said {
    pub(super) rows: u64,
    pub(super) bytes: u64,
}

impl Said {
    /// What is kept of the next note: the note, in place of the last one that the rest is dropped, and then nothing.
    pub(super) fn next(&mut self, note: Cow<'_, Note>, limits: NoteLimits) -> Option<Note> {
        let NoteLimits { rows: most_rows, bytes: most_bytes } = limits;
        if self.rows >= most_rows {
            return None;
        }
        let bytes = self.bytes + note.bytes() as u64;
        if self.rows + 1 == most_rows || bytes > most_bytes {
            *self = Self { rows: u64::MAX, bytes };
            let end = format!("the rest is dropped: of each job {most_rows} lines or {most_bytes} bytes are kept");
            return Some(Note::log(LogStream::Stderr, end));
        }
        *self = Self { rows: self.rows + 1, bytes };
        Some(note.into_owned())
    }
}
