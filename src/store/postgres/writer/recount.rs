//! What all nodes go by, made anew from the tables: when a node comes and there is no other, so that nothing that went wrong once stays so.

use sqlx::PgConnection;

use super::super::rows::Cells;
use super::super::{lanes, moves};
use super::Writer;
use super::transaction::Done;
use crate::store::StoreError;

impl Writer {
    pub(super) async fn recount(&mut self, done: &mut Done) -> Result<(), StoreError> {
        done.shared.recount(counts(&mut self.connection).await?);
        (done.shared.next_due, done.shared.next_expiry) = moves::next(&mut self.connection).await?;
        done.shared.next_open = lanes::next_open(&mut self.connection).await?;
        lanes::reopen(&mut self.connection).await?;
        done.shared.clear_places();
        for (queue, place) in lanes::open_places(&mut self.connection).await? {
            done.shared.set_open(queue, &place, true);
        }
        let releases: i64 = sqlx::query_scalar("SELECT count(*) FROM releases").fetch_one(&mut *self.connection).await?;
        done.shared.releases = u64::try_from(releases).unwrap_or(0);
        Ok(())
    }
}

/// How many jobs are in each state, by queue.
async fn counts(connection: &mut PgConnection) -> Result<Vec<(u8, i16, u64)>, StoreError> {
    let text = "SELECT queue, state, count(*) FROM work GROUP BY queue, state";
    let rows = sqlx::query(text).fetch_all(connection).await?;
    rows.iter()
        .map(|row| {
            let mut cells = Cells::new(row);
            Ok((cells.queue_number()?, cells.take()?, cells.number()?))
        })
        .collect()
}
