//! Schedules, as the writer changes them and as they are read.

use async_trait::async_trait;
use serde_json::value::RawValue;
use sqlx::PgConnection;

use super::PostgresStore;
use super::rows::{Cells, code, number, text, uuid};
use super::writer::{Acceptance, Command, With};
use crate::clock::Timestamp;
use crate::job::NewJob;
use crate::schedule::{Fire, FireOutcome, Schedule, Seen, Timetable};
use crate::store::{Firing, ScheduleStore, StoreError};

/// How many times of a schedule are kept, besides those that wait and those whose jobs have not ended.
const KEPT: usize = 100;

/// The columns in the order in which [`schedule`] reads them.
macro_rules! columns {
    () => {
        "name, cron, timezone, catch_up, overlap, job, paused, created_at, changed_at, next_at"
    };
}

/// The columns in the order in which [`fire`] reads them.
macro_rules! of_fire {
    () => {
        "due_at, at, by_hand, outcome, job, skip, error"
    };
}

// What is in the column `outcome`; the partial index on those that wait names it too.
const SUBMITTED: i16 = 0;
const WAITING: i16 = 1;
const SKIPPED: i16 = 2;
const FAILED: i16 = 3;

#[async_trait]
impl ScheduleStore for PostgresStore {
    async fn add_schedule(&self, schedule: Schedule) -> Result<bool, StoreError> {
        self.edit(schedule, |schedule, connection| Box::pin(add(connection, schedule))).await
    }

    async fn replace_schedule(&self, schedule: Schedule) -> Result<bool, StoreError> {
        self.edit(schedule, |schedule, connection| Box::pin(replace(connection, schedule))).await
    }

    async fn pause_schedule(&self, name: &str, paused: bool, next_at: Option<Timestamp>) -> Result<bool, StoreError> {
        let given = (name.to_owned(), paused, next_at);
        self.edit(given, |(name, paused, next_at), connection| Box::pin(pause(connection, name, *paused, *next_at))).await
    }

    async fn remove_schedule(&self, name: &str) -> Result<bool, StoreError> {
        self.edit(name.to_owned(), |name, connection| Box::pin(remove(connection, name))).await
    }

    async fn schedule(&self, name: &str) -> Result<Option<Schedule>, StoreError> {
        let text = concat!("SELECT ", columns!(), " FROM schedules WHERE name = $1");
        let row = sqlx::query(text).bind(name).fetch_optional(&self.pool).await?;
        row.as_ref().map(|row| schedule(&mut Cells::new(row))).transpose()
    }

    async fn schedules(&self, after: Option<&str>, limit: usize) -> Result<Vec<Schedule>, StoreError> {
        // No name is empty.
        let text = concat!("SELECT ", columns!(), " FROM schedules WHERE name > $1 ORDER BY name LIMIT $2");
        let query = sqlx::query(text).bind(after.unwrap_or_default()).bind(number(limit));
        query.fetch_all(&self.pool).await?.iter().map(|row| schedule(&mut Cells::new(row))).collect()
    }

    async fn due_schedules(&self, now: Timestamp, limit: usize) -> Result<Vec<Schedule>, StoreError> {
        let text = concat!("SELECT ", columns!(), " FROM schedules WHERE next_at <= $1 ORDER BY next_at LIMIT $2");
        let query = sqlx::query(text).bind(now.as_micros()).bind(number(limit));
        query.fetch_all(&self.pool).await?.iter().map(|row| schedule(&mut Cells::new(row))).collect()
    }

    async fn next_schedule_due(&self) -> Result<Option<Timestamp>, StoreError> {
        let text = "SELECT min(next_at) FROM schedules WHERE next_at IS NOT NULL";
        let next: Option<i64> = sqlx::query_scalar(text).fetch_one(&self.pool).await?;
        Ok(next.map(Timestamp::from_micros))
    }

    async fn schedule_seen(&self, name: &str) -> Result<Seen, StoreError> {
        let text = "SELECT EXISTS (SELECT 1 FROM fires JOIN work ON work.id = fires.job WHERE schedule = $1), \
                    (SELECT count(*) FROM fires WHERE schedule = $1 AND outcome = 1), \
                    (SELECT max(due_at) FROM fires WHERE schedule = $1 AND NOT by_hand)";
        let row = sqlx::query(text).bind(name).fetch_one(&self.pool).await?;
        let mut cells = Cells::new(&row);
        Ok(Seen { busy: cells.take()?, waiting: cells.number()?, latest: cells.time_or_none()? })
    }

    async fn waiting_schedules(&self) -> Result<Vec<(String, bool)>, StoreError> {
        let text = "SELECT name, NOT EXISTS (SELECT 1 FROM fires JOIN work ON work.id = fires.job WHERE schedule = name) \
                    FROM schedules WHERE NOT paused AND name IN (SELECT schedule FROM fires WHERE outcome = 1)";
        Ok(sqlx::query_as(text).fetch_all(&self.pool).await?)
    }

    async fn first_waiting_fire(&self, schedule: &str) -> Result<Option<Fire>, StoreError> {
        let text = concat!("SELECT ", of_fire!(), " FROM fires WHERE schedule = $1 AND outcome = 1 ORDER BY id LIMIT 1");
        let row = sqlx::query(text).bind(schedule).fetch_optional(&self.pool).await?;
        row.as_ref().map(|row| fire(&mut Cells::new(row))).transpose()
    }

    async fn fires(&self, schedule: &str, limit: usize) -> Result<Vec<Fire>, StoreError> {
        let text = concat!("SELECT ", of_fire!(), " FROM fires WHERE schedule = $1 ORDER BY id DESC LIMIT $2");
        let query = sqlx::query(text).bind(schedule).bind(number(limit));
        query.fetch_all(&self.pool).await?.iter().map(|row| fire(&mut Cells::new(row))).collect()
    }

    async fn fire(&self, mut firing: Firing) -> Result<Vec<NewJob>, StoreError> {
        let jobs = std::mem::take(&mut firing.jobs);
        let with = With::Firing(firing);
        if jobs.is_empty() {
            self.ask(|reply| Command::With(with, reply)).await?;
            return Ok(jobs);
        }
        self.ask(|reply| Command::Accept(Acceptance { jobs, with: Some(with), reply })).await
    }
}

async fn add(connection: &mut PgConnection, schedule: &Schedule) -> Result<bool, StoreError> {
    let text = concat!(
        "INSERT INTO schedules (",
        columns!(),
        ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING"
    );
    let query = sqlx::query(text)
        .bind(&schedule.name)
        .bind(schedule.timetable.expression())
        .bind(schedule.timetable.zone())
        .bind(code(schedule.catch_up))
        .bind(code(schedule.overlap))
        .bind(schedule.job.get())
        .bind(schedule.paused)
        .bind(schedule.created_at.as_micros())
        .bind(schedule.changed_at.as_micros())
        .bind(schedule.next_at.map(Timestamp::as_micros));
    Ok(query.execute(connection).await?.rows_affected() > 0)
}

async fn replace(connection: &mut PgConnection, schedule: &Schedule) -> Result<bool, StoreError> {
    let text = "UPDATE schedules SET cron = $1, timezone = $2, catch_up = $3, overlap = $4, job = $5, paused = $6, changed_at = $7, \
                next_at = $8 WHERE name = $9";
    let query = sqlx::query(text)
        .bind(schedule.timetable.expression())
        .bind(schedule.timetable.zone())
        .bind(code(schedule.catch_up))
        .bind(code(schedule.overlap))
        .bind(schedule.job.get())
        .bind(schedule.paused)
        .bind(schedule.changed_at.as_micros())
        .bind(schedule.next_at.map(Timestamp::as_micros))
        .bind(&schedule.name);
    Ok(query.execute(connection).await?.rows_affected() > 0)
}

async fn pause(connection: &mut PgConnection, name: &str, paused: bool, next_at: Option<Timestamp>) -> Result<bool, StoreError> {
    let query = sqlx::query("UPDATE schedules SET paused = $1, next_at = $2 WHERE name = $3");
    let done = query.bind(paused).bind(next_at.map(Timestamp::as_micros)).bind(name).execute(connection).await?;
    Ok(done.rows_affected() > 0)
}

async fn remove(connection: &mut PgConnection, name: &str) -> Result<bool, StoreError> {
    sqlx::query("DELETE FROM fires WHERE schedule = $1").bind(name).execute(&mut *connection).await?;
    let removed = sqlx::query("DELETE FROM schedules WHERE name = $1").bind(name).execute(connection).await?;
    Ok(removed.rows_affected() > 0)
}

/// Whether another node has done it already: the times are behind the schedule's next one, or do not wait any more.
pub(super) async fn is_fired(connection: &mut PgConnection, firing: &Firing) -> Result<bool, StoreError> {
    let Firing { schedule, fires, waited, next_at, .. } = firing;
    let first = fires.iter().find(|fire| !fire.by_hand).map(|fire| fire.due_at.as_micros());
    if *waited > 0 {
        let text = "SELECT count(*) FROM fires WHERE schedule = $1 AND outcome = 1";
        let waiting: i64 = sqlx::query_scalar(text).bind(schedule).fetch_one(&mut *connection).await?;
        return Ok(waiting < number(*waited));
    }
    let (Some(_), Some(first)) = (next_at, first) else { return Ok(false) };
    let text = "SELECT EXISTS (SELECT 1 FROM schedules WHERE name = $1 AND next_at > $2)";
    Ok(sqlx::query_scalar(text).bind(schedule).bind(first).fetch_one(connection).await?)
}

/// Writes down what became of the times, inside the writer's transaction.
pub(super) async fn note_fires(connection: &mut PgConnection, firing: &Firing) -> Result<(), StoreError> {
    let Firing { schedule, fires, waited, next_at, jobs: _ } = firing;
    if *waited > 0 {
        let text =
            "DELETE FROM fires WHERE id IN (SELECT id FROM fires WHERE schedule = $1 AND outcome = 1 ORDER BY id LIMIT $2)";
        sqlx::query(text).bind(schedule).bind(number(*waited)).execute(&mut *connection).await?;
    }
    for fire in fires {
        let (outcome, job, skip, error) = match &fire.outcome {
            FireOutcome::Submitted(job) => (SUBMITTED, Some(uuid(*job)), None, None),
            FireOutcome::Waiting => (WAITING, None, None, None),
            FireOutcome::Skipped(skip) => (SKIPPED, None, Some(code(*skip)), None),
            FireOutcome::Failed(error) => (FAILED, None, None, Some(text(error))),
        };
        let text = concat!("INSERT INTO fires (schedule, ", of_fire!(), ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8)");
        let query = sqlx::query(text).bind(schedule).bind(fire.due_at.as_micros()).bind(fire.at.as_micros());
        query.bind(fire.by_hand).bind(outcome).bind(job).bind(skip).bind(error).execute(&mut *connection).await?;
    }
    if let Some(next_at) = next_at {
        let query = sqlx::query("UPDATE schedules SET next_at = $1 WHERE name = $2").bind(next_at.map(Timestamp::as_micros));
        query.bind(schedule).execute(&mut *connection).await?;
    }
    let text = "DELETE FROM fires WHERE schedule = $1 AND outcome <> 1 \
                AND id <= (SELECT id FROM fires WHERE schedule = $1 ORDER BY id DESC LIMIT 1 OFFSET $2) \
                AND NOT EXISTS (SELECT 1 FROM work WHERE work.id = fires.job)";
    sqlx::query(text).bind(schedule).bind(number(KEPT)).execute(connection).await?;
    Ok(())
}

fn schedule(cells: &mut Cells<'_>) -> Result<Schedule, StoreError> {
    let name: String = cells.take()?;
    let (expression, zone): (&str, &str) = (cells.take()?, cells.take()?);
    let corrupt = |error: &dyn std::fmt::Display| StoreError::Corrupt(format!("the schedule {name}: {error}"));
    let timetable = Timetable::parse(expression, zone).map_err(|error| corrupt(&error))?;
    let (catch_up, overlap) = (cells.code()?, cells.code()?);
    let job = RawValue::from_string(cells.take()?).map_err(|error| corrupt(&error))?;
    Ok(Schedule {
        timetable,
        catch_up,
        overlap,
        job,
        paused: cells.take()?,
        created_at: cells.time()?,
        changed_at: cells.time()?,
        next_at: cells.time_or_none()?,
        name,
    })
}

fn fire(cells: &mut Cells<'_>) -> Result<Fire, StoreError> {
    let (due_at, at, by_hand, outcome) = (cells.time()?, cells.time()?, cells.take()?, cells.take::<i16>()?);
    let outcome = match outcome {
        SUBMITTED => FireOutcome::Submitted(cells.id()?),
        WAITING => FireOutcome::Waiting,
        SKIPPED => {
            cells.take::<Option<uuid::Uuid>>()?;
            FireOutcome::Skipped(cells.code()?)
        }
        FAILED => {
            cells.take::<Option<uuid::Uuid>>()?;
            cells.take::<Option<i16>>()?;
            FireOutcome::Failed(cells.take()?)
        }
        other => return Err(StoreError::Corrupt(format!("{other} is no outcome of a schedule"))),
    };
    Ok(Fire { due_at, at, by_hand, outcome })
}
