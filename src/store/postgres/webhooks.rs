//! Deliveries, as they are kept and read. They are made by the transactions that end jobs.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::value::{RawValue, to_raw_value};
use sqlx::{PgConnection, Postgres, QueryBuilder};

use super::rows::uuid;
use super::{PostgresStore, may_change};
use crate::clock::Timestamp;
use crate::job::{Ending, JobId, Owner, Secret, Webhook};
use crate::store::kept::{Cells, LEFT, code, corrupt, delivery, json, number};
use crate::store::{DeliveryFilter, MANY, StoreError, WebhookStore};
use crate::webhook::{Delivery, DeliveryAttempt, DueDelivery, Verdict};

/// How long a message that is to be sent is one node's, as long as that is there: longer than a receiver may take to answer.
const TAKEN: Duration = Duration::from_secs(120);

/// Whether this node may take a message: no other one sends it that is `there`, as long as nobody has taken what that ran.
macro_rules! is_free {
    () => {
        "taken_by IS NULL OR taken_by = $3 OR taken_until < clock_timestamp() OR taken_by <> ALL (ARRAY(SELECT id FROM there))"
    };
}

/// A message that is to be sent: of this job and its end.
pub(super) struct NewDelivery {
    pub(super) job: JobId,
    pub(super) owner: Option<Owner>,
    pub(super) ending: Ending,
    pub(super) finished_at: Timestamp,
    pub(super) webhook: Webhook,
}

/// Keeps messages, inside the transaction that ends their jobs. They are due at once by the clock, too: moments may be ahead of it.
pub(super) async fn insert(connection: &mut PgConnection, new: &[NewDelivery], now: Timestamp) -> Result<(), StoreError> {
    if new.is_empty() {
        return Ok(());
    }
    let text = "INSERT INTO deliveries (id, job, ending, finished_at, url, host, secret, due_at, owner) \
                SELECT 'msg_' || replace(gen_random_uuid()::TEXT, '-', ''), job, ending, finished_at, url, host, secret, least(finished_at, $8), owner \
                FROM unnest($1::UUID[], $2::SMALLINT[], $3::BIGINT[], $4::TEXT[], $5::TEXT[], $6::TEXT[], $7::BIGINT[]) \
                AS t(job, ending, finished_at, url, host, secret, owner)";
    sqlx::query(text)
        .bind(new.iter().map(|new| uuid(new.job)).collect::<Vec<_>>())
        .bind(new.iter().map(|new| code(new.ending)).collect::<Vec<_>>())
        .bind(new.iter().map(|new| new.finished_at.as_micros()).collect::<Vec<_>>())
        .bind(new.iter().map(|new| new.webhook.url.as_str()).collect::<Vec<_>>())
        .bind(new.iter().map(|new| new.webhook.host.as_str()).collect::<Vec<_>>())
        .bind(new.iter().map(|new| new.webhook.secret.as_ref().map(Secret::reveal)).collect::<Vec<_>>())
        .bind(new.iter().map(|new| new.owner.map_or(-1, Owner::code)).collect::<Vec<_>>())
        .bind(now.as_micros())
        .execute(connection)
        .await?;
    Ok(())
}

/// Notes whose messages are of which that is not known, as those of the version before. Whether there may be more.
pub(super) async fn note_owners(connection: &mut PgConnection) -> Result<bool, StoreError> {
    const MOST: u64 = 1_000;
    let text = "UPDATE deliveries SET owner = coalesce((SELECT jobs.owner FROM jobs WHERE jobs.id = job), -1) WHERE place IN \
                (SELECT place FROM deliveries WHERE owner IS NULL ORDER BY place LIMIT $1 FOR UPDATE SKIP LOCKED)";
    Ok(sqlx::query(text).bind(MOST.cast_signed()).execute(connection).await?.rows_affected() == MOST)
}

/// The deliveries before this place that a list holds, whosever they are.
fn list(query: &mut QueryBuilder<Postgres>, filter: DeliveryFilter, before: Option<i64>) {
    query.push(concat!("SELECT ", delivery::columns!(), " FROM deliveries WHERE place < "));
    query.push_bind(before.unwrap_or(i64::MAX));
    if let Some(job) = filter.job {
        query.push(" AND job = ").push_bind(uuid(job));
    }
    if let Some(state) = filter.state {
        query.push(" AND state = ").push_bind(code(state));
    }
}

#[async_trait]
impl WebhookStore for PostgresStore {
    async fn due_deliveries(
        &self,
        now: Timestamp,
        (most, per_host): (usize, usize),
        on_their_way: &[i64],
    ) -> Result<Vec<DueDelivery>, StoreError> {
        may_change(&self.pool).await?;
        // From host to host by the index, so that many messages for one of them cost no more than a few. Each is this node's for a while, or
        // every node would send it. All is asked once more as it is taken: another node may have sent it in between.
        let text = concat!(
            "WITH RECURSIVE there AS MATERIALIZED (SELECT id FROM nodes), \
             hosts (host) AS ((SELECT host FROM deliveries WHERE state = 0 ORDER BY host LIMIT 1) UNION ALL \
             SELECT (SELECT host FROM deliveries WHERE state = 0 AND host > hosts.host ORDER BY host LIMIT 1) FROM hosts \
             WHERE hosts.host IS NOT NULL), \
             due AS (SELECT d.place AS message, d.turn FROM hosts CROSS JOIN LATERAL (\
             SELECT place, due_at, row_number() OVER (ORDER BY due_at, place) AS turn FROM deliveries \
             WHERE state = 0 AND host = hosts.host AND due_at <= $1 \
             AND (",
            is_free!(),
            ") ORDER BY due_at, place LIMIT $2) AS d \
             WHERE d.place <> ALL($6) ORDER BY d.turn, d.due_at, d.place LIMIT $5), \
             taken AS (UPDATE deliveries SET taken_by = $3, taken_until = clock_timestamp() + $4 * INTERVAL '1 second' \
             WHERE place IN (SELECT message FROM due) AND state = 0 AND due_at <= $1 \
             AND (",
            is_free!(),
            ") RETURNING ",
            delivery::columns!(),
            ", host, secret, tries) SELECT taken.* FROM taken JOIN due ON message = place ORDER BY turn, due_at, place"
        );
        let query = sqlx::query(text).bind(now.as_micros()).bind(number(per_host)).bind(self.node.id()).bind(TAKEN.as_secs_f64());
        let rows = query.bind(number(most)).bind(on_their_way).fetch_all(&self.pool).await?;
        let (due, unread) = delivery::read_all_due(&rows, &self.unread)?;
        if !unread.is_empty() {
            self.leave_deliveries(&unread).await?;
        }
        Ok(due)
    }

    async fn leave_deliveries(&self, places: &[i64]) -> Result<(), StoreError> {
        let text = "UPDATE deliveries SET due_at = $1, taken_by = NULL WHERE place = ANY($2) AND state = 0 AND taken_by = $3";
        let until = self.published.now().after(LEFT);
        sqlx::query(text).bind(until.as_micros()).bind(places).bind(self.node.id()).execute(&self.pool).await?;
        Ok(())
    }

    async fn note_delivery(&self, read: &Delivery, attempt: DeliveryAttempt, verdict: Verdict) -> Result<(), StoreError> {
        let given = (self.node.id(), read.id.clone(), read.due_at, attempt, verdict);
        let noting = self.edit(given, |(node, id, due_at, attempt, verdict), connection| {
            Box::pin(note(connection, *node, (id, *due_at), attempt, *verdict))
        });
        noting.await
    }

    async fn pending_deliveries(&self) -> Result<u64, StoreError> {
        let row = sqlx::query(delivery::PENDING).bind(MANY.cast_signed()).fetch_one(&self.pool).await?;
        Cells::new(&row).number()
    }

    async fn deliveries(&self, filter: DeliveryFilter, before: Option<i64>, limit: usize) -> Result<Vec<Delivery>, StoreError> {
        // Where it is not known whose a message is, it is looked up: there are only as many as a node of the version before has just left. Not by
        // EXISTS, which could be planned as a walk through all jobs of the owner.
        let whose = [
            ("(", " AND owner = "),
            (" UNION ALL (", " AND owner IS NULL AND (SELECT jobs.owner FROM jobs WHERE jobs.id = job) = "),
        ];
        let mut query = QueryBuilder::<Postgres>::new("");
        match filter.owner {
            Some(owner) => {
                for (open, is) in whose {
                    query.push(open);
                    list(&mut query, filter, before);
                    query.push(is).push_bind(owner.code());
                    query.push(" ORDER BY place DESC LIMIT ").push_bind(number(limit)).push(")");
                }
            }
            None => list(&mut query, filter, before),
        }
        query.push(" ORDER BY place DESC LIMIT ").push_bind(number(limit));
        query.build().fetch_all(&self.pool).await?.iter().map(delivery::read).collect()
    }

    async fn redeliver(&self, id: &str, owner: Option<Owner>) -> Result<Option<Delivery>, StoreError> {
        let given = (self.published.now(), id.to_owned(), owner);
        self.edit(given, |(now, id, owner), connection| Box::pin(again(connection, *now, id, *owner))).await
    }
}

async fn note(
    connection: &mut PgConnection,
    node: i64,
    (id, was_due_at): (&str, Timestamp),
    attempt: &DeliveryAttempt,
    verdict: Verdict,
) -> Result<(), StoreError> {
    let (state, due_at) = delivery::state_after(verdict);
    let there =
        "SELECT log, state = 0 AND due_at = $3 AND coalesce(taken_by = $2, true) FROM deliveries WHERE id = $1 FOR UPDATE";
    let there = sqlx::query_as(there).bind(id).bind(node).bind(was_due_at.as_micros()).fetch_optional(&mut *connection).await?;
    let Some::<(String, bool)>((log, is_as_read)) = there else { return Ok(()) };
    // Others may have said more of their attempts than this version knows.
    let mut log: Vec<Box<RawValue>> = serde_json::from_str(&log).map_err(corrupt)?;
    log.push(to_raw_value(attempt).map_err(corrupt)?);
    log.drain(..log.len().saturating_sub(delivery::KEPT));
    if is_as_read || verdict == Verdict::Delivered {
        let text = "UPDATE deliveries SET state = $1, due_at = coalesce($2, due_at), tries = tries + 1, log = $3, taken_by = NULL WHERE id = $4";
        let query = sqlx::query(text).bind(code(state)).bind(due_at.map(Timestamp::as_micros)).bind(json(&log));
        query.bind(id).execute(&mut *connection).await?;
    } else {
        // It has come to be gone, with others, or is wanted again; or it took so long that another node sends it now, or has sent it.
        let query = sqlx::query("UPDATE deliveries SET log = $1 WHERE id = $2").bind(json(&log));
        query.bind(id).execute(&mut *connection).await?;
    }
    let mut ended = vec![id.to_owned()];
    if verdict == Verdict::Gone {
        // Another node may hear the same at this moment, of a message of its own.
        let query = sqlx::query_scalar(delivery::give_up_others!(" FOR UPDATE SKIP LOCKED")).bind(code(state));
        ended.extend(query.bind(id).fetch_all(&mut *connection).await?);
    }
    // Nothing else takes along what its job has left behind.
    let text = "DELETE FROM deliveries WHERE id = ANY($1) AND state <> 0 AND NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.id = job)";
    sqlx::query(text).bind(ended).execute(connection).await?;
    Ok(())
}

async fn again(
    connection: &mut PgConnection,
    now: Timestamp,
    id: &str,
    owner: Option<Owner>,
) -> Result<Option<Delivery>, StoreError> {
    if let Some(owner) = owner {
        let text = "SELECT EXISTS (SELECT 1 FROM deliveries WHERE id = $1 AND (owner = $2 \
                    OR owner IS NULL AND EXISTS (SELECT 1 FROM jobs WHERE jobs.id = job AND jobs.owner = $2)))";
        let theirs: bool = sqlx::query_scalar(text).bind(id).bind(owner.code()).fetch_one(&mut *connection).await?;
        if !theirs {
            return Ok(None);
        }
    }
    // One that is on its way stays with the node that sends it.
    let text =
        "UPDATE deliveries SET state = 0, due_at = $1, tries = 0, taken_by = CASE WHEN state = 0 THEN taken_by END WHERE id = $2";
    sqlx::query(text).bind(now.as_micros()).bind(id).execute(&mut *connection).await?;
    let row = sqlx::query(delivery::ONE).bind(id).fetch_optional(connection).await?;
    row.as_ref().map(delivery::read).transpose()
}
