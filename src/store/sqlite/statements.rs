//! The SQL of the writer. Each function is one step inside the writer's transaction.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use sqlx::sqlite::SqliteArguments;
use sqlx::{AssertSqlSafe, Row as _, SqliteConnection};

use super::codes::Code;
use super::rows::{self, OF_CLAIM, OF_RESULT, SHARED};
use super::values::ValuesStatement;
use crate::clock::Timestamp;
use crate::job::{Ending, Failure, FailureKind, Finished, Job, JobId, NewJob, Outcome, Queue, Retry, State, Timing};
use crate::store::{Claimed, Lease, StoreError, SummaryKey};

type Connection = SqliteConnection;

/// A job to insert; with a claim if it is to run at once.
pub(super) struct Insertion<'a> {
    pub(super) job: &'a NewJob,
    pub(super) claim: Option<Claim>,
}

/// The token and the moment of a claim.
#[derive(Clone, Copy)]
pub(super) struct Claim {
    pub(super) token: i64,
    pub(super) at: Timestamp,
}

/// A result that was recorded.
pub(super) struct Recorded {
    pub(super) id: JobId,
    pub(super) queue: Queue,
    pub(super) key: SummaryKey,
}

static INSERT: ValuesStatement = ValuesStatement::new(
    "INSERT INTO jobs (id, queue, rule, bound, choice, type, workload, priority, deadline_ms, retry, tags, \
                       accepted_at, due_at, token, claimed_at, state, attempt) \
     SELECT column1, column2, column3, column4, column5, column6, column7, column8, column9, column10, column11, \
            column12, column12, column13, column14, iif(column13 IS NULL, 1, 2), column13 IS NOT NULL \
     FROM {values} WHERE column1 IS NOT NULL",
    14,
);

pub(super) async fn insert(connection: &mut Connection, insertions: &[Insertion<'_>]) -> Result<(), StoreError> {
    let batches = INSERT.batches(insertions, |Insertion { job, claim }, binder| {
        let submission = &job.submission;
        let retry = (submission.retry != Retry::default()).then(|| json(&submission.retry));
        let tags = (!submission.tags.is_empty()).then(|| json(&submission.tags));
        binder
            .bind(&job.id.as_bytes()[..])
            .bind(job.route.queue.code())
            .bind(job.route.rule.code())
            .bind(submission.bound.code())
            .bind(submission.executor.code())
            .bind(submission.workload.kind.as_str())
            .bind(submission.workload.json.get())
            .bind(i64::from(submission.priority))
            .bind(submission.deadline.map(|deadline| i64::try_from(deadline.as_millis()).unwrap_or(i64::MAX)))
            .bind(retry)
            .bind(tags)
            .bind(job.accepted_at.as_micros())
            .bind(claim.map(|claim| claim.token))
            .bind(claim.map(|claim| claim.at.as_micros()));
    });
    run(connection, batches).await?;

    let labels: Vec<_> = insertions
        .iter()
        .flat_map(|Insertion { job, .. }| job.submission.tags.iter().map(move |(key, value)| (job.id, key, value)))
        .collect();
    let batches = INSERT_TAGS.batches(&labels, |(id, key, value), binder| {
        binder.bind(key.as_str()).bind(value.as_str()).bind(&id.as_bytes()[..]);
    });
    run(connection, batches).await
}

static INSERT_TAGS: ValuesStatement = ValuesStatement::new(
    "INSERT INTO tags (key, value, id) SELECT column1, column2, column3 FROM {values} WHERE column1 IS NOT NULL",
    3,
);

async fn run(
    connection: &mut Connection,
    batches: impl Iterator<Item = (AssertSqlSafe<std::sync::Arc<str>>, Result<SqliteArguments, sqlx::Error>)>,
) -> Result<(), StoreError> {
    for (text, arguments) in batches {
        sqlx::query_with(text, arguments?).execute(&mut *connection).await?;
    }
    Ok(())
}

/// Claims up to `most` queued jobs, the highest priority first, then the oldest.
pub(super) async fn claim(
    connection: &mut Connection,
    queue: Queue,
    most: usize,
    claim: Claim,
) -> Result<Vec<Claimed>, StoreError> {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        format!(
            "UPDATE jobs SET state = 2, attempt = attempt + 1, token = ?, claimed_at = ? \
             WHERE id IN (SELECT id FROM jobs WHERE state = 1 AND queue = ? ORDER BY priority DESC, id LIMIT ?) RETURNING {OF_CLAIM}"
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
    claimed.sort_unstable_by_key(|(priority, claimed)| (-priority, claimed.lease.id));
    Ok(claimed.into_iter().map(|(_, claimed)| claimed).collect())
}

static FINISH: LazyLock<ValuesStatement> = LazyLock::new(|| {
    let shared = SHARED.split(", ").map(|column| format!("jobs.{column}")).collect::<Vec<_>>().join(", ");
    let given = (3..=17).map(|n| format!("column{n}")).collect::<Vec<_>>().join(", ");
    let text = format!(
        "INSERT INTO results ({SHARED}, {OF_RESULT}) SELECT {shared}, {given} \
         FROM {{values}} CROSS JOIN jobs ON jobs.id = column1 AND jobs.token = column2 AND jobs.state = 2 \
         WHERE column1 IS NOT NULL RETURNING id, queue, bound, type, ending"
    );
    ValuesStatement::new(text.leak(), 17)
});

/// Moves running jobs to the results, those whose lease is valid. No job may be among them twice.
pub(super) async fn finish(connection: &mut Connection, finishes: &[(Lease, &Finished)]) -> Result<Vec<Recorded>, StoreError> {
    let mut recorded = Vec::with_capacity(finishes.len());
    let batches = FINISH.batches(finishes, |(lease, finished), binder| {
        let (output, error) = outcome(&finished.outcome);
        binder
            .bind(&lease.id.as_bytes()[..])
            .bind(lease.token)
            .bind(finished.ending.code())
            .bind(finished.started_at.map(Timestamp::as_micros))
            .bind(finished.finished_at.as_micros())
            .bind(output)
            .bind(error);
        for figure in figures(finished.timing.as_ref()) {
            binder.bind(figure);
        }
    });
    for (text, arguments) in batches {
        for row in sqlx::query_with(text, arguments?).fetch_all(&mut *connection).await? {
            recorded.push(recorded_row(&row)?);
        }
    }
    Ok(recorded)
}

fn recorded_row(row: &sqlx::sqlite::SqliteRow) -> Result<Recorded, StoreError> {
    let id: &[u8] = row.try_get(0)?;
    let id = id.try_into().map(JobId::from_bytes).map_err(|_| StoreError::Corrupt("an id is not 16 bytes long".into()))?;
    let queue = Queue::from_code(row.try_get(1)?)?;
    let key = SummaryKey {
        bound: Code::from_code(row.try_get(2)?)?,
        workload: row.try_get(3)?,
        executor: queue.executor(),
        ending: Ending::from_code(row.try_get(4)?)?,
    };
    Ok(Recorded { id, queue, key })
}

/// Moves an unfinished job, wherever it is, to the results, without anything measured.
pub(super) async fn end(
    connection: &mut Connection,
    id: JobId,
    ending: Ending,
    failure: &Failure,
    at: Timestamp,
) -> Result<Recorded, StoreError> {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        format!(
            "INSERT INTO results ({SHARED}, ending, finished_at, error) SELECT {SHARED}, ?, ?, ? FROM jobs WHERE id = ? \
             RETURNING id, queue, bound, type, ending"
        )
    });
    let row = sqlx::query(TEXT.as_str())
        .bind(ending.code())
        .bind(at.as_micros())
        .bind(json(failure))
        .bind(&id.as_bytes()[..])
        .fetch_one(connection)
        .await?;
    recorded_row(&row)
}

/// The failure that a job is left with when a client cancelled it.
pub(super) fn cancelled() -> Failure {
    Failure::new(FailureKind::Cancelled, "cancelled at a client's wish")
}

/// Where an unfinished job is, for those who change single ones.
pub(super) struct Place {
    pub(super) state: i64,
    pub(super) queue: Queue,
    pub(super) token: Option<i64>,
    pub(super) stopping: bool,
}

pub(super) async fn place(connection: &mut Connection, id: JobId) -> Result<Option<Place>, StoreError> {
    let row = sqlx::query("SELECT state, queue, token, stopping FROM jobs WHERE id = ?")
        .bind(&id.as_bytes()[..])
        .fetch_optional(connection)
        .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Place {
        state: row.try_get(0)?,
        queue: Queue::from_code(row.try_get(1)?)?,
        token: row.try_get(2)?,
        stopping: row.try_get::<i64, _>(3)? != 0,
    }))
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

pub(super) async fn save_rollup(connection: &mut Connection, key: &SummaryKey, sketches: Vec<u8>) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO rollups (type, bound, executor, ending, sketches) VALUES (?, ?, ?, ?, ?) \
         ON CONFLICT DO UPDATE SET sketches = excluded.sketches",
    )
    .bind(key.workload.as_str())
    .bind(key.bound.code())
    .bind(key.executor.code())
    .bind(key.ending.code())
    .bind(sketches)
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn rollups(connection: &mut Connection) -> Result<BTreeMap<SummaryKey, crate::store::Sketches>, StoreError> {
    let rows = sqlx::query("SELECT type, bound, executor, ending, sketches FROM rollups").fetch_all(connection).await?;
    rows.iter()
        .map(|row| {
            let key = SummaryKey {
                workload: row.try_get(0)?,
                bound: Code::from_code(row.try_get(1)?)?,
                executor: Code::from_code(row.try_get(2)?)?,
                ending: Code::from_code(row.try_get(3)?)?,
            };
            let sketches = crate::store::Sketches::from_bytes(row.try_get(4)?)
                .map_err(|error| StoreError::Corrupt(format!("the rollup of {}: {error}", key.workload)))?;
            Ok((key, sketches))
        })
        .collect()
}

/// Counts this start of a server.
pub(super) async fn next_boot(connection: &mut Connection) -> Result<i64, StoreError> {
    let text = "INSERT INTO server (one, boot) VALUES (1, 1) ON CONFLICT (one) DO UPDATE SET boot = boot + 1 RETURNING boot";
    Ok(sqlx::query_scalar(text).fetch_one(connection).await?)
}

fn outcome(outcome: &Outcome) -> (Option<&str>, Option<String>) {
    match outcome {
        Outcome::Output(output) => (Some(output.get()), None),
        Outcome::Error(failure) => (None, Some(json(failure))),
    }
}

fn figures(timing: Option<&Timing>) -> [Option<i64>; 10] {
    let Some(timing) = timing else { return [None; 10] };
    [
        Some(timing.queue_us),
        Some(timing.dispatch_us),
        Some(timing.wall_us),
        timing.cpu_user_us,
        timing.cpu_system_us,
        timing.polls,
        timing.longest_poll_us,
        timing.max_rss_bytes,
        timing.ctx_voluntary,
        timing.ctx_involuntary,
    ]
    .map(|figure| figure.map(|figure| i64::try_from(figure).unwrap_or(i64::MAX)))
}

/// Types of this program with string keys, which always can be written as JSON.
fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// Whether a job that was running when its runner died is finished by that, and how.
pub(super) fn fate(job: &Job, max_losses: u32) -> Option<(Ending, Failure)> {
    if matches!(job.state, State::Running { stopping: true, .. }) {
        return Some((Ending::Cancelled, cancelled()));
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
