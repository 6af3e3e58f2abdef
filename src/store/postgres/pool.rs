//! Connections for what is short and does not change what waits or runs. Whoever asks for something on them is answered in bounded time: a
//! database that is cut off says nothing, and neither does the operating system, for a quarter of an hour.

use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt as _, StreamExt as _, TryFutureExt as _, TryStreamExt as _};
use std::ops::{Deref, DerefMut};

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgQueryResult, PgRow, PgStatement, PgTypeInfo};
use sqlx::{AssertSqlSafe, Either, Execute, Executor, PgConnection, PgPool, Postgres, SqlStr, Transaction};

use super::connect::in_time;
use super::session::Local;

/// The pool, in which a statement and each row of its answer have a time limit. Whoever takes a connection or begins a transaction has to set
/// one.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    pub(super) all: PgPool,
    local: Local,
}

/// A connection of the pool for several statements; where sessions are not kept, a transaction. What that has changed goes if it is dropped.
pub(super) enum Held {
    Connection(PoolConnection<Postgres>),
    Transaction(Transaction<'static, Postgres>),
}

impl Pool {
    pub(super) const fn new(all: PgPool, local: Local) -> Self {
        Self { all, local }
    }

    pub(super) async fn acquire(&self) -> Result<Held, sqlx::Error> {
        Ok(if self.local.is_kept() {
            Held::Connection(self.all.acquire().await?)
        } else {
            Held::Transaction(self.begin().await?)
        })
    }

    pub(super) async fn begin(&self) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
        self.begin_with("BEGIN").await
    }

    /// A transaction that sees all as it is now, and changes nothing.
    pub(super) async fn snapshot(&self) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
        self.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await
    }

    async fn begin_with(&self, begin: &str) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
        // The settings have no text of others in them.
        self.all.begin_with(AssertSqlSafe(self.local.after(begin))).await
    }

    /// Closes it, once what is being asked is answered.
    pub(super) async fn close(&self) {
        // One that is cut off has nothing to say to that either.
        let _ = in_time(self.all.close().map(Ok::<_, sqlx::Error>)).await;
    }
}

impl Held {
    /// Keeps what was changed.
    pub(super) async fn keep(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Connection(_) => Ok(()),
            Self::Transaction(transaction) => transaction.commit().await,
        }
    }
}

impl Deref for Held {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        match self {
            Self::Connection(connection) => connection,
            Self::Transaction(transaction) => transaction,
        }
    }
}

impl DerefMut for Held {
    fn deref_mut(&mut self) -> &mut PgConnection {
        match self {
            Self::Connection(connection) => connection,
            Self::Transaction(transaction) => transaction,
        }
    }
}

impl<'p> Executor<'p> for &'p Pool {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, sqlx::Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        if !self.local.is_kept() {
            let rows = in_time(async move {
                let mut transaction = self.begin().await?;
                let rows: Vec<_> = Executor::fetch_many(&mut *transaction, query).try_collect().await?;
                transaction.commit().await?;
                Ok::<_, sqlx::Error>(stream::iter(rows.into_iter().map(Ok)))
            });
            return rows.try_flatten_stream().boxed();
        }
        let rows = Executor::fetch_many(&self.all, query);
        // After an error there is nothing more.
        let next = async |rows: Option<BoxStream<'e, _>>| {
            let mut rows = rows?;
            let next = in_time(rows.try_next()).await.transpose()?;
            let rows = next.is_ok().then_some(rows);
            Some((next, rows))
        };
        stream::unfold(Some(rows), next).boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, sqlx::Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        Box::pin(in_time(async move {
            if self.local.is_kept() {
                return Executor::fetch_optional(&self.all, query).await;
            }
            let mut transaction = self.begin().await?;
            let row = Executor::fetch_optional(&mut *transaction, query).await?;
            transaction.commit().await?;
            Ok(row)
        }))
    }

    fn prepare_with<'e>(self, sql: SqlStr, parameters: &'e [PgTypeInfo]) -> BoxFuture<'e, Result<PgStatement, sqlx::Error>>
    where
        'p: 'e,
    {
        Box::pin(in_time(Executor::prepare_with(&self.all, sql, parameters)))
    }
}
