//! The SQL of the edges between jobs: what is written of them inside the writer's transaction, and what is read.

use std::collections::{HashMap, HashSet};

use sqlx::PgConnection;

use super::moves::{Queued, queued};
use super::pool::Pool;
use super::rows::{self, Cells, from_jobs, uuid, uuids};
use crate::clock::Timestamp;
use crate::job::{Dependency, JobId, NewJob, Owner};
use crate::store::kept::edge::{Ended, read_child, read_counts, read_dependency, read_ended, read_parent, read_state};
use crate::store::kept::{code, number};
use crate::store::{Graph, StateFilter, StoreError};

/// A job that waits for no other any more.
pub(super) struct Unblocked {
    pub(super) queued: Queued,
    /// Not before this moment.
    pub(super) due_at: Timestamp,
    pub(super) state: i16,
}

/// Those of these jobs that there are not.
pub(super) async fn unknown(connection: &mut PgConnection, jobs: &[JobId]) -> Result<Vec<JobId>, StoreError> {
    let text = "SELECT id FROM unnest($1::UUID[]) AS t(id) WHERE NOT EXISTS \
                (SELECT 1 FROM jobs WHERE jobs.id = t.id AND jobs.id BETWEEN $2 AND $3)";
    let (first, last) = rows::ends(jobs.iter());
    let rows = sqlx::query(text).bind(uuids(jobs)).bind(first).bind(last).fetch_all(connection).await?;
    rows.iter().map(|row| Cells::new(row).id()).collect()
}

/// Keeps what new jobs come after. Those of them that come after a job that has ended already are returned.
pub(super) async fn link(connection: &mut PgConnection, jobs: &[&NewJob]) -> Result<Vec<JobId>, StoreError> {
    let edges = || jobs.iter().flat_map(|job| job.after.iter().map(|after| (after, job.id)));
    let parents: Vec<_> = edges().map(|(after, _)| uuid(after.parent)).collect();
    let text = "INSERT INTO edges (parent, child, rule, name, open) \
                SELECT parent, child, rule, name, EXISTS (SELECT 1 FROM work WHERE work.id = parent) \
                FROM unnest($1::UUID[], $2::UUID[], $3::SMALLINT[], $4::TEXT[]) AS t(parent, child, rule, name) \
                ON CONFLICT DO NOTHING RETURNING child, open";
    let rows = sqlx::query(text)
        .bind(&parents)
        .bind(edges().map(|(_, child)| uuid(child)).collect::<Vec<_>>())
        .bind(edges().map(|(after, _)| code(after.on_failure)).collect::<Vec<_>>())
        .bind(edges().map(|(after, _)| after.name.as_deref()).collect::<Vec<_>>())
        .fetch_all(&mut *connection)
        .await?;
    let mut past = Vec::new();
    for row in &rows {
        let mut cells = Cells::new(row);
        let child = cells.id()?;
        if !cells.take::<bool>()? && past.last() != Some(&child) {
            past.push(child);
        }
    }
    let text = "UPDATE work SET children = true WHERE NOT children AND id = ANY($1)";
    sqlx::query(text).bind(parents).execute(connection).await?;
    Ok(past)
}

/// Edges of parents that have ended, of which the children have not heard: `most` at most.
pub(super) async fn unheard(connection: &mut PgConnection, parents: &[JobId], most: usize) -> Result<Vec<Ended>, StoreError> {
    let text = "SELECT e.parent, e.child, e.rule, e.name, r.ending FROM unnest($1::UUID[]) WITH ORDINALITY AS t(id, n) \
                JOIN results r ON r.id = t.id AND r.id BETWEEN $3 AND $4 JOIN edges e ON e.parent = r.id AND e.open \
                ORDER BY t.n, e.child LIMIT $2";
    let (first, last) = rows::ends(parents.iter());
    let query = sqlx::query(text).bind(uuids(parents)).bind(number(most)).bind(first).bind(last);
    query.fetch_all(connection).await?.iter().map(read_ended).collect()
}

/// Edges of these of the new jobs whose parents had ended before.
pub(super) async fn past(connection: &mut PgConnection, jobs: &[&NewJob], children: &[JobId]) -> Result<Vec<Ended>, StoreError> {
    let text = "SELECT e.parent, e.child, e.rule, e.name, r.ending FROM edges e JOIN results r ON r.id = e.parent \
                WHERE e.child = ANY($1) AND NOT e.open AND r.id BETWEEN $2 AND $3";
    let (first, last) = rows::ends(jobs.iter().flat_map(|job| &job.after).map(|after| &after.parent));
    let query = sqlx::query(text).bind(uuids(children)).bind(first).bind(last);
    query.fetch_all(connection).await?.iter().map(read_ended).collect()
}

/// The children have heard of it.
pub(super) async fn close(connection: &mut PgConnection, edges: &[Ended]) -> Result<(), StoreError> {
    let text = "UPDATE edges SET open = false FROM unnest($1::UUID[], $2::UUID[]) AS t(parent, child) \
                WHERE edges.parent = t.parent AND edges.child = t.child";
    let parents = uuids(edges.iter().map(|edge| &edge.parent));
    sqlx::query(text).bind(parents).bind(uuids(edges.iter().map(|edge| &edge.child))).execute(connection).await?;
    Ok(())
}

/// Lets those of these children go that wait for no job any more: now, or when they are due.
pub(super) async fn unblock(
    connection: &mut PgConnection,
    children: &[JobId],
    now: Timestamp,
) -> Result<Vec<Unblocked>, StoreError> {
    let text = "UPDATE work SET state = CASE WHEN due_at > $1 THEN 0 WHEN lane IS NULL THEN 1 ELSE 4 END, due_at = greatest(due_at, $1) \
                WHERE id = ANY($2) AND state = 3 AND NOT EXISTS (SELECT 1 FROM edges WHERE edges.child = work.id AND edges.open) \
                RETURNING state, due_at, queue, lane, ckey, rkey, confined";
    let rows = sqlx::query(text).bind(now.as_micros()).bind(uuids(children)).fetch_all(connection).await?;
    let unblocked = |row| {
        let mut cells = Cells::new(row);
        Ok(Unblocked { state: cells.take()?, due_at: cells.time()?, queued: queued(&mut cells)? })
    };
    rows.iter().map(unblocked).collect()
}

/// Jobs that had ended have come back: they wait again for those of their parents that have not ended. Which of them do.
pub(super) async fn reopen(connection: &mut PgConnection, children: &[JobId]) -> Result<HashSet<JobId>, StoreError> {
    let text = "UPDATE edges SET open = EXISTS (SELECT 1 FROM work WHERE work.id = edges.parent) WHERE child = ANY($1) \
                RETURNING child, open";
    let mut waiting = HashSet::new();
    for row in &sqlx::query(text).bind(uuids(children)).fetch_all(&mut *connection).await? {
        let mut cells = Cells::new(row);
        let child = cells.id()?;
        if cells.take()? {
            waiting.insert(child);
        }
    }
    if !waiting.is_empty() {
        let text = "UPDATE work SET state = 3 WHERE state IN (1, 4) AND id = ANY($1)";
        sqlx::query(text).bind(uuids(&waiting)).execute(connection).await?;
    }
    Ok(waiting)
}

/// Some of the jobs of which the children have not all heard.
pub(super) async fn releases(connection: &mut PgConnection, most: usize) -> Result<Vec<JobId>, StoreError> {
    let rows =
        sqlx::query("SELECT parent FROM releases ORDER BY parent LIMIT $1").bind(number(most)).fetch_all(connection).await?;
    rows.iter().map(|row| Cells::new(row).id()).collect()
}

/// Replaces some of the jobs of which the children have not all heard. How many of those to add were not there.
pub(super) async fn keep_releases(connection: &mut PgConnection, remove: &[JobId], add: &[JobId]) -> Result<u64, StoreError> {
    if !remove.is_empty() {
        sqlx::query("DELETE FROM releases WHERE parent = ANY($1)").bind(uuids(remove)).execute(&mut *connection).await?;
    }
    if add.is_empty() {
        return Ok(0);
    }
    let text = "INSERT INTO releases (parent) SELECT * FROM unnest($1::UUID[]) ON CONFLICT DO NOTHING";
    Ok(sqlx::query(text).bind(uuids(add)).execute(connection).await?.rows_affected())
}

/// What a job comes after.
pub(super) async fn dependencies(pool: &Pool, child: JobId) -> Result<Vec<Dependency>, StoreError> {
    let text = "SELECT parent, name, rule FROM edges WHERE child = $1 ORDER BY parent";
    let rows = sqlx::query(text).bind(uuid(child)).fetch_all(pool).await?;
    rows.iter().map(read_dependency).collect()
}

/// Where jobs are.
pub(super) async fn states(pool: &Pool, jobs: &[JobId]) -> Result<HashMap<JobId, StateFilter>, StoreError> {
    let text = concat!("SELECT j.id, w.state, r.ending", from_jobs!(), "WHERE j.id = ANY($1)");
    let rows = sqlx::query(text).bind(uuids(jobs)).fetch_all(pool).await?;
    rows.iter().filter_map(read_state).collect()
}

/// A job's parents and children: the first `most` of each, those that it waits for before the others; of an owner's children alone, if
/// there is one.
pub(super) async fn graph(pool: &Pool, id: JobId, owner: Option<Owner>, most: usize) -> Result<Graph, StoreError> {
    let owner = owner.map(Owner::code);
    let mut snapshot = pool.snapshot().await?;
    let count = "SELECT (SELECT count(*) FROM edges WHERE child = $1), \
                        (SELECT count(*) FROM edges e WHERE e.parent = $1 \
                         AND ($2 IS NULL OR EXISTS (SELECT 1 FROM jobs j WHERE j.id = e.child AND j.owner = $2))), \
                        (SELECT count(*) FROM edges WHERE child = $1 AND open)";
    let row = sqlx::query(count).bind(uuid(id)).bind(owner).fetch_one(&mut *snapshot).await?;
    let mut graph = read_counts(&row)?;
    if graph.parent_count > 0 {
        let text = "SELECT e.parent, e.name, e.rule, w.state, r.ending FROM edges e LEFT JOIN work w ON w.id = e.parent \
                    LEFT JOIN results r ON r.id = e.parent WHERE e.child = $1 ORDER BY e.open DESC, e.parent LIMIT $2";
        let rows = sqlx::query(text).bind(uuid(id)).bind(number(most)).fetch_all(&mut *snapshot).await?;
        graph.parents = rows.iter().map(read_parent).collect::<Result<_, _>>()?;
    }
    if graph.child_count > 0 {
        let text = "SELECT e.child, w.state, r.ending FROM edges e LEFT JOIN work w ON w.id = e.child \
                    LEFT JOIN results r ON r.id = e.child WHERE e.parent = $1 \
                    AND ($2 IS NULL OR EXISTS (SELECT 1 FROM jobs j WHERE j.id = e.child AND j.owner = $2)) \
                    ORDER BY e.child LIMIT $3";
        let rows = sqlx::query(text).bind(uuid(id)).bind(owner).bind(number(most)).fetch_all(&mut *snapshot).await?;
        graph.children = rows.iter().map(read_child).collect::<Result<_, _>>()?;
    }
    snapshot.commit().await?;
    Ok(graph)
}
