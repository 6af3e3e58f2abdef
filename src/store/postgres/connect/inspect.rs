//! What is found out of a database, and of what is between it and this node, before anything is written.

use sqlx::{AssertSqlSafe, PgConnection, Row as _};

use super::super::hosts::at;
use super::super::session::{Local, Session};
use super::{BY_KEY, CONNECT, Connect, LONGEST_THERE, LONGEST_UNREAD, LOOK_FOR_CLIENT, Locals, Use, if_it_can, in_time};
use crate::store::StoreError;

/// How often it is looked whether sessions are kept, and prepared statements: a pooler that others use as well may give back the same session by
/// chance.
const LOOKS: usize = 12;

/// What others may have set in a session that they have had, by which an answer could be given too soon: as the database has it.
const OF_OTHERS: (&str, &str) = ("synchronous_commit", "DEFAULT");

impl Connect {
    /// Finds out, before anything is written, what would only show in the middle of the work; and whether sessions are kept.
    pub(in crate::store::postgres) async fn inspect(&mut self) -> Result<(), StoreError> {
        let mut connection = self.open_with(Use::Look, CONNECT).await?;
        let place = at(self.hosts.latest());
        let refused = |why: &str| Err(StoreError::Unusable(format!("the PostgreSQL at {place} can't be used: {why}")));
        // As simple queries, which need no prepared statement.
        let text = "SELECT pg_backend_pid()::TEXT, pg_is_in_recovery()::TEXT, current_setting('transaction_read_only'), \
                    current_setting('server_encoding')";
        let row = sqlx::raw_sql(text).fetch_one(&mut *connection).await?;
        let another = self.shared_with(&mut connection, row.try_get(0)?).await?;
        if row.try_get::<&str, _>(1)? == "true" {
            return refused("it is a standby, in which nothing can be written");
        }
        if row.try_get::<&str, _>(2)? == "on" {
            return refused("it is read-only (`default_transaction_read_only` is on for this database or user)");
        }
        match row.try_get::<&str, _>(3)? {
            "UTF8" => {}
            other => return refused(&format!("its encoding is {other}, which can't take all texts: make a database with UTF8")),
        }
        if let Some(mut another) = another {
            if !in_time(keep_statements(&mut connection, &mut another)).await? {
                return refused(
                    "what is in between keeps neither sessions nor prepared statements, as a pooler in transaction mode may: have it keep \
                     one of both (`pool_mode = session`, or PgBouncer 1.21 or newer with `max_prepared_statements = 200`)",
                );
            }
            self.local = in_time(self.locals(&mut connection)).await?;
            tracing::info!(
                "what is between this node and its database does not keep sessions: hints of other nodes are not heard"
            );
            another.close().await?;
        }
        Ok(connection.close().await?)
    }

    /// A connection that is given sessions which this one has had - it had this one -, if sessions are not kept.
    async fn shared_with(&self, connection: &mut PgConnection, mine: &str) -> Result<Option<Session>, StoreError> {
        // All open at once: there may be several poolers, of which each connection gets another one.
        let mut others = Vec::with_capacity(LOOKS);
        for _ in 0..LOOKS {
            let mut another = match self.open_with(Use::Look, CONNECT).await {
                Ok(another) => another,
                // There may be no room for as many.
                Err(_) if !others.is_empty() => break,
                Err(error) => return Err(error),
            };
            let is_kept = in_time(async {
                // In a transaction, even a pooler that keeps no sessions keeps this one; the other has to be where it was meanwhile, and after
                // that, as that one's may be the first to be given away again.
                let text = "BEGIN; SELECT pg_backend_pid()::TEXT";
                let theirs: String = sqlx::raw_sql(text).fetch_one(&mut *another).await?.try_get(0)?;
                let is_kept = mine != theirs && mine == backend(connection).await?;
                sqlx::raw_sql("ROLLBACK").execute(&mut *another).await?;
                Ok::<_, sqlx::Error>(is_kept && mine == backend(connection).await?)
            });
            if !is_kept.await? {
                return Ok(Some(another));
            }
            others.push(another);
        }
        for another in others {
            another.close().await?;
        }
        Ok(None)
    }

    /// What transactions begin with, as far as the database has it.
    async fn locals(&self, connection: &mut PgConnection) -> Result<Locals, StoreError> {
        let settings = self.settings();
        let mut usual: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
        usual.extend(as_it_can(connection, &[LOOK_FOR_CLIENT, OF_OTHERS]).await?);
        let with = |more: &[(&'static str, &'static str)]| Local::new(&[&usual, more].concat());
        let by_key = as_it_can(connection, &[&BY_KEY[..], &[LONGEST_UNREAD]].concat()).await?;
        let by_index = as_it_can(connection, &[("statement_timeout", LONGEST_THERE), ("jit", "'off'")]).await?;
        Ok(Locals { usual: with(&[]), by_key: with(&by_key), by_index: with(&by_index) })
    }
}

/// Warns where there is room for fewer connections than this node may open: some who read wait for one then, and are refused.
pub(in crate::store::postgres) async fn count_room(connection: &mut PgConnection, most: u32) -> Result<(), sqlx::Error> {
    let text = "SELECT CASE WHEN rolsuper THEN current_setting('max_connections')::INT \
                ELSE least(nullif(rolconnlimit, -1), nullif(datconnlimit, -1), current_setting('max_connections')::INT \
                - current_setting('superuser_reserved_connections')::INT - coalesce(current_setting('reserved_connections', true)::INT, 0)) \
                END::BIGINT FROM pg_roles, pg_database WHERE rolname = session_user AND datname = current_database()";
    let counted = in_time(sqlx::query_scalar::<_, i64>(text).fetch_optional(connection)).await;
    if let Ok(Some(room)) = counted
        && room < i64::from(most)
    {
        tracing::warn!(room, most, "the database has room for fewer connections than `database_connections` and two more");
    }
    if_it_can(counted)
}

/// Whose session this one is just now, as a simple query.
async fn backend(connection: &mut PgConnection) -> Result<String, sqlx::Error> {
    sqlx::raw_sql("SELECT pg_backend_pid()::TEXT").fetch_one(connection).await?.try_get(0)
}

/// Those of these settings that a transaction can have.
async fn as_it_can<'a>(
    connection: &mut PgConnection,
    settings: &[(&'a str, &'a str)],
) -> Result<Vec<(&'a str, &'a str)>, sqlx::Error> {
    let mut can = Vec::new();
    for &(name, value) in settings {
        let set = sqlx::raw_sql(AssertSqlSafe(format!("BEGIN; SET LOCAL {name} = {value}"))).execute(&mut *connection).await;
        if set.is_ok() {
            can.push((name, value));
        }
        if_it_can(set)?;
        sqlx::raw_sql("ROLLBACK").execute(&mut *connection).await?;
    }
    Ok(can)
}

/// Whether a statement that was prepared can be used whichever session a pooler takes for it, and is not mistaken for another client's.
async fn keep_statements(connection: &mut PgConnection, second: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let ask =
        async |connection: &mut PgConnection, text: &'static str| match sqlx::query(text).bind(1_i64).execute(connection).await {
            Err(sqlx::Error::Database(_)) => Ok(false),
            asked => asked.map(|_| true),
        };
    for _ in 0..LOOKS {
        let mut is_known = ask(connection, "SELECT $1::BIGINT").await?;
        // That one may have had this session before, which it can't have now.
        sqlx::raw_sql("BEGIN; SELECT 1").execute(&mut *second).await?;
        is_known = is_known && ask(connection, "SELECT $1::BIGINT").await? && ask(second, "SELECT $1::BIGINT + 1").await?;
        sqlx::raw_sql("ROLLBACK").execute(&mut *second).await?;
        if !is_known {
            return Ok(false);
        }
    }
    Ok(true)
}
