//! Messages of webhooks.

use super::{Cells, Row, Unread, corrupt};
use crate::clock::Timestamp;
use crate::job::Secret;
use crate::store::StoreError;
use crate::webhook::{Delivery, DeliveryState, DueDelivery, Verdict};

/// How many attempts are kept of one delivery.
pub(in crate::store) const KEPT: usize = 50;

/// The columns in the order in which [`read`] reads them.
macro_rules! columns {
    () => {
        "place, id, job, ending, finished_at, url, state, due_at, log"
    };
}
pub(in crate::store) use columns;

/// What becomes of others to the same place, if it is gone: of so many that nobody has to wait for long. The next one hears the same.
macro_rules! give_up_others {
    ($lock:literal) => {
        concat!(
            "UPDATE deliveries SET state = $1 WHERE state = 0 AND place IN (SELECT place FROM deliveries \
             WHERE state = 0 AND url = (SELECT url FROM deliveries WHERE id = $2) LIMIT 1000",
            $lock,
            ") RETURNING id"
        )
    };
}
pub(in crate::store) use give_up_others;
pub(in crate::store) const PENDING: &str = "SELECT count(*) FROM (SELECT 1 FROM deliveries WHERE state = 0 LIMIT $1) AS several";
pub(in crate::store) const ONE: &str = concat!("SELECT ", columns!(), " FROM deliveries WHERE id = $1");

/// Where a delivery is after an attempt, and when it is tried again.
pub(in crate::store) const fn state_after(verdict: Verdict) -> (DeliveryState, Option<Timestamp>) {
    match verdict {
        Verdict::Delivered => (DeliveryState::Delivered, None),
        Verdict::Again(due_at) => (DeliveryState::Pending, Some(due_at)),
        Verdict::GivenUp => (DeliveryState::Failed, None),
        Verdict::Gone => (DeliveryState::Gone, None),
    }
}

pub(in crate::store) fn read(row: &impl Row) -> Result<Delivery, StoreError> {
    delivery(&mut Cells::new(row))
}

/// Those that are due, and the places of those that this program can't read. With `host, secret, tries` behind the columns.
pub(in crate::store) fn read_all_due(rows: &[impl Row], unread: &Unread) -> Result<(Vec<DueDelivery>, Vec<i64>), StoreError> {
    let (mut due, mut places) = (Vec::with_capacity(rows.len()), Vec::new());
    for row in rows {
        match unread.leave_out("a message", read_due(row))? {
            Some(delivery) => due.push(delivery),
            None => places.push(Cells::new(row).take()?),
        }
    }
    Ok((due, places))
}

fn read_due(row: &impl Row) -> Result<DueDelivery, StoreError> {
    let mut cells = Cells::new(row);
    let (delivery, host) = (delivery(&mut cells)?, cells.take()?);
    let secret = cells.take::<Option<&str>>()?.map(str::parse::<Secret>).transpose();
    let secret = secret.map_err(|error| StoreError::Corrupt(format!("the secret of {}: {error}", delivery.id)))?;
    Ok(DueDelivery { delivery, host, secret, tries: cells.number()? })
}

fn delivery(cells: &mut Cells<'_, impl Row>) -> Result<Delivery, StoreError> {
    Ok(Delivery {
        place: cells.take()?,
        id: cells.take()?,
        job: cells.id()?,
        ending: cells.code()?,
        finished_at: cells.time()?,
        url: cells.take()?,
        state: cells.code()?,
        due_at: cells.time()?,
        attempts: serde_json::from_str(cells.take()?).map_err(corrupt)?,
    })
}
