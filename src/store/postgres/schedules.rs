//! Schedules, as they are kept and read.

use std::collections::HashMap;

use async_trait::async_trait;
use sqlx::PgConnection;

use super::PostgresStore;
use super::rows::{text, uuid};
use super::writer::{Acceptance, Command, With};
use crate::clock::Timestamp;
use crate::job::{NewJob, Owner};
use crate::schedule::{Fire, Schedule, Seen};
use crate::store::kept::{Cells, code, number, schedule};
use crate::store::{Firing, MANY, ScheduleStore, StoreError};

#[async_trait]
impl ScheduleStore for PostgresStore {
    async fn add_schedule(&self, schedule: Schedule) -> Result<bool, StoreError> {
        self.edit(schedule, |schedule, connection| Box::pin(add(connection, schedule))).await
    }

    async fn replace_schedule(&self, schedule: Schedule) -> Result<bool, StoreError> {
        self.edit(schedule, |schedule, connection| Box::pin(replace(connection, schedule))).await
    }

    async fn pause_schedule(&self, schedule: Schedule) -> Result<bool, StoreError> {
        self.edit(schedule, |schedule, connection| Box::pin(pause(connection, schedule))).await
    }

    async fn remove_schedule(&self, name: &str) -> Result<bool, StoreError> {
        self.edit(name.to_owned(), |name, connection| Box::pin(remove(connection, name))).await
    }

    async fn schedule(&self, name: &str) -> Result<Option<Schedule>, StoreError> {
        let row = sqlx::query(schedule::ONE).bind(name).fetch_optional(&self.pool).await?;
        row.as_ref().map(schedule::read).transpose()
    }

    async fn schedules(&self, after: Option<&str>, limit: usize) -> Result<Vec<Schedule>, StoreError> {
        // No name is empty.
        let rows = |most| sqlx::query(schedule::BY_NAME).bind(after.unwrap_or_default()).bind(most).fetch(&self.pool);
        self.unread.pass(limit, rows).await
    }

    async fn due_schedules(&self, now: Timestamp, limit: usize) -> Result<Vec<Schedule>, StoreError> {
        let rows = |most| sqlx::query(schedule::DUE).bind(now.as_micros()).bind(most).fetch(&self.pool);
        self.unread.pass(limit, rows).await
    }

    async fn count_schedules(&self) -> Result<(u64, u64), StoreError> {
        let row = sqlx::query(schedule::COUNT).bind(MANY.cast_signed()).fetch_one(&self.pool).await?;
        let mut cells = Cells::new(&row);
        Ok((cells.number()?, cells.number()?))
    }

    async fn schedules_of(&self, owner: Owner) -> Result<u64, StoreError> {
        let (first, last) = schedule::names_of(owner);
        let row = sqlx::query(schedule::OF_OWNER).bind(first).bind(last).fetch_one(&self.pool).await?;
        Cells::new(&row).number()
    }

    async fn next_schedule_due(&self, after: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        let next: Option<i64> = sqlx::query_scalar(schedule::NEXT_DUE).bind(after.as_micros()).fetch_one(&self.pool).await?;
        Ok(next.map(Timestamp::from_micros))
    }

    async fn schedule_seen(&self, name: &str) -> Result<Seen, StoreError> {
        let text = "SELECT EXISTS (SELECT 1 FROM fires JOIN work ON work.id = fires.job WHERE schedule = $1), \
                    (SELECT count(*) FROM fires WHERE schedule = $1 AND outcome = 1), \
                    (SELECT max(due_at) FROM fires WHERE schedule = $1 AND NOT by_hand)";
        schedule::read_seen(&sqlx::query(text).bind(name).fetch_one(&self.pool).await?)
    }

    async fn waiting_schedules(&self) -> Result<Vec<(String, bool)>, StoreError> {
        let text = "SELECT name, NOT EXISTS (SELECT 1 FROM fires JOIN work ON work.id = fires.job WHERE schedule = name) \
                    FROM schedules WHERE NOT paused AND name IN (SELECT schedule FROM fires WHERE outcome = 1)";
        Ok(sqlx::query_as(text).fetch_all(&self.pool).await?)
    }

    async fn first_waiting_fire(&self, schedule: &str) -> Result<Option<Fire>, StoreError> {
        let row = sqlx::query(schedule::FIRST_WAITING).bind(schedule).fetch_optional(&self.pool).await?;
        row.as_ref().map(schedule::read_fire).transpose()
    }

    async fn fires(&self, schedule: &str, limit: usize) -> Result<Vec<Fire>, StoreError> {
        let query = sqlx::query(schedule::LATEST).bind(schedule).bind(number(limit));
        query.fetch_all(&self.pool).await?.iter().map(schedule::read_fire).collect()
    }

    async fn latest_fires(&self, after: &str, last: &str) -> Result<HashMap<String, Fire>, StoreError> {
        let query = sqlx::query(schedule::LATEST_OF_PAGE).bind(after).bind(last);
        query.fetch_all(&self.pool).await?.iter().filter_map(schedule::read_named_fire).collect()
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
    let query = sqlx::query(schedule::ADD)
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
    let query = sqlx::query(schedule::REPLACE)
        .bind(schedule.timetable.expression())
        .bind(schedule.timetable.zone())
        .bind(code(schedule.catch_up))
        .bind(code(schedule.overlap))
        .bind(schedule.job.get())
        .bind(schedule.changed_at.as_micros())
        .bind(schedule.next_at.map(Timestamp::as_micros))
        .bind(&schedule.name)
        .bind(schedule.paused);
    Ok(query.execute(connection).await?.rows_affected() > 0)
}

async fn pause(connection: &mut PgConnection, schedule: &Schedule) -> Result<bool, StoreError> {
    let query = sqlx::query(schedule::PAUSE)
        .bind(schedule.paused)
        .bind(schedule.next_at.map(Timestamp::as_micros))
        .bind(&schedule.name)
        .bind(schedule.changed_at.as_micros());
    Ok(query.execute(connection).await?.rows_affected() > 0)
}

async fn remove(connection: &mut PgConnection, name: &str) -> Result<bool, StoreError> {
    // The row that a firing locks comes first.
    let removed = sqlx::query(schedule::REMOVE).bind(name).execute(&mut *connection).await?;
    sqlx::query(schedule::REMOVE_FIRES).bind(name).execute(connection).await?;
    Ok(removed.rows_affected() > 0)
}

/// Whether another node has done it already, or the schedule is paused, changed or gone: it is not due for the first of the times, or that is not
/// the first one that waits, or has to wait on.
pub(super) async fn is_fired(connection: &mut PgConnection, firing: &Firing) -> Result<bool, StoreError> {
    let Firing { schedule, fires, waited, next_at, made_of, .. } = firing;
    let made_of = made_of.map(Timestamp::as_micros);
    if *waited > 0 {
        // What edits it waits until this is committed.
        let text =
            "SELECT 1 FROM schedules WHERE name = $1 AND NOT paused AND ($2::BIGINT IS NULL OR changed_at = $2) FOR UPDATE";
        if sqlx::query(text).bind(schedule).bind(made_of).fetch_optional(&mut *connection).await?.is_none() {
            return Ok(true);
        }
        let text = "SELECT (SELECT due_at FROM fires WHERE schedule = $1 AND outcome = 1 ORDER BY id LIMIT 1) IS DISTINCT FROM $2 \
                    OR EXISTS (SELECT 1 FROM fires JOIN work ON work.id = fires.job WHERE schedule = $1)";
        let first = fires.first().map(|fire| fire.due_at.as_micros());
        return Ok(sqlx::query_scalar(text).bind(schedule).bind(first).fetch_one(connection).await?);
    }
    if next_at.is_none() {
        return Ok(false);
    }
    let first = fires.iter().find(|fire| !fire.by_hand).map(|fire| fire.due_at.as_micros());
    // What edits it waits until this is committed.
    let text = "SELECT 1 FROM schedules WHERE name = $1 AND NOT paused AND ($2::BIGINT IS NULL OR next_at <= $2) \
                AND ($3::BIGINT IS NULL OR changed_at = $3) FOR UPDATE";
    let query = sqlx::query(text).bind(schedule).bind(first).bind(made_of);
    Ok(query.fetch_optional(connection).await?.is_none())
}

/// Writes down what became of the times, inside the writer's transaction.
pub(super) async fn note_fires(connection: &mut PgConnection, firing: &Firing) -> Result<(), StoreError> {
    let Firing { schedule, fires, waited, next_at, jobs: _, made_of: _ } = firing;
    if *waited > 0 {
        sqlx::query(schedule::REMOVE_WAITING).bind(schedule).bind(number(*waited)).execute(&mut *connection).await?;
    }
    for fire in fires {
        let (outcome, job, skip, error) = schedule::columns_of(&fire.outcome);
        let query = sqlx::query(schedule::ADD_FIRE).bind(schedule).bind(fire.due_at.as_micros()).bind(fire.at.as_micros());
        query
            .bind(fire.by_hand)
            .bind(outcome)
            .bind(job.map(uuid))
            .bind(skip.map(code))
            .bind(error.map(|error| text(error)))
            .execute(&mut *connection)
            .await?;
    }
    if let Some(next_at) = next_at {
        let query = sqlx::query(schedule::ADVANCE).bind(next_at.map(Timestamp::as_micros));
        query.bind(schedule).execute(&mut *connection).await?;
    }
    let text = "DELETE FROM fires WHERE schedule = $1 AND outcome <> 1 \
                AND id <= (SELECT id FROM fires WHERE schedule = $1 ORDER BY id DESC LIMIT 1 OFFSET $2) \
                AND NOT EXISTS (SELECT 1 FROM work WHERE work.id = fires.job)";
    sqlx::query(text).bind(schedule).bind(schedule::KEPT).execute(connection).await?;
    Ok(())
}
