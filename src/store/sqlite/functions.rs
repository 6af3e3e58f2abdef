//! Functions, as the writer changes them and as they are read.

use async_trait::async_trait;
use sqlx::SqliteConnection;

use super::SqliteStore;
use super::codes::Code;
use crate::clock::Timestamp;
use crate::function::{Function, Limits};
use crate::store::kept::{function, json};
use crate::store::{FunctionStore, StoreError};

/// Later than every deployment before, whatever the clock does.
macro_rules! moment {
    () => {
        "max(?1, (SELECT coalesce(max(deployed_at), 0) + 1 FROM functions))"
    };
}

#[async_trait]
impl FunctionStore for SqliteStore {
    async fn deploy(&self, function: Function, content: Vec<u8>) -> Result<Function, StoreError> {
        let given = (self.clock.now(), function, content);
        let kept = self.edit(given, |(now, new, content), connection| Box::pin(deploy(connection, *now, new, content)));
        kept.await?.ok_or_else(|| StoreError::Corrupt("a function was kept and is not there".into()))
    }

    async fn redeploy(&self, name: &str, version: &str) -> Result<Option<Function>, StoreError> {
        let given = (self.clock.now(), name.to_owned(), version.to_owned());
        self.edit(given, |(now, name, version), connection| Box::pin(redeploy(connection, *now, name, version))).await
    }

    async fn undeploy(&self, name: &str) -> Result<bool, StoreError> {
        self.edit(name.to_owned(), |name, connection| Box::pin(undeploy(connection, name))).await
    }

    async fn functions(&self) -> Result<Vec<Function>, StoreError> {
        sqlx::query(function::ALL).fetch_all(&self.readers).await?.iter().map(function::read).collect()
    }

    async fn function_content(&self, name: &str, version: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let query = sqlx::query_scalar(function::CONTENT);
        Ok(query.bind(name).bind(version).fetch_optional(&self.readers).await?)
    }
}

async fn deploy(
    connection: &mut SqliteConnection,
    now: Timestamp,
    new: &Function,
    content: &[u8],
) -> Result<Option<Function>, StoreError> {
    let text = concat!(
        "INSERT INTO functions (",
        function::columns!(),
        ", content) SELECT ?2, ?3, moment, moment, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13 FROM (SELECT ",
        moment!(),
        " AS moment) WHERE true ON CONFLICT DO UPDATE SET deployed_at = excluded.deployed_at, bound = excluded.bound, \
         choice = excluded.choice, deadline_ms = excluded.deadline_ms, limits = excluded.limits RETURNING ",
        function::columns!()
    );
    let query = sqlx::query(text)
        .bind(now.as_micros())
        .bind(&new.name)
        .bind(&new.version)
        .bind(new.kind.code())
        .bind(i64::try_from(new.bytes).unwrap_or(i64::MAX))
        .bind(&new.entrypoint)
        .bind(new.form.code())
        .bind(&new.interpreter)
        .bind(new.defaults.bound.map(Code::code))
        .bind(new.defaults.executor.code())
        .bind(new.defaults.deadline.map(|deadline| i64::try_from(deadline.as_millis()).unwrap_or(i64::MAX)))
        .bind((new.limits != Limits::default()).then(|| json(&new.limits)))
        .bind(content);
    query.fetch_optional(connection).await?.as_ref().map(function::read).transpose()
}

async fn redeploy(
    connection: &mut SqliteConnection,
    now: Timestamp,
    name: &str,
    version: &str,
) -> Result<Option<Function>, StoreError> {
    let text = concat!(
        "UPDATE functions SET deployed_at = ",
        moment!(),
        " WHERE name = ?2 AND version = ?3 RETURNING ",
        function::columns!()
    );
    let query = sqlx::query(text).bind(now.as_micros()).bind(name).bind(version);
    query.fetch_optional(connection).await?.as_ref().map(function::read).transpose()
}

async fn undeploy(connection: &mut SqliteConnection, name: &str) -> Result<bool, StoreError> {
    let removed = sqlx::query(function::REMOVE).bind(name).execute(connection).await?;
    Ok(removed.rows_affected() > 0)
}
