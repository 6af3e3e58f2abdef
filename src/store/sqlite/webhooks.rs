//! Deliveries, as the writer changes them and as they are read. They are made by the trigger `results_tell`.

use async_trait::async_trait;
use sqlx::{QueryBuilder, Sqlite, SqliteConnection};

use super::SqliteStore;
use super::codes::Code;
use crate::clock::Timestamp;
use crate::job::Owner;
use crate::store::kept::{Cells, LEFT, delivery, json, number};
use crate::store::{DeliveryFilter, MANY, StoreError, WebhookStore};
use crate::webhook::{Delivery, DeliveryAttempt, DueDelivery, Verdict};

/// What is due: from host to host by the index, so that many messages for one of them cost no more than a few. Left to itself, SQLite takes
/// another index, and sorts all that is pending for each host.
macro_rules! due {
    () => {
        concat!(
    "WITH RECURSIVE hosts (host) AS (\
     SELECT * FROM (SELECT host FROM deliveries INDEXED BY deliveries_due WHERE state = 0 ORDER BY host LIMIT 1) UNION ALL \
     SELECT (SELECT host FROM deliveries INDEXED BY deliveries_due WHERE state = 0 AND host > hosts.host ORDER BY host LIMIT 1) \
     FROM hosts WHERE host IS NOT NULL), \
     due (place, turn, at) AS (SELECT value ->> 0, key, value ->> 1 FROM hosts, json_each(\
     (SELECT json_group_array(json_array(place, due_at)) FROM (SELECT place, due_at FROM deliveries INDEXED BY deliveries_due \
     WHERE state = 0 AND host = hosts.host AND due_at <= ?1 ORDER BY due_at, place LIMIT ?2))) \
     WHERE hosts.host IS NOT NULL AND value ->> 0 NOT IN (SELECT value FROM json_each(?4)) \
     ORDER BY key, value ->> 1, value ->> 0 LIMIT ?3) SELECT ",
    delivery::columns!(),
    ", host, secret, tries FROM due CROSS JOIN deliveries USING (place) ORDER BY turn, at, place"
        )
    };
}

#[async_trait]
impl WebhookStore for SqliteStore {
    async fn due_deliveries(
        &self,
        now: Timestamp,
        (most, per_host): (usize, usize),
        on_their_way: &[i64],
    ) -> Result<Vec<DueDelivery>, StoreError> {
        let query = sqlx::query(due!()).bind(now.as_micros()).bind(number(per_host)).bind(number(most)).bind(json(on_their_way));
        let rows = query.fetch_all(&self.readers).await?;
        let (due, unread) = delivery::read_all_due(&rows, &self.unread)?;
        if !unread.is_empty() {
            self.leave_deliveries(&unread).await?;
        }
        Ok(due)
    }

    async fn leave_deliveries(&self, places: &[i64]) -> Result<(), StoreError> {
        let given = (self.clock.now().after(LEFT), json(places));
        self.edit(given, |(until, places), connection| Box::pin(leave(connection, *until, places))).await
    }

    async fn note_delivery(&self, read: &Delivery, attempt: DeliveryAttempt, verdict: Verdict) -> Result<(), StoreError> {
        let given = (read.id.clone(), read.due_at, attempt, verdict);
        self.edit(given, |(id, due_at, attempt, verdict), connection| Box::pin(note(connection, id, *due_at, attempt, *verdict)))
            .await
    }

    async fn pending_deliveries(&self) -> Result<u64, StoreError> {
        let row = sqlx::query(delivery::PENDING).bind(MANY.cast_signed()).fetch_one(&self.readers).await?;
        Cells::new(&row).number()
    }

    async fn deliveries(&self, filter: DeliveryFilter, before: Option<i64>, limit: usize) -> Result<Vec<Delivery>, StoreError> {
        let mut query = list(filter, before, limit);
        query.build().fetch_all(&self.readers).await?.iter().map(delivery::read).collect()
    }

    async fn redeliver(&self, id: &str, owner: Option<Owner>) -> Result<Option<Delivery>, StoreError> {
        let given = (self.clock.now(), id.to_owned(), owner);
        self.edit(given, |(now, id, owner), connection| Box::pin(again(connection, *now, id, *owner))).await
    }
}

fn list(filter: DeliveryFilter, before: Option<i64>, limit: usize) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::new(concat!("SELECT ", delivery::columns!(), " FROM deliveries WHERE place < "));
    query.push_bind(before.unwrap_or(i64::MAX));
    let DeliveryFilter { job, state, owner } = filter;
    if let Some(job) = job {
        query.push(" AND job = ").push_bind(job.as_bytes().to_vec());
    }
    // Those of a job are few; those of an owner may be, among those in a state.
    if let Some(owner) = owner {
        query.push(if job.is_some() { " AND +owner = " } else { " AND owner = " }).push_bind(owner.code());
    }
    if let Some(state) = state {
        query.push(if job.is_some() || owner.is_some() { " AND +state = " } else { " AND state = " }).push_bind(state.code());
    }
    query.push(" ORDER BY place DESC LIMIT ").push_bind(number(limit));
    query
}

async fn leave(connection: &mut SqliteConnection, until: Timestamp, places: &str) -> Result<(), StoreError> {
    let text = "UPDATE deliveries SET due_at = ? WHERE place IN (SELECT value FROM json_each(?)) AND state = 0";
    sqlx::query(text).bind(until.as_micros()).bind(places).execute(connection).await?;
    Ok(())
}

async fn note(
    connection: &mut SqliteConnection,
    id: &str,
    was_due_at: Timestamp,
    attempt: &DeliveryAttempt,
    verdict: Verdict,
) -> Result<(), StoreError> {
    let (state, due_at) = delivery::state_after(verdict);
    let text = "UPDATE deliveries SET log = json_insert(iif(json_array_length(log) < ?1, log, json_remove(log, '$[0]')), '$[#]', json(?2)) \
                WHERE id = ?3";
    let attempt = serde_json::to_string(attempt).map_err(|error| StoreError::Refused(error.to_string()))?;
    sqlx::query(text).bind(number(delivery::KEPT)).bind(attempt).bind(id).execute(&mut *connection).await?;
    // Meanwhile it may have come to be gone, with others, or been wanted again; if it was taken, that is what counts.
    let text = "UPDATE deliveries SET state = ?1, due_at = coalesce(?2, due_at), tries = tries + 1 \
                WHERE id = ?3 AND (state = 0 AND due_at = ?4 OR ?5)";
    let query = sqlx::query(text).bind(state.code()).bind(due_at.map(Timestamp::as_micros)).bind(id);
    query.bind(was_due_at.as_micros()).bind(verdict == Verdict::Delivered).execute(&mut *connection).await?;
    let mut ended = vec![id.to_owned()];
    if verdict == Verdict::Gone {
        let query = sqlx::query_scalar(delivery::give_up_others!("")).bind(state.code()).bind(id);
        ended.extend(query.fetch_all(&mut *connection).await?);
    }
    // Nothing else takes along what its job has left behind.
    let text = "DELETE FROM deliveries WHERE id IN (SELECT value FROM json_each(?)) AND state <> 0 \
                AND NOT EXISTS (SELECT 1 FROM results WHERE results.id = job) AND NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.id = job)";
    sqlx::query(text).bind(json(&ended)).execute(connection).await?;
    Ok(())
}

async fn again(
    connection: &mut SqliteConnection,
    now: Timestamp,
    id: &str,
    owner: Option<Owner>,
) -> Result<Option<Delivery>, StoreError> {
    if let Some(owner) = owner {
        let text = "SELECT EXISTS (SELECT 1 FROM deliveries WHERE id = ?1 AND owner = ?2)";
        let theirs: bool = sqlx::query_scalar(text).bind(id).bind(owner.code()).fetch_one(&mut *connection).await?;
        if !theirs {
            return Ok(None);
        }
    }
    let text = "UPDATE deliveries SET state = 0, due_at = ?, tries = 0 WHERE id = ?";
    sqlx::query(text).bind(now.as_micros()).bind(id).execute(&mut *connection).await?;
    let row = sqlx::query(delivery::ONE).bind(id).fetch_optional(connection).await?;
    row.as_ref().map(delivery::read).transpose()
}

#[cfg(test)]
mod tests {
    use sqlx::{Connection as _, Row as _};

    use super::*;
    use crate::job::JobId;
    use crate::webhook::DeliveryState;

    #[tokio::test]
    async fn what_is_due_is_found_from_host_to_host() {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        crate::store::migrations::SQLITE.run_direct(None, &mut connection, false).await.unwrap();
        let rows = sqlx::query(concat!("EXPLAIN QUERY PLAN ", due!())).bind(0).bind(8).bind(64).bind("[]");
        let rows = rows.fetch_all(&mut connection).await.unwrap();
        let mut plan: Vec<String> = rows.iter().map(|row| row.get::<String, _>("detail").replace("COVERING ", "")).collect();
        plan.retain(|step| step.contains("deliveries"));
        let by_host = "USING INDEX deliveries_due";
        assert_eq!(
            plan,
            [
                format!("SCAN deliveries {by_host}"),
                format!("SEARCH deliveries {by_host} (host>?)"),
                format!("SEARCH deliveries {by_host} (host=? AND due_at<?)"),
                "SEARCH deliveries USING INTEGER PRIMARY KEY (rowid=?)".to_owned(),
            ]
        );
    }

    #[tokio::test]
    async fn a_list_goes_through_what_is_fewest() {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        crate::store::migrations::SQLITE.run_direct(None, &mut connection, false).await.unwrap();
        let all = DeliveryFilter::default();
        let of_state = DeliveryFilter { state: Some(DeliveryState::Failed), ..all };
        let filters = [
            (all, "INTEGER PRIMARY KEY (rowid<?)"),
            (of_state, "INDEX deliveries_state (state=? AND place<?)"),
            (DeliveryFilter { owner: Owner::from_code(7), ..of_state }, "INDEX deliveries_owner (owner=? AND place<?)"),
            (
                DeliveryFilter { owner: Owner::from_code(7), job: Some(JobId::new()), ..of_state },
                "INDEX deliveries_job (job=? AND rowid<?)",
            ),
        ];
        for (filter, found_by) in filters {
            let mut explained = QueryBuilder::<Sqlite>::new("EXPLAIN QUERY PLAN ");
            explained.push(list(filter, None, 10).sql().as_str());
            let rows = explained.build().fetch_all(&mut connection).await.unwrap();
            let plan: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
            assert_eq!(plan, [format!("SEARCH deliveries USING {found_by}")]);
        }
    }
}
