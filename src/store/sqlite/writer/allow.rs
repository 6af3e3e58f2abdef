//! How many jobs of an owner may run at once.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::lanes;
use super::Writer;
use super::transaction::Done;
use crate::job::Owner;
use crate::store::StoreError;

impl Writer {
    /// Goes by these numbers from here on. Lanes that were shut by the ones before are looked at again.
    pub(super) async fn allow(&mut self, running: &HashMap<Owner, u32>, done: &mut Done) -> Result<(), StoreError> {
        // Whatever is changed of any key comes here, and lanes may be many.
        if *done.allowed == *running {
            return Ok(());
        }
        done.allowed = Arc::new(running.clone());
        for queue in lanes::open_over_quota(&mut self.connection).await? {
            self.lanes.open[queue as usize] = true;
            self.fronts.clear(queue);
        }
        Ok(())
    }
}
