//! The SQL of the writer. Each function is one step inside the writer's transaction.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::ser::{Serialize, SerializeTuple, Serializer};
use sqlx::{Row as _, SqliteConnection};

use super::codes::Code;
use super::rows::{self, Ended, Fresh, OF_CLAIM, OF_RESULT, SHARED};
use crate::clock::Timestamp;
use crate::job::{Conclusion, Ending, Failure, FailureKind, Job, JobId, NewJob, Outcome, Queue, State};
use crate::store::{Lease, Sketches, StoreError, SummaryKey};

type Connection = SqliteConnection;

/// The token and the moment of a claim.
#[derive(Clone, Copy)]
pub(super) struct Claim {
    pub(super) token: i64,
    pub(super) at: Timestamp,
}

/// What most transactions consist of. However many rows there are, each step is one statement, prepared once, whose argument is a JSON
/// array with a row each; and all steps together are one trip to the thread that talks to SQLite.
#[derive(Default)]
pub(super) struct Script<'a> {
    /// Running jobs to move to the results.
    pub(super) ends: Vec<End<'a>>,
    /// New jobs; with a claim if they are to run at once.
    pub(super) jobs: Vec<Insertion<'a>>,
    /// Rollups to replace.
    pub(super) rollups: Vec<(SummaryKey, Sketches)>,
}

pub(super) struct End<'a> {
    pub(super) lease: Lease,
    pub(super) conclusion: &'a Conclusion,
    pub(super) started_at: Timestamp,
    pub(super) finished_at: Timestamp,
}

pub(super) struct Insertion<'a> {
    pub(super) job: &'a NewJob,
    pub(super) claim: Option<Claim>,
}

/// The steps of a script. The first takes two arguments, the rows and their ids; each of the others one.
static STEPS: LazyLock<[String; 4]> = LazyLock::new(|| {
    let shared = SHARED.split(", ").map(|column| format!("jobs.{column}")).collect::<Vec<_>>().join(", ");
    let cells = |from: usize, to: usize| (from..=to).map(|n| format!("value ->> {n}")).collect::<Vec<_>>().join(", ");
    let (of_end, of_job) = (cells(2, 7), cells(1, 8));
    [
        format!(
            "INSERT INTO results ({SHARED}, {OF_RESULT}) SELECT {shared}, {of_end} FROM jsonb_each(?) \
             CROSS JOIN jobs ON jobs.id = unhex(value ->> 0) AND jobs.token = value ->> 1 AND jobs.state = 2; \
             DELETE FROM jobs WHERE id IN (SELECT unhex(value) FROM jsonb_each(?)) \
             AND EXISTS (SELECT 1 FROM results WHERE results.id = jobs.id);"
        ),
        format!(
            "INSERT INTO jobs (id, queue, rule, bound, choice, type, workload, priority, options, \
                               accepted_at, due_at, token, claimed_at, state, attempt) \
             SELECT unhex(value ->> 0), {of_job}, value ->> 9, value ->> 9, value ->> 10, value ->> 11, \
                    iif(value ->> 10 IS NULL, 1, 2), value ->> 10 IS NOT NULL FROM jsonb_each(?);"
        ),
        "INSERT INTO tags (key, value, id) SELECT value ->> 0, value ->> 1, unhex(value ->> 2) FROM jsonb_each(?);".into(),
        "INSERT INTO rollups (type, bound, executor, ending, sketches) \
         SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, unhex(value ->> 4) FROM jsonb_each(?) WHERE true \
         ON CONFLICT DO UPDATE SET sketches = excluded.sketches;"
            .into(),
    ]
});

/// Every script there can be: for each choice of steps its text, inside a transaction and as one of its own.
static SCRIPTS: LazyLock<[[String; 2]; 16]> = LazyLock::new(|| {
    std::array::from_fn(|choice| {
        let steps: Vec<&str> = (0..4).filter(|step| choice & 1 << step != 0).map(|step| &*STEPS[step]).collect();
        let text = steps.join(" ");
        // A single statement is a transaction by itself.
        let alone = if text.matches(';').count() == 1 { text.clone() } else { format!("BEGIN IMMEDIATE; {text} COMMIT") };
        [text, alone]
    })
});

impl Script<'_> {
    /// The steps inside a transaction.
    pub(super) async fn run(&self, connection: &mut Connection) -> Result<(), StoreError> {
        self.execute(connection, |[inside, _]| inside).await
    }

    /// The steps as a transaction of their own.
    pub(super) async fn run_and_commit(&self, connection: &mut Connection) -> Result<(), StoreError> {
        self.execute(connection, |[_, alone]| alone).await
    }

    async fn execute(
        &self,
        connection: &mut Connection,
        which: fn(&'static [String; 2]) -> &'static str,
    ) -> Result<(), StoreError> {
        let tags: Vec<_> = self
            .jobs
            .iter()
            .flat_map(|Insertion { job, .. }| job.submission.tags.iter().map(move |(key, value)| (key, value, hex_id(job.id))))
            .collect();
        let rollups: Vec<_> = self
            .rollups
            .iter()
            .map(|(key, sketches)| {
                (&*key.workload, key.bound.code(), key.executor.code(), key.ending.code(), hex(&sketches.to_bytes()))
            })
            .collect();
        let ended: Vec<_> = self.ends.iter().map(|end| hex_id(end.lease.id)).collect();
        let arguments = [[rows(&self.ends), rows(&ended)], [rows(&self.jobs), None], [rows(&tags), None], [rows(&rollups), None]];
        let choice =
            arguments.iter().enumerate().filter(|(_, [rows, _])| rows.is_some()).fold(0, |choice, (step, _)| choice | 1 << step);
        if choice == 0 {
            return Ok(());
        }
        let script = sqlx::query(which(&SCRIPTS[choice]));
        arguments.into_iter().flatten().flatten().fold(script, sqlx::query::Query::bind).execute(connection).await?;
        Ok(())
    }
}

/// Rows as the argument of a step, if there are any.
fn rows(rows: &[impl Serialize]) -> Option<String> {
    (!rows.is_empty()).then(|| json(rows))
}

impl Serialize for End<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { lease, conclusion, started_at, finished_at } = self;
        let (output, error) = match &conclusion.outcome {
            Outcome::Output(output) => (Some(output.get()), None),
            Outcome::Error(failure) => (None, Some(json(failure))),
        };
        let mut row = serializer.serialize_tuple(8)?;
        row.serialize_element(&hex_id(lease.id))?;
        row.serialize_element(&lease.token)?;
        row.serialize_element(&conclusion.ending.code())?;
        row.serialize_element(&started_at.as_micros())?;
        row.serialize_element(&finished_at.as_micros())?;
        row.serialize_element(&output)?;
        row.serialize_element(&error)?;
        row.serialize_element(&conclusion.timing.as_ref().map(|timing| json(&rows::figures(timing))))?;
        row.end()
    }
}

impl Serialize for Insertion<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { job, claim } = self;
        let submission = &job.submission;
        let mut row = serializer.serialize_tuple(12)?;
        row.serialize_element(&hex_id(job.id))?;
        row.serialize_element(&job.route.queue.code())?;
        row.serialize_element(&job.route.rule.code())?;
        row.serialize_element(&submission.bound.code())?;
        row.serialize_element(&submission.executor.code())?;
        row.serialize_element(&submission.workload.kind)?;
        row.serialize_element(submission.workload.json.get())?;
        row.serialize_element(&submission.priority)?;
        row.serialize_element(&rows::Options::of(submission).map(|options| json(&options)))?;
        row.serialize_element(&job.accepted_at.as_micros())?;
        row.serialize_element(&claim.map(|claim| claim.token))?;
        row.serialize_element(&claim.map(|claim| claim.at.as_micros()))?;
        row.end()
    }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

/// As SQLite's `unhex` reads it.
pub(super) fn hex_id(id: JobId) -> uuid::fmt::Simple {
    uuid::Uuid::from_bytes(*id.as_bytes()).simple()
}

/// Claims up to `most` queued jobs, the highest priority first, then the oldest: each a microsecond later than the one before, the
/// first one a microsecond after `claim.at`.
pub(super) async fn claim(
    connection: &mut Connection,
    queue: Queue,
    most: usize,
    claim: Claim,
) -> Result<Vec<Fresh>, StoreError> {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        format!(
            "UPDATE jobs SET state = 2, attempt = attempt + 1, token = ?, claimed_at = ? + place FROM \
             (SELECT next, row_number() OVER (ORDER BY first DESC, next) AS place FROM \
              (SELECT id AS next, priority AS first FROM jobs WHERE state = 1 AND queue = ? ORDER BY priority DESC, id LIMIT ?)) \
             WHERE id = next RETURNING {OF_CLAIM}"
        )
    });
    let rows = sqlx::query(TEXT.as_str())
        .bind(claim.token)
        .bind(claim.at.as_micros())
        .bind(queue.code())
        .bind(i64::try_from(most).unwrap_or(i64::MAX))
        .fetch_all(connection)
        .await?;
    let mut claimed = rows.iter().map(rows::claimed).collect::<Result<Vec<_>, _>>()?;
    claimed.sort_unstable_by_key(|(priority, fresh)| (-priority, fresh.claimed.lease.id));
    Ok(claimed.into_iter().map(|(_, fresh)| fresh).collect())
}

/// Moves an unfinished job, wherever it is, to the results, without anything measured.
pub(super) async fn end(
    connection: &mut Connection,
    id: JobId,
    ending: Ending,
    failure: &Failure,
    at: Timestamp,
) -> Result<Ended, StoreError> {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        format!(
            "INSERT INTO results ({SHARED}, started_at, ending, finished_at, error) \
             SELECT {SHARED}, iif(state = 2, claimed_at, NULL), ?, ?, ? FROM jobs WHERE id = ? \
             RETURNING queue, bound, type, options, attempt, started_at"
        )
    });
    let row = sqlx::query(TEXT.as_str())
        .bind(ending.code())
        .bind(at.as_micros())
        .bind(json(failure))
        .bind(&id.as_bytes()[..])
        .fetch_one(&mut *connection)
        .await?;
    sqlx::query("DELETE FROM jobs WHERE id = ?").bind(&id.as_bytes()[..]).execute(connection).await?;
    rows::ended(&row)
}

/// The queue and the state of an unfinished job.
pub(super) async fn place(connection: &mut Connection, id: JobId) -> Result<Option<(Queue, i64)>, StoreError> {
    let row =
        sqlx::query("SELECT queue, state FROM jobs WHERE id = ?").bind(&id.as_bytes()[..]).fetch_optional(connection).await?;
    row.map(|row| Ok((Queue::from_code(row.try_get(0)?)?, row.try_get(1)?))).transpose()
}

/// Makes a running job wait again until `due_at`, and counts a loss if it was one.
pub(super) async fn again(connection: &mut Connection, id: JobId, due_at: Timestamp, lost: bool) -> Result<(), StoreError> {
    sqlx::query("UPDATE jobs SET state = 0, due_at = ?, token = NULL, losses = losses + ? WHERE id = ?")
        .bind(due_at.as_micros())
        .bind(i64::from(lost))
        .bind(&id.as_bytes()[..])
        .execute(connection)
        .await?;
    Ok(())
}

/// Makes a running job wait again as if it had not been claimed.
pub(super) async fn release(connection: &mut Connection, id: JobId) -> Result<(), StoreError> {
    sqlx::query("UPDATE jobs SET state = 1, token = NULL, attempt = attempt - 1 WHERE id = ?")
        .bind(&id.as_bytes()[..])
        .execute(connection)
        .await?;
    Ok(())
}

pub(super) async fn mark_stopping(connection: &mut Connection, id: JobId) -> Result<(), StoreError> {
    sqlx::query("UPDATE jobs SET stopping = 1 WHERE id = ?").bind(&id.as_bytes()[..]).execute(connection).await?;
    Ok(())
}

/// Queues the scheduled jobs that are due; how many in each queue.
pub(super) async fn promote(connection: &mut Connection, now: Timestamp) -> Result<Vec<Queue>, StoreError> {
    let rows = sqlx::query("UPDATE jobs SET state = 1 WHERE state = 0 AND due_at <= ? RETURNING queue")
        .bind(now.as_micros())
        .fetch_all(connection)
        .await?;
    rows.iter().map(|row| Queue::from_code(row.try_get(0)?)).collect()
}

/// The oldest job that has not ended.
pub(super) async fn oldest(connection: &mut Connection) -> Result<Option<JobId>, StoreError> {
    let id: Option<Vec<u8>> = sqlx::query_scalar("SELECT min(id) FROM jobs").fetch_one(connection).await?;
    let corrupt = |_| StoreError::Corrupt("an id is not 16 bytes long".into());
    id.map(|id| id.try_into().map(JobId::from_bytes).map_err(corrupt)).transpose()
}

/// When the next scheduled job is due.
pub(super) async fn next_due(connection: &mut Connection) -> Result<Option<Timestamp>, StoreError> {
    let due: Option<i64> = sqlx::query_scalar("SELECT min(due_at) FROM jobs WHERE state = 0").fetch_one(connection).await?;
    Ok(due.map(Timestamp::from_micros))
}

pub(super) async fn result(connection: &mut Connection, id: JobId) -> Result<Option<Job>, StoreError> {
    static TEXT: LazyLock<String> = LazyLock::new(|| format!("SELECT {SHARED}, {OF_RESULT} FROM results WHERE id = ?"));
    let row = sqlx::query(TEXT.as_str()).bind(&id.as_bytes()[..]).fetch_optional(connection).await?;
    row.as_ref().map(rows::result).transpose()
}

/// Moves a result back to the queue.
pub(super) async fn requeue(connection: &mut Connection, id: JobId, now: Timestamp) -> Result<(), StoreError> {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let columns = SHARED.trim_end_matches(", losses");
        format!("INSERT INTO jobs ({columns}, state, due_at) SELECT {columns}, 1, ? FROM results WHERE id = ?")
    });
    sqlx::query(TEXT.as_str()).bind(now.as_micros()).bind(&id.as_bytes()[..]).execute(&mut *connection).await?;
    sqlx::query("DELETE FROM results WHERE id = ?").bind(&id.as_bytes()[..]).execute(connection).await?;
    Ok(())
}

/// The running jobs with their losses and retry rules.
pub(super) async fn running(connection: &mut Connection) -> Result<Vec<Job>, StoreError> {
    static TEXT: LazyLock<String> =
        LazyLock::new(|| format!("SELECT {SHARED}, {} FROM jobs WHERE state = 2 ORDER BY id", rows::OF_JOB));
    let rows = sqlx::query(TEXT.as_str()).fetch_all(connection).await?;
    rows.iter().map(rows::unfinished).collect()
}

/// How many jobs wait, by queue and state.
pub(super) async fn count_waiting(connection: &mut Connection) -> Result<Vec<(Queue, i64, u64)>, StoreError> {
    // Two counts, each over a partial index.
    let queued = "SELECT queue, 1, count(*) FROM jobs WHERE state = 1 GROUP BY queue";
    let scheduled = "SELECT queue, 0, count(*) FROM jobs WHERE state = 0 GROUP BY queue";
    let mut counts = Vec::new();
    for text in [queued, scheduled] {
        for row in sqlx::query(text).fetch_all(&mut *connection).await? {
            let count: i64 = row.try_get(2)?;
            counts.push((Queue::from_code(row.try_get(0)?)?, row.try_get(1)?, u64::try_from(count).unwrap_or(0)));
        }
    }
    Ok(counts)
}

pub(super) async fn rollups(connection: &mut Connection) -> Result<BTreeMap<SummaryKey, Sketches>, StoreError> {
    let rows = sqlx::query("SELECT type, bound, executor, ending, sketches FROM rollups").fetch_all(connection).await?;
    rows.iter()
        .map(|row| {
            let key = SummaryKey {
                workload: row.try_get::<&str, _>(0)?.into(),
                bound: Code::from_code(row.try_get(1)?)?,
                executor: Code::from_code(row.try_get(2)?)?,
                ending: Code::from_code(row.try_get(3)?)?,
            };
            let sketches = Sketches::from_bytes(row.try_get(4)?)
                .map_err(|error| StoreError::Corrupt(format!("the rollup of {}: {error}", key.workload)))?;
            Ok((key, sketches))
        })
        .collect()
}

/// Writes something that changes nothing, to see whether writing works.
pub(super) async fn touch(connection: &mut Connection) -> Result<(), StoreError> {
    sqlx::query("UPDATE server SET boot = boot").execute(connection).await?;
    Ok(())
}

/// Counts this start of a server.
pub(super) async fn next_boot(connection: &mut Connection) -> Result<i64, StoreError> {
    let text = "INSERT INTO server (one, boot) VALUES (1, 1) ON CONFLICT (one) DO UPDATE SET boot = boot + 1 RETURNING boot";
    Ok(sqlx::query_scalar(text).fetch_one(connection).await?)
}

/// Types of this program with string keys, which always can be written as JSON.
fn json(value: &(impl Serialize + ?Sized)) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// Whether a job that was running when its runner died is finished by that, and how.
pub(super) fn fate(job: &Job, max_losses: u32) -> Option<(Ending, Failure)> {
    if matches!(job.state, State::Running { stopping: true, .. }) {
        return Some((Ending::Cancelled, Failure::cancelled()));
    }
    let losses = job.losses + 1;
    (!job.submission.retry.survives_loss(losses, max_losses)).then(|| {
        let message = format!("the server went down while this job ran, for the {} time; it is not run again", ordinal(losses));
        (Ending::Lost, Failure::new(FailureKind::Lost, message))
    })
}

fn ordinal(n: u32) -> String {
    match n {
        1 => "first".into(),
        2 => "second".into(),
        3 => "third".into(),
        n => format!("{n}th"),
    }
}
