//! Functions, as the writer changes them and as they are read.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::SqliteStore;
use super::codes::Code;
use super::rows::Cells;
use super::statements;
use crate::clock::Timestamp;
use crate::function::{Defaults, Function, Limits};
use crate::store::{FunctionStore, StoreError};

/// The columns without the content, in the order in which [`function`] reads them.
macro_rules! columns {
    () => {
        "name, version, created_at, deployed_at, kind, bytes, entrypoint, form, interpreter, bound, choice, deadline_ms, limits"
    };
}

/// Later than every deployment before, whatever the clock does.
macro_rules! moment {
    () => {
        "max(?1, (SELECT coalesce(max(deployed_at), 0) + 1 FROM functions))"
    };
}

#[async_trait]
impl FunctionStore for SqliteStore {
    async fn deploy(&self, function: Function, content: Vec<u8>) -> Result<Function, StoreError> {
        let kept = self.edit((function, content), |(new, content), connection| Box::pin(deploy(connection, new, content)));
        kept.await?.ok_or_else(|| StoreError::Corrupt("a function was kept and is not there".into()))
    }

    async fn redeploy(&self, name: &str, version: &str) -> Result<Option<Function>, StoreError> {
        let given = (name.to_owned(), version.to_owned());
        self.edit(given, |(name, version), connection| Box::pin(redeploy(connection, name, version))).await
    }

    async fn undeploy(&self, name: &str) -> Result<bool, StoreError> {
        self.edit(name.to_owned(), |name, connection| Box::pin(undeploy(connection, name))).await
    }

    async fn functions(&self) -> Result<Vec<Function>, StoreError> {
        let text = concat!("SELECT ", columns!(), " FROM functions ORDER BY name, deployed_at DESC");
        sqlx::query(text).fetch_all(&self.readers).await?.iter().map(function).collect()
    }

    async fn function_content(&self, name: &str, version: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let query = sqlx::query_scalar("SELECT content FROM functions WHERE name = ? AND version = ?");
        Ok(query.bind(name).bind(version).fetch_optional(&self.readers).await?)
    }
}

async fn deploy(connection: &mut SqliteConnection, new: &Function, content: &[u8]) -> Result<Option<Function>, StoreError> {
    let text = concat!(
        "INSERT INTO functions (",
        columns!(),
        ", content) SELECT ?2, ?3, moment, moment, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13 FROM (SELECT ",
        moment!(),
        " AS moment) WHERE true ON CONFLICT DO UPDATE SET deployed_at = excluded.deployed_at, bound = excluded.bound, \
         choice = excluded.choice, deadline_ms = excluded.deadline_ms, limits = excluded.limits RETURNING ",
        columns!()
    );
    let query = sqlx::query(text)
        .bind(Timestamp::now().as_micros())
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
        .bind((new.limits != Limits::default()).then(|| statements::json(&new.limits)))
        .bind(content);
    query.fetch_optional(connection).await?.as_ref().map(function).transpose()
}

async fn redeploy(connection: &mut SqliteConnection, name: &str, version: &str) -> Result<Option<Function>, StoreError> {
    let text =
        concat!("UPDATE functions SET deployed_at = ", moment!(), " WHERE name = ?2 AND version = ?3 RETURNING ", columns!());
    let query = sqlx::query(text).bind(Timestamp::now().as_micros()).bind(name).bind(version);
    query.fetch_optional(connection).await?.as_ref().map(function).transpose()
}

async fn undeploy(connection: &mut SqliteConnection, name: &str) -> Result<bool, StoreError> {
    let removed = sqlx::query("DELETE FROM functions WHERE name = ?").bind(name).execute(connection).await?;
    Ok(removed.rows_affected() > 0)
}

fn function(row: &SqliteRow) -> Result<Function, StoreError> {
    let mut cells = Cells::new(row);
    Ok(Function {
        name: cells.take()?,
        version: cells.take()?,
        created_at: cells.time()?,
        deployed_at: cells.time()?,
        kind: cells.code()?,
        bytes: cells.number()?,
        entrypoint: cells.take()?,
        form: cells.code()?,
        interpreter: cells.take()?,
        defaults: Defaults {
            bound: cells.take::<Option<i64>>()?.map(Code::from_code).transpose()?,
            executor: cells.code()?,
            deadline: cells
                .take::<Option<i64>>()?
                .map(|ms| u64::try_from(ms).map_err(|_| StoreError::Corrupt(format!("a deadline of {ms} ms"))))
                .transpose()?
                .map(Duration::from_millis),
        },
        limits: cells.json()?.unwrap_or_default(),
    })
}
