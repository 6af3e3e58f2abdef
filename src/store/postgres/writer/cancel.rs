//! Cancellations, and how many jobs of an owner may run at once.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::lanes;
use super::super::moves;
use super::Writer;
use super::transaction::Done;
use crate::job::{Ending, Failure, JobId, Owner};
use crate::store::kept::edge::Doom;
use crate::store::kept::state::{RUNNING, codes_of_any};
use crate::store::{Cancelled, Lease, StateFilter, StoreError};

impl Writer {
    /// Ends those of these jobs that wait, and marks those that run, on whichever node; only those that are still there, if `only` says
    /// where.
    pub(super) async fn cancel(&mut self, ids: &[JobId], only: &[StateFilter], done: &mut Done) -> Result<Cancelled, StoreError> {
        let mut places = moves::places(&mut self.connection, ids).await?;
        let only_codes = codes_of_any(only);
        places.retain(|place| only.is_empty() || only_codes.contains(&place.state));
        let (running, waiting): (Vec<_>, Vec<_>) = places.into_iter().partition(|place| place.state == RUNNING);
        let lease = |place: &moves::Place| Some(Lease { id: place.id, token: place.token? });
        let stopping: Vec<Lease> = running.iter().filter_map(lease).collect();
        if !running.is_empty() {
            let ids: Vec<JobId> = running.iter().map(|place| place.id).collect();
            moves::stop(&mut self.connection, &ids).await?;
            let me = self.me(done);
            done.shared.stops += u64::from(running.iter().any(|place| place.node != Some(me)));
        }
        let doom = |place: moves::Place| Doom { id: place.id, ending: Ending::Cancelled, failure: Failure::cancelled() };
        let ended = self.end(waiting.into_iter().map(doom).collect(), None, done).await?;
        Ok(Cancelled { ended, stopping })
    }

    /// Goes by these numbers from here on. Lanes that were shut by lower ones open.
    pub(super) async fn allow(&mut self, running: &HashMap<Owner, u32>, done: &mut Done) -> Result<(), StoreError> {
        if self.allowed.is_some() {
            done.shared.reopens.note(&done.allowed, running);
        } else {
            // By which ones they were shut before this node came is not known.
            let owners = lanes::over_quota(&mut self.connection).await?;
            done.shared.reopens.look_again(owners.into_iter(), running);
        }
        done.allowed = Arc::new(running.clone());
        Ok(())
    }
}
