//! Connections for what is short and does not change what waits or runs. Whoever asks for something on them is answered in bounded time: a
//! database that is cut off says nothing, and neither does the operating system, for a quarter of an hour.

use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgQueryResult, PgRow, PgStatement, PgTypeInfo};
use sqlx::{Either, Execute, Executor, PgPool, Postgres, SqlStr, Transaction};

use super::connect::in_time;

/// The pool, in which a statement and each row of its answer have a time limit. Whoever takes a connection or begins a transaction has to set
/// one.
#[derive(Clone, Debug)]
pub(super) struct Pool(pub(super) PgPool);

impl Pool {
    pub(super) async fn acquire(&self) -> Result<PoolConnection<Postgres>, sqlx::Error> {
        self.0.acquire().await
    }

    pub(super) async fn begin(&self) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
        self.0.begin().await
    }

    /// A transaction that sees all as it is now, and changes nothing.
    pub(super) async fn snapshot(&self) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
        self.0.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await
    }

    /// Closes it, once what is being asked is answered.
    pub(super) async fn close(&self) {
        // One that is cut off has nothing to say to that either.
        let _ = in_time(self.0.close().map(Ok::<_, sqlx::Error>)).await;
    }
}

impl<'p> Executor<'p> for &Pool {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, sqlx::Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let rows = Executor::fetch_many(&self.0, query);
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
        Box::pin(in_time(Executor::fetch_optional(&self.0, query)))
    }

    fn prepare_with<'e>(self, sql: SqlStr, parameters: &'e [PgTypeInfo]) -> BoxFuture<'e, Result<PgStatement, sqlx::Error>>
    where
        'p: 'e,
    {
        Box::pin(in_time(Executor::prepare_with(&self.0, sql, parameters)))
    }
}
