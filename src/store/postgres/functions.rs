//! Functions, as they are kept and read.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::PgConnection;
use sqlx::postgres::PgRow;

use super::PostgresStore;
use super::rows::{Cells, code, json};
use crate::clock::Timestamp;
use crate::function::{Defaults, Function, Limits};
use crate::store::{Copied, FunctionStore, StoreError};

/// The columns without the content, in the order in which [`function`] reads them.
macro_rules! columns {
    () => {
        "name, version, created_at, deployed_at, kind, bytes, entrypoint, form, interpreter, bound, choice, deadline_ms, limits"
    };
}

/// Later than every deployment before, whatever the clock does.
macro_rules! moment {
    () => {
        "greatest($1::BIGINT, (SELECT coalesce(max(deployed_at), 0) + 1 FROM functions))"
    };
}

#[async_trait]
impl FunctionStore for PostgresStore {
    async fn deploy(&self, function: Function, content: Vec<u8>) -> Result<Function, StoreError> {
        let kept = self.change(Copied::Functions, (function, content), |(new, content), connection| {
            Box::pin(deploy(connection, new, content))
        });
        kept.await?.ok_or_else(|| StoreError::Corrupt("a function was kept and is not there".into()))
    }

    async fn redeploy(&self, name: &str, version: &str) -> Result<Option<Function>, StoreError> {
        let given = (name.to_owned(), version.to_owned());
        self.change(Copied::Functions, given, |(name, version), connection| Box::pin(redeploy(connection, name, version))).await
    }

    async fn undeploy(&self, name: &str) -> Result<bool, StoreError> {
        self.change(Copied::Functions, name.to_owned(), |name, connection| Box::pin(undeploy(connection, name))).await
    }

    async fn functions(&self) -> Result<Vec<Function>, StoreError> {
        let text = concat!("SELECT ", columns!(), " FROM functions ORDER BY name, deployed_at DESC");
        sqlx::query(text).fetch_all(&self.pool).await?.iter().map(function).collect()
    }

    async fn function_content(&self, name: &str, version: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let query = sqlx::query_scalar("SELECT content FROM functions WHERE name = $1 AND version = $2");
        Ok(query.bind(name).bind(version).fetch_optional(&self.pool).await?)
    }
}

async fn deploy(connection: &mut PgConnection, new: &Function, content: &[u8]) -> Result<Option<Function>, StoreError> {
    let text = concat!(
        "INSERT INTO functions (",
        columns!(),
        ", content) SELECT $2, $3, moment, moment, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13 FROM (SELECT ",
        moment!(),
        " AS moment) AS present ON CONFLICT (name, version) DO UPDATE SET deployed_at = excluded.deployed_at, bound = excluded.bound, \
         choice = excluded.choice, deadline_ms = excluded.deadline_ms, limits = excluded.limits RETURNING ",
        columns!()
    );
    let query = sqlx::query(text)
        .bind(Timestamp::now().as_micros())
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
    query.fetch_optional(connection).await?.as_ref().map(function).transpose()
}

async fn redeploy(connection: &mut PgConnection, name: &str, version: &str) -> Result<Option<Function>, StoreError> {
    let text =
        concat!("UPDATE functions SET deployed_at = ", moment!(), " WHERE name = $2 AND version = $3 RETURNING ", columns!());
    let query = sqlx::query(text).bind(Timestamp::now().as_micros()).bind(name).bind(version);
    query.fetch_optional(connection).await?.as_ref().map(function).transpose()
}

async fn undeploy(connection: &mut PgConnection, name: &str) -> Result<bool, StoreError> {
    let removed = sqlx::query("DELETE FROM functions WHERE name = $1").bind(name).execute(connection).await?;
    Ok(removed.rows_affected() > 0)
}

fn function(row: &PgRow) -> Result<Function, StoreError> {
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
            bound: cells.code_or_none()?,
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
