//! Profiles.

use super::{Cells, Row};
use crate::job::ProfileKey;
use crate::store::{ProfileRow, StoreError};

/// From `key, version, changed_at, figures, sketches`.
pub(in crate::store) fn read(row: &impl Row) -> Result<ProfileRow, StoreError> {
    let mut cells = Cells::new(row);
    Ok(ProfileRow {
        key: ProfileKey::from(cells.take::<String>()?),
        version: cells.take()?,
        changed_at: cells.time()?,
        figures: cells.take()?,
        sketches: cells.take()?,
    })
}
