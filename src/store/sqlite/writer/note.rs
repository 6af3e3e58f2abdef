//! What attempts say.

use std::collections::hash_map::Entry;

use super::super::events;
use super::Writer;
use super::batch::Batch;
use super::transaction::Done;
use crate::job::What;
use crate::store::StoreError;
use crate::store::kept::event::EventRow;
use crate::store::said::Said;

impl Writer {
    /// What attempts said, as rows: of each job only as much as is kept of it.
    pub(super) async fn note(&mut self, batch: &Batch, done: &mut Done) -> Result<Vec<EventRow>, StoreError> {
        let mut rows = Vec::with_capacity(batch.notes.len());
        let notes = batch.notes.iter().flat_map(|noted| noted.notes().map(|note| (noted.lease, note)));
        for (lease, note) in notes {
            let Some(held) = self.held.get(&lease.id).filter(|held| held.token == lease.token) else { continue };
            // It counts once it is committed.
            let said = match done.said.entry(lease.id) {
                Entry::Occupied(said) => said.into_mut(),
                Entry::Vacant(unknown) => unknown.insert(match held.said {
                    Some(said) => said,
                    // The first attempt has nothing before it.
                    None if held.attempt == 1 => Said::default(),
                    None => events::noted(&mut self.connection, lease.id).await?,
                }),
            };
            let Some(note) = said.next(note, self.limits) else { continue };
            let at = self.moments.next();
            rows.push(EventRow::note(at, lease.id, held.attempt, &note));
            done.tell(at, lease.id, || held.subject.clone(), || What::noted(held.attempt, note));
        }
        Ok(rows)
    }
}
