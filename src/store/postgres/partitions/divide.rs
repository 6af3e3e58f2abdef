//! Plain tables become partitioned ones, under the nodes that go on with them: the names stay, and no row is copied.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use uuid::Uuid;

use super::super::connect::may_go_by;
use super::{Day, Partition, TABLES, is_of_the_moment};
use crate::clock::Timestamp;
use crate::store::StoreError;

/// What holds of a plain table that is about to be a partition: all its ids are before a day.
const BOUND: &str = "only_before";
/// How often the tables are asked for, and how long to wait in between: longer each time.
const TRIES: u32 = 6;
const PAUSE: Duration = Duration::from_secs(1);

/// Divides the tables if that is `wanted` and was not done; takes back what a server that went down in the middle of it left.
pub(in super::super) async fn divide(connection: &mut PgConnection, wanted: bool, now: Timestamp) -> Result<(), StoreError> {
    if super::list(connection).await?.is_some() {
        return Ok(());
    }
    if !wanted {
        return take_back(connection).await;
    }
    // One server at a time, for as long as it is there: it may take hours until all rows have been looked at.
    let lock = "SELECT pg_try_advisory_lock(to_regclass('shared')::OID::BIGINT)";
    if !sqlx::query_scalar::<_, bool>(lock).fetch_one(&mut *connection).await? {
        tracing::info!("another server is dividing the tables of jobs and results");
        return Ok(());
    }
    let done = try_to(connection, now).await;
    if done.is_err() {
        // What was asked of their rows would hold up jobs one day.
        if let Err(error) = unbind(connection).await {
            tracing::warn!(%error, "{BOUND} could not be taken from jobs and results; it is tried again");
        }
    }
    sqlx::query("SELECT pg_advisory_unlock(to_regclass('shared')::OID::BIGINT)").execute(connection).await?;
    match done {
        Err(error) if is_of_the_moment(&error) => {
            tracing::warn!(%error, "the tables of jobs and results are in use all the time; they are divided at another start");
            Ok(())
        }
        done => done,
    }
}

/// Takes back what a server that went down in the middle of it has left, or could not take back: it would hold up jobs one day.
pub(in super::super) async fn take_back(connection: &mut PgConnection) -> Result<(), StoreError> {
    if !is_bound(connection).await? {
        return Ok(());
    }
    let mut transaction = connection.begin().await?;
    // One that is at it now has the lock.
    let lock = "SELECT pg_try_advisory_xact_lock(to_regclass('shared')::OID::BIGINT)";
    let done = match sqlx::query_scalar(lock).fetch_one(&mut *transaction).await {
        Ok(true) => unbind(&mut transaction).await,
        Ok(false) => Ok(()),
        Err(error) => Err(error.into()),
    };
    match done {
        Ok(()) => Ok(transaction.commit().await?),
        Err(error) => {
            transaction.rollback().await?;
            if is_of_the_moment(&error) { Ok(()) } else { Err(error) }
        }
    }
}

async fn is_bound(connection: &mut PgConnection) -> Result<bool, StoreError> {
    let text = "SELECT EXISTS (SELECT 1 FROM pg_constraint WHERE conname = $1 AND conrelid IN (to_regclass('jobs'), to_regclass('results')))";
    Ok(sqlx::query_scalar(text).bind(BOUND).fetch_one(connection).await?)
}

async fn try_to(connection: &mut PgConnection, now: Timestamp) -> Result<(), StoreError> {
    // All rows are looked at once, however often the tables have to be asked for after that.
    let mut bound = None;
    let mut tries = 1;
    loop {
        match once(connection, now, &mut bound).await {
            // Whoever else wants the tables waits behind each of these.
            Err(error) if is_of_the_moment(&error) && tries < TRIES => tokio::time::sleep(PAUSE * tries).await,
            done => return done,
        }
        tries += 1;
    }
}

async fn once(connection: &mut PgConnection, now: Timestamp, bound: &mut Option<Day>) -> Result<(), StoreError> {
    // Whoever had the lock before may have done it.
    if super::list(connection).await?.is_some() {
        return Ok(());
    }
    let until = match *bound {
        Some(until) => until,
        None => bind(connection, now).await?,
    };
    // Where there was nothing, there may be something by now that is not before that day.
    *bound = (until > Day::of(now)).then_some(until);
    swap(connection, until).await
}

/// Sees to it that all rows are of before a day, and says of which.
async fn bind(connection: &mut PgConnection, now: Timestamp) -> Result<Day, StoreError> {
    unbind(connection).await?;
    let today = Day::of(now);
    let latest: Option<Uuid> =
        sqlx::query_scalar("SELECT id FROM jobs ORDER BY id DESC LIMIT 1").fetch_optional(&mut *connection).await?;
    let Some(latest) = latest else { return Ok(today) };
    // What is submitted until all rows have been looked at has to be before it as well: if that takes longer than a day, or a clock is wrong by as
    // much, such jobs are refused.
    let until = today.plus(2).max(Day::of_id(latest).plus(1));
    if until > today.plus(2) {
        tracing::warn!(
            until = until.name(),
            "there is a job whose id is of a day to come: all days before it are one partition, and kept until then"
        );
    }
    let end = until.first_id();
    for table in TABLES {
        let text = format!(
            "SET lock_timeout = '500ms'; ALTER TABLE {table} ADD CONSTRAINT {BOUND} CHECK (id < '{end}') NOT VALID; RESET lock_timeout"
        );
        sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut *connection).await?;
    }
    tracing::info!(
        "all jobs and results are looked at once, before their tables are divided by day; other servers go on meanwhile"
    );
    for table in TABLES {
        // Others read and write meanwhile.
        let text = format!("ALTER TABLE {table} VALIDATE CONSTRAINT {BOUND}");
        sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut *connection).await?;
    }
    Ok(until)
}

async fn unbind(connection: &mut PgConnection) -> Result<(), StoreError> {
    if !is_bound(connection).await? {
        return Ok(());
    }
    for table in TABLES {
        let text =
            format!("SET lock_timeout = '500ms'; ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {BOUND}; RESET lock_timeout");
        sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut *connection).await?;
    }
    Ok(())
}

/// Puts partitioned tables in the place of the plain ones, which become their partitions of what was before a day.
async fn swap(connection: &mut PgConnection, until: Day) -> Result<(), StoreError> {
    let Some(suffix) = Partition::before(until).suffix() else {
        return Err(StoreError::Corrupt("a job has an id of after the year 9999".into()));
    };
    let mut transaction = connection.begin().await?;
    if let Err(error) = swap_in(&mut transaction, &suffix, until).await {
        // At once: all wait for its locks.
        transaction.rollback().await?;
        return Err(error);
    }
    transaction.commit().await?;
    tracing::info!("the tables of jobs and results are divided by day from now on");
    Ok(())
}

async fn swap_in(connection: &mut PgConnection, suffix: &str, until: Day) -> Result<(), StoreError> {
    sqlx::query("SET LOCAL lock_timeout = '5s'").execute(&mut *connection).await?;
    // All writers begin with it, so none is in the midst of something; and programs that can't go by this schema write nothing.
    may_go_by(sqlx::query_scalar("SELECT oldest FROM shared FOR UPDATE").fetch_one(&mut *connection).await?)?;
    // All wait behind this.
    sqlx::query("SET LOCAL lock_timeout = '500ms'").execute(&mut *connection).await?;
    sqlx::query("LOCK TABLE jobs, results IN ACCESS EXCLUSIVE MODE").execute(&mut *connection).await?;
    for table in TABLES {
        divide_table(connection, table, suffix, until).await?;
    }
    Ok(())
}

async fn divide_table(connection: &mut PgConnection, table: &str, suffix: &str, until: Day) -> Result<(), StoreError> {
    let text = "SELECT c.relname::TEXT, pg_get_indexdef(i.indexrelid), i.indisprimary FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid \
                WHERE i.indrelid = to_regclass($1) AND i.indisvalid ORDER BY c.relname";
    let indexes: Vec<(String, String, bool)> = sqlx::query_as(text).bind(table).fetch_all(&mut *connection).await?;
    let old = format!("{table}_{suffix}");
    let mut steps = vec![format!("ALTER TABLE {table} RENAME TO {old}")];
    for (name, ..) in &indexes {
        let what = name.strip_prefix(table).unwrap_or(name);
        steps.push(format!("ALTER INDEX \"{name}\" RENAME TO \"{old}{what}\""));
    }
    steps.push(format!(
        "CREATE TABLE {table} (LIKE {old} INCLUDING ALL EXCLUDING INDEXES EXCLUDING CONSTRAINTS) PARTITION BY RANGE (id)"
    ));
    // Each index under its old name: those of the old table are found to be the same, and attached.
    for (_, definition, is_primary) in indexes {
        steps.push(if is_primary { format!("ALTER TABLE {table} ADD PRIMARY KEY (id)") } else { definition });
    }
    let end = until.first_id();
    steps.push(format!("ALTER TABLE {table} ATTACH PARTITION {old} FOR VALUES FROM (MINVALUE) TO ('{end}')"));
    steps.push(format!("ALTER TABLE {old} DROP CONSTRAINT IF EXISTS {BOUND}"));
    steps.push(format!("CREATE TABLE {table}_rest PARTITION OF {table} DEFAULT"));
    // Names and definitions are those of the migrations, and of a day.
    sqlx::raw_sql(AssertSqlSafe(steps.join("; "))).execute(connection).await?;
    Ok(())
}
