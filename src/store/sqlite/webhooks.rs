//! Deliveries, as the writer changes them and as they are read. They are made by a trigger: see the migration.

use async_trait::async_trait;
use sqlx::{QueryBuilder, Sqlite, SqliteConnection};

use super::SqliteStore;
use super::codes::Code;
use crate::clock::Timestamp;
use crate::job::Owner;
use crate::store::kept::{delivery, number};
use crate::store::{DeliveryFilter, StoreError, WebhookStore};
use crate::webhook::{Delivery, DeliveryAttempt, DueDelivery, Verdict};

#[async_trait]
impl WebhookStore for SqliteStore {
    async fn due_deliveries(&self, now: Timestamp, per_host: usize) -> Result<Vec<DueDelivery>, StoreError> {
        // From host to host by the index, so that many messages for one of them cost no more than a few.
        let text = concat!(
            "WITH RECURSIVE hosts (host) AS (SELECT min(host) FROM deliveries WHERE state = 0 UNION ALL \
             SELECT (SELECT min(host) FROM deliveries WHERE state = 0 AND host > hosts.host) FROM hosts WHERE host IS NOT NULL) \
             SELECT ",
            delivery::columns!(),
            ", host, secret, tries FROM deliveries WHERE place IN (SELECT due.value FROM hosts, json_each(\
             (SELECT json_group_array(place) FROM (SELECT place FROM deliveries WHERE state = 0 AND host = hosts.host \
             AND due_at <= ?1 ORDER BY due_at LIMIT ?2))) AS due WHERE hosts.host IS NOT NULL) ORDER BY due_at"
        );
        let query = sqlx::query(text).bind(now.as_micros()).bind(number(per_host));
        let rows = query.fetch_all(&self.readers).await?;
        rows.iter().map(delivery::read_due).collect()
    }

    async fn note_delivery(&self, id: &str, attempt: DeliveryAttempt, verdict: Verdict) -> Result<(), StoreError> {
        let given = (id.to_owned(), attempt, verdict);
        self.edit(given, |(id, attempt, verdict), connection| Box::pin(note(connection, id, attempt, *verdict))).await
    }

    async fn deliveries(&self, filter: DeliveryFilter, before: Option<i64>, limit: usize) -> Result<Vec<Delivery>, StoreError> {
        let mut query = QueryBuilder::<Sqlite>::new(concat!("SELECT ", delivery::columns!(), " FROM deliveries WHERE place < "));
        query.push_bind(before.unwrap_or(i64::MAX));
        if let Some(owner) = filter.owner {
            // While a job is run again, it is not among the results.
            for (start, table) in [(" AND (EXISTS", "results"), (" OR EXISTS", "jobs")] {
                query
                    .push(format!("{start} (SELECT 1 FROM {table} AS t WHERE t.id = job AND t.owner = "))
                    .push_bind(owner.code())
                    .push(")");
            }
            query.push(")");
        }
        if let Some(job) = filter.job {
            query.push(" AND job = ").push_bind(job.as_bytes().to_vec());
        }
        if let Some(state) = filter.state {
            // Those of a job are few; those in a state need not be.
            query.push(if filter.job.is_some() { " AND +state = " } else { " AND state = " }).push_bind(state.code());
        }
        query.push(" ORDER BY place DESC LIMIT ").push_bind(number(limit));
        query.build().fetch_all(&self.readers).await?.iter().map(delivery::read).collect()
    }

    async fn redeliver(&self, id: &str, owner: Option<Owner>) -> Result<Option<Delivery>, StoreError> {
        self.edit((id.to_owned(), owner), |(id, owner), connection| Box::pin(again(connection, id, *owner))).await
    }
}

async fn note(
    connection: &mut SqliteConnection,
    id: &str,
    attempt: &DeliveryAttempt,
    verdict: Verdict,
) -> Result<(), StoreError> {
    let (state, due_at) = delivery::state_after(verdict);
    let text = "UPDATE deliveries SET state = ?1, due_at = coalesce(?2, due_at), tries = tries + 1, \
                log = json_insert(iif(json_array_length(log) < ?3, log, json_remove(log, '$[0]')), '$[#]', json(?4)) WHERE id = ?5";
    let query = sqlx::query(text).bind(state.code()).bind(due_at.map(Timestamp::as_micros));
    let attempt = serde_json::to_string(attempt).map_err(|error| StoreError::Refused(error.to_string()))?;
    query.bind(number(delivery::KEPT)).bind(attempt).bind(id).execute(&mut *connection).await?;
    if verdict == Verdict::Gone {
        sqlx::query(delivery::give_up_others!("")).bind(state.code()).bind(id).execute(connection).await?;
    }
    Ok(())
}

async fn again(connection: &mut SqliteConnection, id: &str, owner: Option<Owner>) -> Result<Option<Delivery>, StoreError> {
    if let Some(owner) = owner {
        let text = "SELECT EXISTS (SELECT 1 FROM deliveries AS d WHERE d.id = ?1 AND (\
                    EXISTS (SELECT 1 FROM results AS t WHERE t.id = d.job AND t.owner = ?2) OR \
                    EXISTS (SELECT 1 FROM jobs AS t WHERE t.id = d.job AND t.owner = ?2)))";
        let theirs: bool = sqlx::query_scalar(text).bind(id).bind(owner.code()).fetch_one(&mut *connection).await?;
        if !theirs {
            return Ok(None);
        }
    }
    let text = "UPDATE deliveries SET state = 0, due_at = ?, tries = 0 WHERE id = ? AND state <> 0";
    sqlx::query(text).bind(Timestamp::now().as_micros()).bind(id).execute(&mut *connection).await?;
    let row = sqlx::query(delivery::ONE).bind(id).fetch_optional(connection).await?;
    row.as_ref().map(delivery::read).transpose()
}
