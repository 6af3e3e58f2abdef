//! Registered functions.

use std::time::Duration;

use super::{Cells, Row};
use crate::function::{Defaults, Function};
use crate::store::StoreError;

/// The columns without the content, in the order in which [`read`] reads them.
macro_rules! columns {
    () => {
        "name, version, created_at, deployed_at, kind, bytes, entrypoint, form, interpreter, bound, choice, deadline_ms, limits"
    };
}
pub(in crate::store) use columns;

pub(in crate::store) const ALL: &str = concat!("SELECT ", columns!(), " FROM functions ORDER BY name, deployed_at DESC");
pub(in crate::store) const CONTENT: &str = "SELECT content FROM functions WHERE name = $1 AND version = $2";
pub(in crate::store) const REMOVE: &str = "DELETE FROM functions WHERE name = $1";

pub(in crate::store) fn read(row: &impl Row) -> Result<Function, StoreError> {
    let mut cells = Cells::new(row);
    Ok(Function {
        name: cells.take()?,
        version: cells.take()?,
        created_at: cells.time()?,
        deployed_at: cells.time()?,
        kind: cells.code()?,
        bytes: cells.number()?,
        entrypoint: cells.take()?,
        form: cells.code()?,
        interpreter: cells.take()?,
        defaults: Defaults {
            bound: cells.code_or_none()?,
            executor: cells.code()?,
            deadline: cells
                .take::<Option<i64>>()?
                .map(|ms| u64::try_from(ms).map_err(|_| StoreError::Corrupt(format!("a deadline of {ms} ms"))))
                .transpose()?
                .map(Duration::from_millis),
        },
        limits: cells.json()?.unwrap_or_default(),
    })
}
