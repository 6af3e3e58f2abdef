//! The SQL of jobs that come, go and come back: many of them by one statement.

use std::collections::HashMap;

use serde_json::value::RawValue;
use sqlx::PgConnection;

use super::rows::{self, Cells, Known, Lane, any, known, of_id, place_of, submission, uuid, uuids};
use super::{edges, events};
use crate::clock::Timestamp;
use crate::job::{Conclusion, Ending, Failure, FindingKinds, JobId, NewJob, Queue, Timing};
use crate::store::kept::edge::Doom;
use crate::store::kept::job::measured;
use crate::store::kept::{Options, code, figures, json, number};
use crate::store::{Lease, StoreError};

/// A new job, and where it is to begin with.
pub(super) struct Insertion<'a> {
    pub(super) job: &'a NewJob,
    pub(super) state: i16,
    /// The token and the moment of its claim, if it is to run at once.
    pub(super) claim: Option<(i64, Timestamp)>,
}

/// Keeps the labels of new jobs.
pub(super) async fn tag(connection: &mut PgConnection, jobs: &[Insertion<'_>]) -> Result<(), StoreError> {
    let tags = || jobs.iter().flat_map(|insertion| insertion.job.submission.tags.iter().map(|tag| (insertion.job.id, tag)));
    if tags().next().is_some() {
        sqlx::query("INSERT INTO tags (key, value, id) SELECT * FROM unnest($1::TEXT[], $2::TEXT[], $3::UUID[])")
            .bind(tags().map(|(_, (key, _))| key.as_str()).collect::<Vec<_>>())
            .bind(tags().map(|(_, (_, value))| value.as_str()).collect::<Vec<_>>())
            .bind(tags().map(|(id, _)| uuid(id)).collect::<Vec<_>>())
            .execute(connection)
            .await?;
    }
    Ok(())
}

/// A job that runs, as the end of its attempt finds it.
pub(super) struct Held {
    pub(super) id: JobId,
    pub(super) token: i64,
    pub(super) attempt: u32,
    pub(super) stopping: bool,
    pub(super) known: Known,
}

/// Those of these leases that are valid.
pub(super) async fn held(connection: &mut PgConnection, leases: &[Lease]) -> Result<Vec<Held>, StoreError> {
    if leases.is_empty() {
        return Ok(Vec::new());
    }
    let text = concat!(
        "SELECT w.id, w.token, w.attempt, w.stopping, j.queue, j.bound, j.type, j.options \
         FROM work w CROSS JOIN LATERAL (SELECT queue, bound, type, options FROM jobs WHERE id = w.id \
         AND id BETWEEN $3 AND $4 LIMIT 1) AS j WHERE w.id = ANY($1) AND w.token = ",
        of_id!("$2::BIGINT[]", "w.id", "$1")
    );
    // Of several of one job only the latest can be valid.
    let (ids, tokens) = rows::by_id(leases.iter().map(|lease| (lease.id, lease.token)));
    let (first, last) = rows::ends(leases.iter().map(|lease| &lease.id));
    let rows = sqlx::query(text).bind(ids).bind(tokens).bind(first).bind(last).fetch_all(connection).await?;
    let held = |row| {
        let mut cells = Cells::new(row);
        let (id, token, attempt, stopping) = (cells.id()?, cells.take()?, cells.number()?, cells.take()?);
        Ok(Held { id, token, attempt, stopping, known: known(&mut cells)? })
    };
    rows.iter().map(held).collect()
}

/// Those of these leases under which a result was recorded, with when the attempt began and ended.
pub(super) async fn recorded(
    connection: &mut PgConnection,
    leases: &[Lease],
) -> Result<Vec<(Lease, Timestamp, Timestamp)>, StoreError> {
    let text = "SELECT r.id, r.token, coalesce(r.started_at, r.finished_at), r.finished_at \
                FROM unnest($1::UUID[], $2::BIGINT[]) AS l(id, token) \
                JOIN results r ON r.id = l.id AND r.token = l.token AND r.id BETWEEN $3 AND $4";
    let (first, last) = rows::ends(leases.iter().map(|lease| &lease.id));
    let ids = uuids(leases.iter().map(|lease| &lease.id));
    let tokens: Vec<i64> = leases.iter().map(|lease| lease.token).collect();
    let rows = sqlx::query(text).bind(ids).bind(tokens).bind(first).bind(last).fetch_all(connection).await?;
    rows.iter()
        .map(|row| {
            let mut cells = Cells::new(row);
            Ok((Lease { id: cells.id()?, token: cells.take()? }, cells.time()?, cells.time()?))
        })
        .collect()
}

/// The end of an attempt under a lease, to be put among the results if the lease is valid.
pub(super) struct End<'a> {
    pub(super) lease: Lease,
    pub(super) conclusion: &'a Conclusion,
    pub(super) findings: FindingKinds,
    pub(super) finished_at: Timestamp,
}

/// A job that was put among the results.
pub(super) struct Finished {
    pub(super) token: i64,
    pub(super) attempt: u32,
    pub(super) started_at: Timestamp,
    pub(super) children: bool,
}

/// What ends: `w`, with the place of each among the arguments.
macro_rules! ending {
    () => {
        concat!(
            "w AS (DELETE FROM work WHERE id = ANY($1) AND token = ",
            of_id!("$2::BIGINT[]", "id", "$1"),
            " RETURNING id, width_bucket(id, $1::UUID[]) AS n, token, attempt, losses, claimed_at, children), \
             ended AS (INSERT INTO results \
             (node, id, attempt, losses, started_at, token, ending, finished_at, findings, failure, output, error, timing) \
             SELECT $3::BIGINT, id, attempt, losses, claimed_at, token, ($4::SMALLINT[])[n], ($5::BIGINT[])[n], ($6::BIGINT[])[n], \
             ($7::TEXT[])[n], ($8::TEXT[])[n], ($9::TEXT[])[n], ($10::TEXT[])[n] FROM w)"
        )
    };
}
/// What is new.
macro_rules! kept {
    () => {
        "kept AS (INSERT INTO jobs (id, queue, rule, bound, choice, priority, accepted_at, owner, type, workload, options) \
         SELECT * FROM unnest($11::UUID[], $12::SMALLINT[], $13::SMALLINT[], $14::SMALLINT[], $15::SMALLINT[], $16::SMALLINT[], \
         $17::BIGINT[], $18::BIGINT[], $19::TEXT[], $20::TEXT[], $21::TEXT[]))"
    };
}
/// What is left to do of that.
macro_rules! waiting {
    () => {
        "INSERT INTO work (id, state, queue, priority, due_at, expires_at, attempt, token, node, claimed_at, lane, ckey, rkey, confined) \
         SELECT id, state, queue, priority, due_at, expires_at, CASE WHEN token IS NULL THEN 0 ELSE 1 END, token, \
         CASE WHEN token IS NULL THEN NULL ELSE $3::BIGINT END, claimed_at, lane, ckey, rkey, confined \
         FROM unnest($11::UUID[], $22::SMALLINT[], $12::SMALLINT[], $16::SMALLINT[], $23::BIGINT[], $24::BIGINT[], $25::BIGINT[], \
         $26::BIGINT[], $27::TEXT[], $28::TEXT[], $29::TEXT[], $30::BIGINT[]) \
         AS t(id, state, queue, priority, due_at, expires_at, token, claimed_at, lane, ckey, rkey, confined)"
    };
}
/// What is told of those that have ended.
macro_rules! finished {
    () => {
        " SELECT id, token, attempt, claimed_at, children FROM w"
    };
}
const FINISH: &str = concat!("WITH ", ending!(), finished!());
const ACCEPT: &str = concat!("WITH ", kept!(), " ", waiting!());
const BOTH: &str = concat!("WITH ", ending!(), ", ", kept!(), ", waiting AS (", waiting!(), ")", finished!());

/// Moves the jobs of those of these leases that are valid from what is left to do to the results, of several ends under one lease the first;
/// and keeps new jobs, of which those with a claim run on this node. By one statement: a turn costs the more, the more there are, and a
/// statement the more, the fewer jobs it is for.
pub(super) async fn finish_and_accept(
    connection: &mut PgConnection,
    mut ends: Vec<&End<'_>>,
    jobs: &[Insertion<'_>],
    node: i64,
) -> Result<HashMap<JobId, Finished>, StoreError> {
    // Of several leases of one job only the latest can be valid, and what is looked up is the last of all with one id.
    ends.reverse();
    ends.sort_by_key(|end| (end.lease.id, end.lease.token));
    let text = match (ends.is_empty(), jobs.is_empty()) {
        (true, true) => return Ok(HashMap::new()),
        (false, true) => FINISH,
        (true, false) => ACCEPT,
        (false, false) => BOTH,
    };
    let outcomes = || ends.iter().map(|end| &end.conclusion.outcome);
    let due = |job: &Insertion<'_>| job.job.due_at.unwrap_or(job.job.accepted_at).as_micros();
    let lanes: Vec<Option<Lane>> = jobs.iter().map(|insertion| Lane::of(&insertion.job.submission)).collect();
    let query = sqlx::query(text)
        .bind(uuids(ends.iter().map(|end| &end.lease.id)))
        .bind(ends.iter().map(|end| end.lease.token).collect::<Vec<_>>())
        .bind(node)
        .bind(ends.iter().map(|end| code(end.conclusion.ending)).collect::<Vec<_>>())
        .bind(ends.iter().map(|end| end.finished_at.as_micros()).collect::<Vec<_>>())
        .bind(any(ends.iter().map(|end| (!end.findings.is_empty()).then_some(i64::from(end.findings.bits())))))
        .bind(any(outcomes().map(|outcome| outcome.failure().map(|failure| failure.kind.as_str()))))
        .bind(any(outcomes().map(|outcome| outcome.output().map(RawValue::get))))
        .bind(any(outcomes().map(|outcome| outcome.failure().map(json))))
        .bind(any(ends.iter().map(|end| end.conclusion.timing.as_ref().map(|timing| json(&figures(timing))))));
    let rows = query
        .bind(uuids(jobs.iter().map(|insertion| &insertion.job.id)))
        .bind(jobs.iter().map(|insertion| code(insertion.job.route.queue)).collect::<Vec<_>>())
        .bind(jobs.iter().map(|insertion| code(insertion.job.route.rule)).collect::<Vec<_>>())
        .bind(jobs.iter().map(|insertion| code(insertion.job.submission.bound)).collect::<Vec<_>>())
        .bind(jobs.iter().map(|insertion| code(insertion.job.submission.executor)).collect::<Vec<_>>())
        .bind(jobs.iter().map(|insertion| insertion.job.submission.priority).collect::<Vec<_>>())
        .bind(jobs.iter().map(|insertion| insertion.job.accepted_at.as_micros()).collect::<Vec<_>>())
        .bind(any(jobs.iter().map(|insertion| insertion.job.submission.owner.map(crate::job::Owner::code))))
        .bind(jobs.iter().map(|insertion| insertion.job.submission.workload.kind.as_str()).collect::<Vec<_>>())
        .bind(jobs.iter().map(|insertion| insertion.job.submission.workload.json.get()).collect::<Vec<_>>())
        .bind(any(jobs
            .iter()
            .map(|Insertion { job, .. }| Options::of(&job.submission, &job.route).map(|options| json(&options)))))
        .bind(jobs.iter().map(|insertion| insertion.state).collect::<Vec<_>>())
        .bind(jobs.iter().map(due).collect::<Vec<_>>())
        .bind(any(jobs.iter().map(|insertion| insertion.job.submission.expires_at.map(Timestamp::as_micros))))
        .bind(any(jobs.iter().map(|insertion| insertion.claim.map(|claim| claim.0))))
        .bind(any(jobs.iter().map(|insertion| insertion.claim.map(|claim| claim.1.as_micros()))))
        .bind(any(lanes.iter().map(|lane| lane.as_ref().map(|lane| lane.name.as_str()))))
        .bind(any(lanes.iter().map(|lane| lane.as_ref().and_then(|lane| lane.ckey.as_deref()))))
        .bind(any(lanes.iter().map(|lane| lane.as_ref().and_then(|lane| lane.rkey.as_deref()))))
        .bind(any(lanes.iter().map(|lane| lane.as_ref().and_then(|lane| lane.confined))))
        .fetch_all(connection)
        .await?;
    let finished = |row| {
        let mut cells = Cells::new(row);
        let (id, token) = (cells.id()?, cells.take()?);
        Ok((id, Finished { token, attempt: cells.number()?, started_at: cells.time()?, children: cells.take()? }))
    };
    rows.iter().map(finished).collect()
}

/// One that has.
pub(super) struct Ended {
    pub(super) id: JobId,
    pub(super) state: i16,
    /// The lane that it is in, or would be in if it waited.
    pub(super) lane: Option<String>,
    pub(super) known: Known,
    pub(super) ending: Ending,
    pub(super) failure: Failure,
    pub(super) attempt: u32,
    pub(super) started_at: Option<Timestamp>,
    pub(super) finished_at: Timestamp,
    pub(super) children: bool,
}

/// Moves unfinished jobs to the results, without anything measured: each a microsecond later than the one before, the first one a
/// microsecond after `before`. In the order of their ends; only those in this state, if it is given.
pub(super) async fn end(
    connection: &mut PgConnection,
    dooms: &[Doom],
    only: Option<i16>,
    before: Timestamp,
    node: i64,
) -> Result<Vec<Ended>, StoreError> {
    let text = concat!(
        "WITH gone AS (DELETE FROM work WHERE id = ANY($1) AND ($5::SMALLINT IS NULL OR state = $5) RETURNING id, ",
        of_id!("$8::BIGINT[]", "id", "$1"),
        " AS n, state, attempt, losses, CASE WHEN state = 2 THEN claimed_at END AS started_at, children, lane), \
         kept AS (INSERT INTO results (id, ending, attempt, losses, started_at, finished_at, node, failure, error) \
         SELECT id, ($2::SMALLINT[])[n], attempt, losses, started_at, $6 + n, $7, ($3::TEXT[])[n], ($4::TEXT[])[n] FROM gone) \
         SELECT id, n, state, attempt, started_at, children, lane, j.queue, j.bound, j.type, j.options FROM gone \
         CROSS JOIN LATERAL (SELECT queue, bound, type, options FROM jobs WHERE id = gone.id AND id BETWEEN $9 AND $10 LIMIT 1) AS j \
         ORDER BY n"
    );
    let (first, last) = rows::ends(dooms.iter().map(|doom| &doom.id));
    let (ids, numbers) = rows::by_id(dooms.iter().zip(1..).map(|(doom, n)| (doom.id, n)));
    let rows = sqlx::query(text)
        .bind(ids)
        .bind(dooms.iter().map(|doom| code(doom.ending)).collect::<Vec<_>>())
        .bind(dooms.iter().map(|doom| doom.failure.kind.as_str()).collect::<Vec<_>>())
        .bind(dooms.iter().map(|doom| json(&doom.failure)).collect::<Vec<_>>())
        .bind(only)
        .bind(before.as_micros())
        .bind(node)
        .bind(numbers)
        .bind(first)
        .bind(last)
        .fetch_all(connection)
        .await?;
    let ended = |row| {
        let mut cells = Cells::new(row);
        let (id, n): (JobId, i64) = (cells.id()?, cells.take()?);
        let doom = usize::try_from(n - 1).ok().and_then(|at| dooms.get(at));
        let Doom { ending, failure, .. } = doom.ok_or_else(|| StoreError::Corrupt(format!("{id} was not to end")))?;
        let (state, attempt, started_at, children) = (cells.take()?, cells.number()?, cells.time_or_none()?, cells.take()?);
        let finished_at = Timestamp::from_micros(before.as_micros() + n);
        let (ending, failure, lane, known) = (*ending, failure.clone(), cells.take()?, known(&mut cells)?);
        Ok(Ended { id, state, lane, known, ending, failure, attempt, started_at, finished_at, children })
    };
    rows.iter().map(ended).collect()
}

/// Where an unfinished job is.
pub(super) struct Place {
    pub(super) id: JobId,
    pub(super) state: i16,
    pub(super) token: Option<i64>,
    pub(super) node: Option<i64>,
}

/// Where those of these jobs are that have not ended, in their order.
pub(super) async fn places(connection: &mut PgConnection, ids: &[JobId]) -> Result<Vec<Place>, StoreError> {
    let text = "SELECT w.id, w.state, w.token, w.node FROM unnest($1::UUID[]) WITH ORDINALITY AS t(id, n) \
                CROSS JOIN LATERAL (SELECT id, state, token, node FROM work WHERE id = t.id LIMIT 1) AS w ORDER BY t.n";
    let rows = sqlx::query(text).bind(uuids(ids)).fetch_all(connection).await?;
    rows.iter()
        .map(|row| {
            let mut cells = Cells::new(row);
            Ok(Place { id: cells.id()?, state: cells.take()?, token: cells.take()?, node: cells.take()? })
        })
        .collect()
}

/// Notes that the attempts of these jobs are to stop.
pub(super) async fn stop(connection: &mut PgConnection, ids: &[JobId]) -> Result<(), StoreError> {
    // `state = 2` would let the planner go through all that runs instead of looking up ids.
    let text = "UPDATE work SET stopping = true WHERE state + 0 = 2 AND id = ANY($1)";
    sqlx::query(text).bind(uuids(ids)).execute(connection).await?;
    Ok(())
}

/// Up to `most` jobs that wait although their time is over.
pub(super) async fn expired(connection: &mut PgConnection, now: Timestamp, most: usize) -> Result<Vec<JobId>, StoreError> {
    let text =
        "SELECT id FROM work WHERE expires_at IS NOT NULL AND state <> 2 AND expires_at <= $1 ORDER BY expires_at, id LIMIT $2";
    let rows = sqlx::query(text).bind(now.as_micros()).bind(number(most)).fetch_all(connection).await?;
    rows.iter().map(|row| Cells::new(row).id()).collect()
}

/// A result that is a job again.
pub(super) struct Back {
    pub(super) id: JobId,
    pub(super) known: Known,
    /// Its lane, if it has a limit.
    pub(super) lane: Option<Lane>,
    pub(super) expires_at: Option<Timestamp>,
    /// What its result was.
    pub(super) ending: Ending,
    pub(super) timing: Option<Timing>,
    pub(super) at: Timestamp,
    /// Whether it waits for other jobs.
    pub(super) blocked: bool,
}

/// Makes jobs wait again that have ended, `by` this moment if there is one; what has no result is left out. Each end is kept among the events
/// first.
pub(super) async fn requeue(
    connection: &mut PgConnection,
    ids: &[JobId],
    by: Option<Timestamp>,
    before: Timestamp,
) -> Result<Vec<Back>, StoreError> {
    let text = "SELECT r.id, t.n, r.ending, r.timing, j.queue, j.bound, j.type, j.options \
                FROM unnest($1::UUID[]) WITH ORDINALITY AS t(id, n) JOIN results r ON r.id = t.id JOIN jobs j ON j.id = t.id \
                WHERE r.id BETWEEN $2 AND $3 AND j.id BETWEEN $2 AND $3 AND r.finished_at <= $4 ORDER BY t.n";
    let (first, last) = rows::ends(ids.iter());
    let by = by.map_or(i64::MAX, Timestamp::as_micros);
    let rows = sqlx::query(text).bind(uuids(ids)).bind(first).bind(last).bind(by).fetch_all(&mut *connection).await?;
    let back = |row| {
        let mut cells = Cells::new(row);
        let (id, n) = (cells.id()?, cells.take::<i64>()?);
        let (ending, timing) = (cells.code()?, measured(&mut cells)?);
        let at = Timestamp::from_micros(before.as_micros() + n);
        let (submission, queue) = submission(&mut cells)?;
        let (known, lane, expires_at) = (Known::of(&submission, queue), Lane::of(&submission), submission.expires_at);
        Ok(Back { id, known, lane, expires_at, ending, timing, at, blocked: false })
    };
    let mut back = rows.iter().map(back).collect::<Result<Vec<_>, StoreError>>()?;
    if back.is_empty() {
        return Ok(back);
    }
    let ids: Vec<JobId> = back.iter().map(|back| back.id).collect();
    let moments: Vec<i64> = back.iter().map(|back| back.at.as_micros()).collect();
    events::keep_results(connection, &ids, &moments).await?;
    // Whoever wants a job to run again that was too late wants it all the same.
    let text = "INSERT INTO work (id, state, queue, priority, children, due_at, expires_at, attempt, earlier, lane, ckey, rkey, confined) \
                SELECT t.id, CASE WHEN t.lane IS NULL THEN 1 ELSE 4 END, j.queue, j.priority, \
                EXISTS (SELECT 1 FROM edges WHERE edges.parent = t.id), t.due_at, \
                CASE WHEN t.expires_at > $8 THEN t.expires_at END, r.attempt, r.attempt, t.lane, t.ckey, t.rkey, t.confined \
                FROM unnest($1::UUID[], $2::BIGINT[], $3::BIGINT[], $4::TEXT[], $5::TEXT[], $6::TEXT[], $7::BIGINT[]) \
                AS t(id, due_at, expires_at, lane, ckey, rkey, confined) JOIN jobs j ON j.id = t.id JOIN results r ON r.id = t.id \
                WHERE j.id BETWEEN $9 AND $10 AND r.id BETWEEN $9 AND $10";
    let lanes = || back.iter().map(|back| back.lane.as_ref());
    sqlx::query(text)
        .bind(uuids(&ids))
        .bind(&moments)
        .bind(back.iter().map(|back| back.expires_at.map(Timestamp::as_micros)).collect::<Vec<_>>())
        .bind(lanes().map(|lane| lane.map(|lane| lane.name.as_str())).collect::<Vec<_>>())
        .bind(lanes().map(|lane| lane.and_then(|lane| lane.ckey.as_deref())).collect::<Vec<_>>())
        .bind(lanes().map(|lane| lane.and_then(|lane| lane.rkey.as_deref())).collect::<Vec<_>>())
        .bind(lanes().map(|lane| lane.and_then(|lane| lane.confined)).collect::<Vec<_>>())
        .bind(before.as_micros())
        .bind(first)
        .bind(last)
        .execute(&mut *connection)
        .await?;
    sqlx::query("DELETE FROM results WHERE id = ANY($1)").bind(uuids(&ids)).execute(&mut *connection).await?;
    let blocked = edges::reopen(connection, &ids).await?;
    for back in &mut back {
        back.blocked = blocked.contains(&back.id);
    }
    Ok(back)
}

/// A job waits for a slot.
pub(super) struct Queued {
    pub(super) queue: Queue,
    pub(super) lane: Option<Lane>,
}

/// From the queue and the lane with its keys.
pub(super) fn queued(cells: &mut Cells<'_>) -> Result<Queued, StoreError> {
    let queue = cells.code()?;
    let (name, ckey, rkey, confined): (Option<String>, _, _, _) = (cells.take()?, cells.take()?, cells.take()?, cells.take()?);
    Ok(Queued { queue, lane: name.map(|name| Lane { place: place_of(&name), name, ckey, rkey, confined }) })
}

/// A job that was claimed and waits again: until when, where it does, and when it was claimed.
pub(super) struct Released {
    pub(super) claimed_at: Timestamp,
    pub(super) expires_at: Option<i64>,
    pub(super) queued: Queued,
}

/// Makes running jobs wait again as if they had not been claimed, or until a moment.
pub(super) async fn release(
    connection: &mut PgConnection,
    ids: &[JobId],
    due_at: Option<Timestamp>,
) -> Result<Vec<Released>, StoreError> {
    let text = "UPDATE work SET state = CASE WHEN $2::BIGINT IS NOT NULL THEN 0 WHEN lane IS NULL THEN 1 ELSE 4 END, \
                due_at = coalesce($2, due_at), token = NULL, node = NULL, attempt = attempt - 1 WHERE id = ANY($1) \
                RETURNING claimed_at, expires_at, queue, lane, ckey, rkey, confined";
    let rows = sqlx::query(text).bind(uuids(ids)).bind(due_at.map(Timestamp::as_micros)).fetch_all(connection).await?;
    let released = |row| {
        let mut cells = Cells::new(row);
        Ok(Released { claimed_at: cells.time()?, expires_at: cells.take()?, queued: queued(&mut cells)? })
    };
    rows.iter().map(released).collect()
}

/// Makes running jobs wait again until a moment, and counts a loss each if they were lost; the earliest end of their times.
pub(super) async fn again(
    connection: &mut PgConnection,
    ids: &[JobId],
    due_at: Timestamp,
    lost: bool,
) -> Result<Option<i64>, StoreError> {
    let text = "WITH again AS (UPDATE work SET state = 0, due_at = $2, token = NULL, node = NULL, losses = losses + $3 \
                WHERE id = ANY($1) RETURNING expires_at) SELECT min(expires_at) FROM again";
    let query = sqlx::query_scalar(text).bind(uuids(ids)).bind(due_at.as_micros()).bind(i64::from(lost));
    Ok(query.fetch_one(connection).await?)
}

/// Queues up to `most` scheduled jobs that are due; where each waits.
pub(super) async fn promote(connection: &mut PgConnection, now: Timestamp, most: usize) -> Result<Vec<Queued>, StoreError> {
    let text = "UPDATE work SET state = CASE WHEN lane IS NULL THEN 1 ELSE 4 END WHERE id = ANY(ARRAY \
                (SELECT id FROM work WHERE state = 0 AND due_at <= $1 ORDER BY due_at LIMIT $2)) \
                RETURNING queue, lane, ckey, rkey, confined";
    let rows = sqlx::query(text).bind(now.as_micros()).bind(number(most)).fetch_all(connection).await?;
    rows.iter().map(|row| queued(&mut Cells::new(row))).collect()
}

/// Up to `most` scheduled jobs that are due.
pub(super) async fn due(connection: &mut PgConnection, now: Timestamp, most: usize) -> Result<Vec<JobId>, StoreError> {
    let text = "SELECT id FROM work WHERE state = 0 AND due_at <= $1 ORDER BY due_at LIMIT $2";
    let query = sqlx::query(text).bind(now.as_micros()).bind(number(most));
    query.fetch_all(connection).await?.iter().map(|row| Cells::new(row).id()).collect()
}

/// Queues a scheduled job that is due; where it waits.
pub(super) async fn promote_one(connection: &mut PgConnection, id: JobId) -> Result<Queued, StoreError> {
    let text = "UPDATE work SET state = CASE WHEN lane IS NULL THEN 1 ELSE 4 END WHERE id = $1 \
                RETURNING queue, lane, ckey, rkey, confined";
    queued(&mut Cells::new(&sqlx::query(text).bind(uuid(id)).fetch_one(connection).await?))
}

/// When the next scheduled job is due, and when the time of the next one that waits is over.
pub(super) async fn next(connection: &mut PgConnection) -> Result<(Option<i64>, Option<i64>), StoreError> {
    let text = "SELECT (SELECT min(due_at) FROM work WHERE state = 0), \
                (SELECT min(expires_at) FROM work WHERE expires_at IS NOT NULL AND state <> 2)";
    Ok(sqlx::query_as(text).fetch_one(connection).await?)
}
