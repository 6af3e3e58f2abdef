//! What attempts say.

use super::super::events::{self, EventRow};
use super::Writer;
use super::batch::Batch;
use super::held::Said;
use super::transaction::Done;
use crate::job::{LogStream, Note, What};
use crate::store::StoreError;

/// How much of what a job says is kept.
#[derive(Clone, Copy, Debug)]
pub(in crate::store::sqlite) struct NoteLimits {
    pub(in crate::store::sqlite) rows: u64,
    pub(in crate::store::sqlite) bytes: u64,
}

impl Writer {
    /// What attempts said, as rows: of each job only as much as is kept of it.
    pub(super) async fn note(&mut self, batch: &Batch, done: &mut Done) -> Result<Vec<EventRow>, StoreError> {
        let mut rows = Vec::with_capacity(batch.notes.len());
        let notes = batch.notes.iter().flat_map(|noted| noted.notes().map(|note| (noted.lease, note)));
        for (lease, note) in notes {
            let Some(held) = self.held.get_mut(&lease.id).filter(|held| held.token == lease.token) else { continue };
            let said = match &mut held.said {
                Some(said) => said,
                // The first attempt has nothing before it.
                unknown if held.attempt == 1 => unknown.insert(Said { rows: 0, bytes: 0 }),
                unknown => {
                    let (rows, bytes) = events::noted(&mut self.connection, lease.id).await?;
                    unknown.insert(Said { rows, bytes })
                }
            };
            let NoteLimits { rows: most_rows, bytes: most_bytes } = self.limits;
            if said.rows >= most_rows {
                continue;
            }
            let bytes = said.bytes + note.bytes() as u64;
            let last = said.rows + 1 == most_rows || bytes > most_bytes;
            let note = if last {
                let end = format!("the rest is dropped: of each job {most_rows} lines or {most_bytes} bytes are kept");
                Note::log(LogStream::Stderr, end)
            } else {
                note.into_owned()
            };
            *said = if last { Said { rows: u64::MAX, bytes } } else { Said { rows: said.rows + 1, bytes } };
            let at = self.moments.next();
            rows.push(EventRow::note(at, lease.id, held.attempt, &note));
            done.tell(at, lease.id, || held.subject.clone(), || What::noted(held.attempt, note));
        }
        Ok(rows)
    }
}
