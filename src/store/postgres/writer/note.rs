//! What attempts say.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::super::events;
use super::super::moves;
use super::Writer;
use super::batch::Batch;
use super::transaction::Done;
use crate::job::What;
use crate::store::kept::event::EventRow;
use crate::store::said::Said;
use crate::store::{Lease, StoreError};

impl Writer {
    /// Keeps what attempts said whose leases are valid: of each job only as much as is kept of it.
    pub(super) async fn note(&mut self, batch: &Batch, done: &mut Done) -> Result<(), StoreError> {
        if batch.notes.is_empty() {
            return Ok(());
        }
        let mut leases: Vec<Lease> = batch.notes.iter().map(|noted| noted.lease).collect();
        leases.sort_unstable_by_key(|lease| (lease.id, lease.token));
        leases.dedup();
        let held = moves::held(&mut self.connection, &leases).await?;
        let valid: HashMap<_, _> = leases
            .into_iter()
            .filter_map(|lease| Some((lease, held.iter().find(|held| held.id == lease.id && held.token == lease.token)?)))
            .collect();
        let mut rows = Vec::with_capacity(batch.notes.len());
        let notes = batch.notes.iter().flat_map(|noted| noted.notes().map(|note| (noted.lease, note)));
        for (lease, note) in notes {
            let Some(held) = valid.get(&lease) else { continue };
            // It counts once it is committed.
            let said = match done.said.entry(lease) {
                Entry::Occupied(said) => said.into_mut(),
                Entry::Vacant(unknown) => unknown.insert(match self.said.get(&lease) {
                    Some(said) => *said,
                    // The first attempt has nothing before it.
                    None if held.attempt == 1 => Said::default(),
                    None => events::noted(&mut self.connection, lease.id).await?,
                }),
            };
            let Some(note) = said.next(note, self.limits) else { continue };
            let at = done.moment();
            rows.push(EventRow::note(at, lease.id, held.attempt, &note));
            done.tell(at, lease.id, || held.known.subject.clone(), || What::noted(held.attempt, note));
        }
        self.keep_events(&rows).await
    }
}
