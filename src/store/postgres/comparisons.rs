//! Comparisons, as they are kept and read.

use async_trait::async_trait;
use serde_json::value::RawValue;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{PostgresStore, rows};
use crate::clock::Timestamp;
use crate::job::{ComparisonId, Owner};
use crate::store::kept::{code, comparison, first_id, number};
use crate::store::{Comparison, ComparisonEnd, ComparisonState, ComparisonStore, StoreError, page};

#[async_trait]
impl ComparisonStore for PostgresStore {
    async fn add_comparison(
        &self,
        id: ComparisonId,
        owner: Option<Owner>,
        request: Box<RawValue>,
    ) -> Result<Comparison, StoreError> {
        let given = (self.published.now(), id, owner, request);
        let kept =
            self.edit(given, |(now, id, owner, request), connection| Box::pin(add(connection, *now, *id, *owner, request)));
        kept.await?.ok_or_else(|| StoreError::Corrupt("a comparison was kept and is not there".into()))
    }

    /// A node runs one at a time. If it seems to run one when it asks for the next, it never heard that it began that, which comes first.
    async fn waiting_comparison(&self, after: Option<ComparisonId>) -> Result<Option<Comparison>, StoreError> {
        let text = concat!(
            "SELECT ",
            comparison::columns!(),
            " FROM comparisons WHERE (state = 0 OR state = 1 AND node = $1) AND ($2 IS NULL OR id > $2) ORDER BY state DESC, id LIMIT 1"
        );
        let query = sqlx::query(text).bind(self.node.id()).bind(after.map(|id| Uuid::from_bytes(*id.as_bytes())));
        query.fetch_optional(&self.pool).await?.as_ref().map(comparison::read).transpose()
    }

    async fn begin_comparison(&self, id: ComparisonId) -> Result<Option<Comparison>, StoreError> {
        let given = (self.published.now(), self.node.id(), id);
        self.edit(given, |(now, node, id), connection| Box::pin(begin(connection, *now, *node, *id))).await
    }

    async fn end_comparison(&self, id: ComparisonId, end: ComparisonEnd) -> Result<bool, StoreError> {
        self.edit((self.published.now(), id, end), |(now, id, end), connection| Box::pin(end_one(connection, *now, *id, end)))
            .await
    }

    async fn interrupt_comparisons(&self, reason: &str) -> Result<u64, StoreError> {
        let given = (self.published.now(), reason.to_owned(), self.node.id());
        self.edit(given, |(now, reason, node), connection| Box::pin(interrupt(connection, *now, reason, *node))).await
    }

    async fn comparison_ended_before(&self, moment: Timestamp) -> Result<Option<ComparisonId>, StoreError> {
        let first = rows::uuid(first_id(moment));
        let query = sqlx::query_scalar::<_, Uuid>(comparison::ENDED_BEFORE).bind(first).bind(moment.as_micros());
        Ok(query.fetch_optional(&self.pool).await?.map(|id| ComparisonId::from_bytes(id.into_bytes())))
    }

    async fn remove_comparison(&self, id: ComparisonId) -> Result<bool, StoreError> {
        self.edit(id, |id, connection| Box::pin(remove(connection, *id))).await
    }

    async fn comparison(&self, id: ComparisonId) -> Result<Option<Comparison>, StoreError> {
        let row = sqlx::query(comparison::ONE).bind(Uuid::from_bytes(*id.as_bytes())).fetch_optional(&self.pool).await?;
        row.as_ref().map(comparison::read).transpose()
    }

    async fn comparisons(
        &self,
        owner: Option<Owner>,
        after: Option<ComparisonId>,
        limit: usize,
    ) -> Result<Vec<Comparison>, StoreError> {
        let query =
            sqlx::query(comparison::LATEST).bind(after.map(|id| Uuid::from_bytes(*id.as_bytes()))).bind(owner.map(Owner::code));
        let query = query.bind(number(limit));
        page::read(query.fetch(&self.pool), comparison::read).await
    }
}

async fn add(
    connection: &mut PgConnection,
    now: Timestamp,
    id: ComparisonId,
    owner: Option<Owner>,
    request: &RawValue,
) -> Result<Option<Comparison>, StoreError> {
    let query = sqlx::query(comparison::ADD)
        .bind(Uuid::from_bytes(*id.as_bytes()))
        .bind(owner.map(Owner::code))
        .bind(code(ComparisonState::Queued))
        .bind(now.as_micros())
        .bind(request.get());
    query.fetch_optional(connection).await?.as_ref().map(comparison::read).transpose()
}

async fn begin(
    connection: &mut PgConnection,
    now: Timestamp,
    node: i64,
    id: ComparisonId,
) -> Result<Option<Comparison>, StoreError> {
    let text = concat!(
        "UPDATE comparisons SET state = $1, started_at = $2, node = $3 WHERE id = $4 AND (state = 0 OR state = 1 AND node = $3) RETURNING ",
        comparison::columns!()
    );
    let query = sqlx::query(text).bind(code(ComparisonState::Running)).bind(now.as_micros()).bind(node);
    let query = query.bind(Uuid::from_bytes(*id.as_bytes()));
    query.fetch_optional(connection).await?.as_ref().map(comparison::read).transpose()
}

async fn end_one(
    connection: &mut PgConnection,
    now: Timestamp,
    id: ComparisonId,
    end: &ComparisonEnd,
) -> Result<bool, StoreError> {
    let (state, report, error) = comparison::columns_of(end);
    let query = sqlx::query(comparison::END)
        .bind(code(state))
        .bind(now.as_micros())
        .bind(report)
        .bind(error.map(rows::text))
        .bind(Uuid::from_bytes(*id.as_bytes()));
    Ok(query.execute(connection).await?.rows_affected() > 0)
}

async fn remove(connection: &mut PgConnection, id: ComparisonId) -> Result<bool, StoreError> {
    let query = sqlx::query(comparison::REMOVE).bind(Uuid::from_bytes(*id.as_bytes()));
    Ok(query.execute(connection).await?.rows_affected() > 0)
}

async fn interrupt(connection: &mut PgConnection, now: Timestamp, reason: &str, node: i64) -> Result<u64, StoreError> {
    let text = "UPDATE comparisons SET state = $1, finished_at = $2, error = $3 \
                WHERE state = 1 AND (node = $4 OR NOT EXISTS (SELECT 1 FROM nodes WHERE nodes.id = comparisons.node))";
    let query = sqlx::query(text).bind(code(ComparisonState::Failed)).bind(now.as_micros()).bind(reason).bind(node);
    Ok(query.execute(connection).await?.rows_affected())
}
