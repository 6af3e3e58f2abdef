//! Connections for what is short and does not change what waits or runs. Whoever asks for something on them is answered in bounded time: a
//! database that is cut off says nothing, and neither does the operating system, for a quarter of an hour.

use std::ops::{Deref, DerefMut};

use futures_util::future::{BoxFuture, ready};
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgQueryResult, PgRow, PgStatement, PgTypeInfo};
use sqlx::{AssertSqlSafe, Either, Execute, Executor, PgConnection, PgPool, Postgres, SqlStr, Transaction};
use tokio::sync::mpsc;

use super::connect::in_time;
use super::session::{Local, USUAL};

/// The pool, in which a statement and each row of its answer have a time limit. Whoever takes a connection or begins a transaction has to set
/// one.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    pub(super) all: PgPool,
    local: Local,
}

/// A connection of the pool for several statements; where sessions are not kept, a transaction. What that has changed goes if it is dropped.
pub(super) enum Lent {
    Connection(PoolConnection<Postgres>),
    Transaction(Transaction<'static, Postgres>),
}

impl Pool {
    pub(super) const fn new(all: PgPool, local: Local) -> Self {
        Self { all, local }
    }

    /// Whether a session is this one's from one transaction to the next.
    pub(super) const fn keeps_sessions(&self) -> bool {
        self.local.is_kept()
    }

    pub(super) async fn acquire(&self) -> Result<Lent, sqlx::Error> {
        Ok(if self.local.is_kept() {
            Lent::Connection(self.all.acquire().await?)
        } else {
            Lent::Transaction(self.begin().await?)
        })
    }

    pub(super) async fn begin(&self) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
        self.begin_at(USUAL).await
    }

    /// A transaction that sees all as it is now, and changes nothing.
    pub(super) async fn snapshot(&self) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
        self.begin_at("REPEATABLE READ READ ONLY").await
    }

    async fn begin_at(&self, level: &str) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
        // The settings have no text of others in them.
        self.all.begin_with(AssertSqlSafe(self.local.begin(level))).await
    }

    /// What a statement gives, in a transaction of its own.
    fn alone<'e, 'q: 'e, E>(&'e self, query: E) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, sqlx::Error>>
    where
        E: 'q + Execute<'q, Postgres>,
    {
        // One row at a time: whoever reads a page may have enough before its end.
        let (row, mut rows) = mpsc::channel(1);
        let carry_out = async move {
            let mut transaction = in_time(self.begin()).await?;
            let mut all = Executor::fetch_many(&mut *transaction, query);
            while let Some(next) = in_time(all.try_next()).await? {
                if row.send(next).await.is_err() {
                    return Ok(());
                }
            }
            drop(all);
            in_time(transaction.commit()).await
        };
        let rows = stream::poll_fn(move |context| rows.poll_recv(context)).map(Ok);
        // Whoever reads ends with an error.
        let failed = stream::once(carry_out).filter_map(|ended: Result<(), sqlx::Error>| ready(ended.err().map(Err)));
        stream::select(rows, failed).boxed()
    }

    /// Closes it, once what is being asked is answered.
    pub(super) async fn close(&self) {
        // One that is cut off has nothing to say to that either.
        let _ = in_time(self.all.close().map(Ok::<_, sqlx::Error>)).await;
    }
}

impl Lent {
    /// Keeps what was changed.
    pub(super) async fn keep(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Connection(_) => Ok(()),
            Self::Transaction(transaction) => transaction.commit().await,
        }
    }
}

impl Deref for Lent {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        match self {
            Self::Connection(connection) => connection,
            Self::Transaction(transaction) => transaction,
        }
    }
}

impl DerefMut for Lent {
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
            return self.alone(query);
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
        Box::pin(in_time(async move {
            if self.local.is_kept() {
                return Executor::prepare_with(&self.all, sql, parameters).await;
            }
            Executor::prepare_with(&mut *self.begin().await?, sql, parameters).await
        }))
    }
}
