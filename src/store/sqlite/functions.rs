//! Functions: small changes by the writer, and what can be read of them.

use std::time::Duration;

use sqlx::sqlite::SqliteRow;
use sqlx::{SqliteConnection, SqlitePool};

use super::codes::Code;
use super::rows::Cells;
use crate::clock::Timestamp;
use crate::function::{Defaults, Function};
use crate::store::StoreError;

/// A change of the functions. Each gives the versions that it touched.
pub(super) enum Change {
    /// Keep a version with its content, and make it the latest.
    Deploy(Box<Function>, Vec<u8>),
    /// Make a version of a name the latest.
    Redeploy(String, String),
    /// Forget a name.
    Undeploy(String),
}

/// The columns without the content, in the order in which [`function`] reads them.
macro_rules! columns {
    () => {
        "name, version, created_at, deployed_at, kind, bytes, entrypoint, form, interpreter, bound, choice, deadline_ms"
    };
}

/// Later than every deployment before, whatever the clock does.
macro_rules! moment {
    () => {
        "max(?1, (SELECT coalesce(max(deployed_at), 0) + 1 FROM functions))"
    };
}

impl Change {
    pub(super) async fn carry_out(&self, connection: &mut SqliteConnection) -> Result<Vec<Function>, StoreError> {
        let now = Timestamp::now().as_micros();
        let query = match self {
            Self::Deploy(function, content) => sqlx::query(concat!(
                "INSERT INTO functions (",
                columns!(),
                ", content) SELECT ?2, ?3, moment, moment, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12 FROM (SELECT ",
                moment!(),
                " AS moment) WHERE true ON CONFLICT DO UPDATE SET deployed_at = excluded.deployed_at, bound = excluded.bound, \
                 choice = excluded.choice, deadline_ms = excluded.deadline_ms RETURNING ",
                columns!()
            ))
            .bind(now)
            .bind(&function.name)
            .bind(&function.version)
            .bind(function.kind.code())
            .bind(i64::try_from(function.bytes).unwrap_or(i64::MAX))
            .bind(&function.entrypoint)
            .bind(function.form.code())
            .bind(&function.interpreter)
            .bind(function.defaults.bound.map(Code::code))
            .bind(function.defaults.executor.code())
            .bind(function.defaults.deadline.map(|deadline| i64::try_from(deadline.as_millis()).unwrap_or(i64::MAX)))
            .bind(content),
            Self::Redeploy(name, version) => sqlx::query(concat!(
                "UPDATE functions SET deployed_at = ",
                moment!(),
                " WHERE name = ?2 AND version = ?3 RETURNING ",
                columns!()
            ))
            .bind(now)
            .bind(name)
            .bind(version),
            Self::Undeploy(name) => {
                sqlx::query(concat!("DELETE FROM functions WHERE name = ?1 RETURNING ", columns!())).bind(name)
            }
        };
        query.fetch_all(connection).await?.iter().map(function).collect()
    }
}

pub(super) async fn all(readers: &SqlitePool) -> Result<Vec<Function>, StoreError> {
    let text = concat!("SELECT ", columns!(), " FROM functions ORDER BY name, deployed_at DESC");
    sqlx::query(text).fetch_all(readers).await?.iter().map(function).collect()
}

pub(super) async fn content(readers: &SqlitePool, name: &str, version: &str) -> Result<Option<Vec<u8>>, StoreError> {
    let query = sqlx::query_scalar("SELECT content FROM functions WHERE name = ? AND version = ?");
    Ok(query.bind(name).bind(version).fetch_optional(readers).await?)
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
    })
}
