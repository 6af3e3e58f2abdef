//! Comparisons, as the writer changes them and as they are read.

use async_trait::async_trait;
use serde_json::value::RawValue;
use sqlx::SqliteConnection;
use uuid::Uuid;

use super::SqliteStore;
use super::codes::Code;
use crate::clock::Timestamp;
use crate::job::{ComparisonId, Owner};
use crate::store::kept::{comparison, first_id, number};
use crate::store::{Comparison, ComparisonEnd, ComparisonState, ComparisonStore, StoreError, page};

#[async_trait]
impl ComparisonStore for SqliteStore {
    async fn add_comparison(
        &self,
        id: ComparisonId,
        owner: Option<Owner>,
        request: Box<RawValue>,
    ) -> Result<Comparison, StoreError> {
        let given = (self.clock.now(), id, owner, request);
        let kept =
            self.edit(given, |(now, id, owner, request), connection| Box::pin(add(connection, *now, *id, *owner, request)));
        kept.await?.ok_or_else(|| StoreError::Corrupt("a comparison was kept and is not there".into()))
    }

    async fn waiting_comparison(&self, after: Option<ComparisonId>) -> Result<Option<Comparison>, StoreError> {
        let text = concat!(
            "SELECT ",
            comparison::columns!(),
            " FROM comparisons WHERE state = 0 AND (?1 IS NULL OR id > ?1) ORDER BY id LIMIT 1"
        );
        let query = sqlx::query(text).bind(after.map(|id| id.as_bytes().to_vec()));
        query.fetch_optional(&self.readers).await?.as_ref().map(comparison::read).transpose()
    }

    async fn begin_comparison(&self, id: ComparisonId) -> Result<Option<Comparison>, StoreError> {
        self.edit((self.clock.now(), id), |(now, id), connection| Box::pin(begin(connection, *now, *id))).await
    }

    async fn end_comparison(&self, id: ComparisonId, end: ComparisonEnd) -> Result<bool, StoreError> {
        self.edit((self.clock.now(), id, end), |(now, id, end), connection| Box::pin(end_one(connection, *now, *id, end))).await
    }

    async fn interrupt_comparisons(&self, reason: &str) -> Result<u64, StoreError> {
        let given = (self.clock.now(), reason.to_owned());
        self.edit(given, |(now, reason), connection| Box::pin(interrupt(connection, *now, reason))).await
    }

    async fn comparison_ended_before(&self, moment: Timestamp) -> Result<Option<ComparisonId>, StoreError> {
        let first = first_id(moment).as_bytes().to_vec();
        let query = sqlx::query_scalar::<_, Uuid>(comparison::ENDED_BEFORE).bind(first).bind(moment.as_micros());
        Ok(query.fetch_optional(&self.readers).await?.map(|id| ComparisonId::from_bytes(id.into_bytes())))
    }

    async fn remove_comparison(&self, id: ComparisonId) -> Result<bool, StoreError> {
        self.edit(id, |id, connection| Box::pin(remove(connection, *id))).await
    }

    async fn comparison(&self, id: ComparisonId) -> Result<Option<Comparison>, StoreError> {
        let row = sqlx::query(comparison::ONE).bind(&id.as_bytes()[..]).fetch_optional(&self.readers).await?;
        row.as_ref().map(comparison::read).transpose()
    }

    async fn comparisons(
        &self,
        owner: Option<Owner>,
        after: Option<ComparisonId>,
        limit: usize,
    ) -> Result<Vec<Comparison>, StoreError> {
        let query = sqlx::query(comparison::LATEST).bind(after.map(|id| id.as_bytes().to_vec())).bind(owner.map(Owner::code));
        let query = query.bind(number(limit));
        page::read(query.fetch(&self.readers), comparison::read).await
    }
}

async fn add(
    connection: &mut SqliteConnection,
    now: Timestamp,
    id: ComparisonId,
    owner: Option<Owner>,
    request: &RawValue,
) -> Result<Option<Comparison>, StoreError> {
    let query = sqlx::query(comparison::ADD)
        .bind(&id.as_bytes()[..])
        .bind(owner.map(Owner::code))
        .bind(ComparisonState::Queued.code())
        .bind(now.as_micros())
        .bind(request.get());
    query.fetch_optional(connection).await?.as_ref().map(comparison::read).transpose()
}

async fn begin(connection: &mut SqliteConnection, now: Timestamp, id: ComparisonId) -> Result<Option<Comparison>, StoreError> {
    let text = concat!(
        "UPDATE comparisons SET state = ?1, started_at = ?2 WHERE id = ?3 AND state = 0 RETURNING ",
        comparison::columns!()
    );
    let query = sqlx::query(text).bind(ComparisonState::Running.code()).bind(now.as_micros()).bind(&id.as_bytes()[..]);
    query.fetch_optional(connection).await?.as_ref().map(comparison::read).transpose()
}

async fn end_one(
    connection: &mut SqliteConnection,
    now: Timestamp,
    id: ComparisonId,
    end: &ComparisonEnd,
) -> Result<bool, StoreError> {
    let (state, report, error) = comparison::columns_of(end);
    let query =
        sqlx::query(comparison::END).bind(state.code()).bind(now.as_micros()).bind(report).bind(error).bind(&id.as_bytes()[..]);
    Ok(query.execute(connection).await?.rows_affected() > 0)
}

async fn remove(connection: &mut SqliteConnection, id: ComparisonId) -> Result<bool, StoreError> {
    let query = sqlx::query(comparison::REMOVE).bind(&id.as_bytes()[..]);
    Ok(query.execute(connection).await?.rows_affected() > 0)
}

async fn interrupt(connection: &mut SqliteConnection, now: Timestamp, reason: &str) -> Result<u64, StoreError> {
    let text = "UPDATE comparisons SET state = ?, finished_at = ?, error = ? WHERE state = 1";
    let query = sqlx::query(text).bind(ComparisonState::Failed.code()).bind(now.as_micros()).bind(reason);
    Ok(query.execute(connection).await?.rows_affected())
}
