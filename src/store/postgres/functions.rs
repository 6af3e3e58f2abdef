//! Functions, as they are kept and read.

use async_trait::async_trait;
use sqlx::PgConnection;

use super::PostgresStore;
use crate::clock::Timestamp;
use crate::function::{Function, Limits};
use crate::store::kept::{code, function, json};
use crate::store::{Copied, FunctionStore, StoreError};

/// Later than every deployment before, whatever the clock does.
macro_rules! moment {
    () => {
        "greatest($1::BIGINT, (SELECT coalesce(max(deployed_at), 0) + 1 FROM functions))"
    };
}

#[async_trait]
impl FunctionStore for PostgresStore {
    async fn deploy(&self, function: Function, content: Vec<u8>) -> Result<Function, StoreError> {
        let kept =
            self.change(Copied::Functions, (self.published.now(), function, content), |(now, new, content), connection| {
                Box::pin(deploy(connection, *now, new, content))
            });
        kept.await?.ok_or_else(|| StoreError::Corrupt("a function was kept and is not there".into()))
    }

    async fn redeploy(&self, name: &str, version: &str) -> Result<Option<Function>, StoreError> {
        let given = (self.published.now(), name.to_owned(), version.to_owned());
        self.change(Copied::Functions, given, |(now, name, version), connection| {
            Box::pin(redeploy(connection, *now, name, version))
        })
        .await
    }

    async fn undeploy(&self, name: &str) -> Result<bool, StoreError> {
        self.change(Copied::Functions, name.to_owned(), |name, connection| Box::pin(undeploy(connection, name))).await
    }

    async fn functions(&self) -> Result<Vec<Function>, StoreError> {
        sqlx::query(function::ALL).fetch_all(&self.pool).await?.iter().map(function::read).collect()
    }

    async fn function_content(&self, name: &str, version: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let query = sqlx::query_scalar(function::CONTENT);
        Ok(query.bind(name).bind(version).fetch_optional(&self.pool).await?)
    }
}

async fn deploy(
    connection: &mut PgConnection,
    now: Timestamp,
    new: &Function,
    content: &[u8],
) -> Result<Option<Function>, StoreError> {
    let text = concat!(
        "INSERT INTO functions (",
        function::columns!(),
        ", content) SELECT $2, $3, moment, moment, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13 FROM (SELECT ",
        moment!(),
        " AS moment) AS present ON CONFLICT (name, version) DO UPDATE SET deployed_at = excluded.deployed_at, bound = excluded.bound, \
         choice = excluded.choice, deadline_ms = excluded.deadline_ms, limits = excluded.limits RETURNING ",
        function::columns!()
    );
    let query = sqlx::query(text)
        .bind(now.as_micros())
        .bind(&new.name)
        .bind(&new.version)
        .bind(code(new.kind))
        .bind(i64::try_from(new.bytes).unwrap_or(i64::MAX))
        .bind(&new.entrypoint)
        .bind(code(new.form))
        .bind(&new.interpreter)
        .bind(new.defaults.bound.map(code))
        .bind(code(new.defaults.executor))
        .bind(new.defaults.deadline.map(|deadline| i64::try_from(deadline.as_millis()).unwrap_or(i64::MAX)))
        .bind((new.limits != Limits::default()).then(|| json(&new.limits)))
        .bind(content);
    query.fetch_optional(connection).await?.as_ref().map(function::read).transpose()
}

async fn redeploy(
    connection: &mut PgConnection,
    now: Timestamp,
    name: &str,
    version: &str,
) -> Result<Option<Function>, StoreError> {
    let text = concat!(
        "UPDATE functions SET deployed_at = ",
        moment!(),
        " WHERE name = $2 AND version = $3 RETURNING ",
        function::columns!()
    );
    let query = sqlx::query(text).bind(now.as_micros()).bind(name).bind(version);
    query.fetch_optional(connection).await?.as_ref().map(function::read).transpose()
}

async fn undeploy(connection: &mut PgConnection, name: &str) -> Result<bool, StoreError> {
    let removed = sqlx::query(function::REMOVE).bind(name).execute(connection).await?;
    Ok(removed.rows_affected() > 0)
}
