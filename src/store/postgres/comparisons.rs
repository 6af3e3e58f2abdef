//! Comparisons, as the writer changes them and as they are read.

use async_trait::async_trait;
use serde_json::value::RawValue;
use sqlx::PgConnection;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::PostgresStore;
use super::rows::{Cells, code};
use crate::clock::Timestamp;
use crate::job::{ComparisonId, Owner};
use crate::store::{Comparison, ComparisonEnd, ComparisonState, ComparisonStore, StoreError};

/// The columns in the order in which [`comparison`] reads them.
macro_rules! columns {
    () => {
        "id, owner, state, requested_at, started_at, finished_at, request, report, error"
    };
}

#[async_trait]
impl ComparisonStore for PostgresStore {
    async fn add_comparison(
        &self,
        id: ComparisonId,
        owner: Option<Owner>,
        request: Box<RawValue>,
    ) -> Result<Comparison, StoreError> {
        let given = (id, owner, request);
        let kept = self.edit(given, |(id, owner, request), connection| Box::pin(add(connection, *id, *owner, request)));
        kept.await?.ok_or_else(|| StoreError::Corrupt("a comparison was kept and is not there".into()))
    }

    async fn begin_comparison(&self) -> Result<Option<Comparison>, StoreError> {
        self.edit(self.node.id(), |node, connection| Box::pin(begin(connection, *node))).await
    }

    async fn end_comparison(&self, id: ComparisonId, end: ComparisonEnd) -> Result<bool, StoreError> {
        self.edit((id, end), |(id, given), connection| Box::pin(end_one(connection, *id, given))).await
    }

    async fn interrupt_comparisons(&self, reason: &str) -> Result<u64, StoreError> {
        let given = (reason.to_owned(), self.node.id());
        self.edit(given, |(reason, node), connection| Box::pin(interrupt(connection, reason, *node))).await
    }

    async fn comparison(&self, id: ComparisonId) -> Result<Option<Comparison>, StoreError> {
        let text = concat!("SELECT ", columns!(), " FROM comparisons WHERE id = $1");
        let row = sqlx::query(text).bind(Uuid::from_bytes(*id.as_bytes())).fetch_optional(&self.pool).await?;
        row.as_ref().map(comparison).transpose()
    }

    async fn comparisons(
        &self,
        owner: Option<Owner>,
        after: Option<ComparisonId>,
        limit: usize,
    ) -> Result<Vec<Comparison>, StoreError> {
        let text = concat!(
            "SELECT ",
            columns!(),
            " FROM comparisons WHERE ($1 IS NULL OR id < $1) AND ($2 IS NULL OR owner = $2) ORDER BY id DESC LIMIT $3"
        );
        let query = sqlx::query(text).bind(after.map(|id| Uuid::from_bytes(*id.as_bytes()))).bind(owner.map(Owner::code));
        let query = query.bind(i64::try_from(limit).unwrap_or(i64::MAX));
        query.fetch_all(&self.pool).await?.iter().map(comparison).collect()
    }
}

async fn add(
    connection: &mut PgConnection,
    id: ComparisonId,
    owner: Option<Owner>,
    request: &RawValue,
) -> Result<Option<Comparison>, StoreError> {
    let text = concat!(
        "INSERT INTO comparisons (id, owner, state, requested_at, request) VALUES ($1, $2, $3, $4, $5) RETURNING ",
        columns!()
    );
    let query = sqlx::query(text)
        .bind(Uuid::from_bytes(*id.as_bytes()))
        .bind(owner.map(Owner::code))
        .bind(code(ComparisonState::Queued))
        .bind(Timestamp::now().as_micros())
        .bind(request.get());
    query.fetch_optional(connection).await?.as_ref().map(comparison).transpose()
}

async fn begin(connection: &mut PgConnection, node: i64) -> Result<Option<Comparison>, StoreError> {
    let text = concat!(
        "UPDATE comparisons SET state = $1, started_at = $2, node = $3 \
         WHERE id = (SELECT id FROM comparisons WHERE state = 0 ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING ",
        columns!()
    );
    let query = sqlx::query(text).bind(code(ComparisonState::Running)).bind(Timestamp::now().as_micros()).bind(node);
    query.fetch_optional(connection).await?.as_ref().map(comparison).transpose()
}

async fn end_one(connection: &mut PgConnection, id: ComparisonId, end: &ComparisonEnd) -> Result<bool, StoreError> {
    let (state, report, error) = match end {
        ComparisonEnd::Finished(report) => (ComparisonState::Finished, Some(report.get()), None),
        ComparisonEnd::Failed(reason) => (ComparisonState::Failed, None, Some(reason.as_str())),
        ComparisonEnd::Cancelled => (ComparisonState::Cancelled, None, None),
    };
    let text = "UPDATE comparisons SET state = $1, finished_at = $2, report = $3, error = $4 WHERE id = $5 AND state < 2";
    let query = sqlx::query(text)
        .bind(code(state))
        .bind(Timestamp::now().as_micros())
        .bind(report)
        .bind(error)
        .bind(Uuid::from_bytes(*id.as_bytes()));
    Ok(query.execute(connection).await?.rows_affected() > 0)
}

async fn interrupt(connection: &mut PgConnection, reason: &str, node: i64) -> Result<u64, StoreError> {
    let text = "UPDATE comparisons SET state = $1, finished_at = $2, error = $3 \
                WHERE state = 1 AND (node = $4 OR NOT EXISTS (SELECT 1 FROM nodes WHERE nodes.id = comparisons.node))";
    let query = sqlx::query(text).bind(code(ComparisonState::Failed)).bind(Timestamp::now().as_micros()).bind(reason).bind(node);
    Ok(query.execute(connection).await?.rows_affected())
}

fn comparison(row: &PgRow) -> Result<Comparison, StoreError> {
    let mut cells = Cells::new(row);
    let id: Uuid = cells.take()?;
    Ok(Comparison {
        id: ComparisonId::from_bytes(id.into_bytes()),
        owner: cells.take::<Option<i64>>()?.and_then(Owner::from_code),
        state: cells.code()?,
        requested_at: cells.time()?,
        started_at: cells.time_or_none()?,
        finished_at: cells.time_or_none()?,
        request: cells.raw()?,
        report: cells.json()?,
        error: cells.take()?,
    })
}
