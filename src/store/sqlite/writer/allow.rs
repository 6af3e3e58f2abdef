//! How many jobs of an owner may run at once.

use std::collections::HashMap;

use super::super::lanes;
use super::Writer;
use crate::job::Owner;
use crate::store::StoreError;

impl Writer {
    /// Goes by these numbers from here on. Lanes that were shut by the ones before are looked at again.
    pub(super) async fn allow(&mut self, running: &HashMap<Owner, u32>) -> Result<(), StoreError> {
        self.allowed.clone_from(running);
        for queue in lanes::reopen(&mut self.connection).await? {
            self.lanes.open[queue as usize] = true;
            self.fronts.clear(queue);
        }
        Ok(())
    }
}
