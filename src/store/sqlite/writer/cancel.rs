//! Cancellations.

use super::super::moves;
use super::Writer;
use super::transaction::Done;
use crate::job::{Ending, Failure, JobId};
use crate::store::kept::edge::Doom;
use crate::store::kept::state::{RUNNING, codes_of_any};
use crate::store::{Cancelled, Lease, StateFilter, StoreError};

impl Writer {
    /// Ends those of these jobs that wait, and marks those that run; only those that are still there, if `only` says where.
    pub(super) async fn cancel(&mut self, ids: &[JobId], only: &[StateFilter], done: &mut Done) -> Result<Cancelled, StoreError> {
        let mut places = moves::places(&mut self.connection, ids).await?;
        let only_codes = codes_of_any(only);
        places.retain(|place| only.is_empty() || only_codes.contains(&place.state));
        let (running, waiting): (Vec<_>, Vec<_>) = places.into_iter().partition(|place| place.state == RUNNING);
        let lease = |id| self.held.get(&id).map(|held| Lease { id, token: held.token });
        let stopping: Vec<Lease> = running.iter().filter_map(|place| lease(place.id)).collect();
        if !running.is_empty() {
            let ids: Vec<JobId> = running.iter().map(|place| place.id).collect();
            moves::stop(&mut self.connection, &ids).await?;
            done.stopping.extend(ids);
        }
        let doom = |place: moves::Place| Doom { id: place.id, ending: Ending::Cancelled, failure: Failure::cancelled() };
        let ended = self.end(waiting.into_iter().map(doom).collect(), None, done).await?;
        Ok(Cancelled { ended, stopping })
    }
}
