//! Comparisons.

use uuid::Uuid;

use super::{Cells, Row};
use crate::job::ComparisonId;
use crate::store::{Comparison, ComparisonEnd, ComparisonState, StoreError};

/// The columns in the order in which [`read`] reads them.
macro_rules! columns {
    () => {
        "id, owner, state, requested_at, started_at, finished_at, request, report, error"
    };
}
pub(in crate::store) use columns;

pub(in crate::store) const ADD: &str = concat!(
    "INSERT INTO comparisons (id, owner, state, requested_at, request) VALUES ($1, $2, $3, $4, $5) RETURNING ",
    columns!()
);
pub(in crate::store) const END: &str =
    "UPDATE comparisons SET state = $1, finished_at = $2, report = $3, error = $4 WHERE id = $5 AND state < 2";
/// What ended before a moment was asked for before it, so few others are looked at.
pub(in crate::store) const ENDED_BEFORE: &str =
    "SELECT id FROM comparisons WHERE id < $1 AND finished_at < $2 ORDER BY id LIMIT 1";
pub(in crate::store) const REMOVE: &str = "DELETE FROM comparisons WHERE id = $1 AND state > 1";
pub(in crate::store) const ONE: &str = concat!("SELECT ", columns!(), " FROM comparisons WHERE id = $1");
pub(in crate::store) const LATEST: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM comparisons WHERE ($1 IS NULL OR id < $1) AND ($2 IS NULL OR owner = $2) ORDER BY id DESC LIMIT $3"
);

/// An end as its columns have it: `state`, `report` and `error`.
pub(in crate::store) fn columns_of(end: &ComparisonEnd) -> (ComparisonState, Option<&str>, Option<&str>) {
    match end {
        ComparisonEnd::Finished(report) => (ComparisonState::Finished, Some(report.get()), None),
        ComparisonEnd::Failed(reason) => (ComparisonState::Failed, None, Some(reason.as_str())),
        ComparisonEnd::Cancelled => (ComparisonState::Cancelled, None, None),
    }
}

pub(in crate::store) fn read(row: &impl Row) -> Result<Comparison, StoreError> {
    let mut cells = Cells::new(row);
    Ok(Comparison {
        id: ComparisonId::from_bytes(cells.take::<Uuid>()?.into_bytes()),
        owner: cells.owner()?,
        state: cells.code()?,
        requested_at: cells.time()?,
        started_at: cells.time_or_none()?,
        finished_at: cells.time_or_none()?,
        request: cells.raw()?,
        report: cells.json()?,
        error: cells.take()?,
    })
}
