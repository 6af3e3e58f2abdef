//! This server as one of several: what it has claimed, and what of that it has to stop.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use foldhash::HashMap;
use sqlx::PgConnection;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::connect::{self, Connect};
use super::rows::{self, Cells, Run, from_jobs, of_id, of_job, outline_of_job};
use super::session::Session;
use super::writer::Command;
use crate::clock::Timestamp;
use crate::job::{Job, JobId, Labels, Role, meets};
use crate::store::kept::{code, json, number};
use crate::store::node::Gatekeeper;
use crate::store::{ComparisonState, Lease, Revocation, StoreError};
use crate::telemetry::Sparing;

/// How often a node says that it is there: so many times within its lease.
const BEATS: u32 = 3;
/// The part of a lease by which the database's clock may go ahead between two beats.
const TOLERANCE: u32 = 10;
/// The longest pause before it says so again after it could not, and how long it may take at least; and how long once it has given up.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// Why a node is silent: it could not say for too long that it is there, or another one has its name.
pub(super) const UNHEARD: &str = "this node could not say that it is there for too long";
const REPLACED: &str = "another server of this name has started later and has this one's place";

/// This node.
pub(super) struct Node {
    /// The number of its start.
    id: AtomicI64,
    pub(super) name: String,
    role: Role,
    pub(super) labels: Labels,
    /// What it runs is lost, and run elsewhere, when it has not been heard of for so long.
    lease: Duration,
    /// It stops what it runs when it has not reached the database for so long: the rest of the lease is for that to end.
    give_up: Duration,
    pub(super) gatekeeper: Gatekeeper,
    /// Why what it claimed now would be taken from it, if that is so.
    silent: watch::Sender<Option<&'static str>>,
    /// The attempts that run here.
    held: Mutex<HashMap<JobId, Arc<Run>>>,
    /// Attempts to stop that nobody has heard of yet. The heartbeat and the writer may both find the same.
    revoked: Mutex<HashMap<Lease, Revocation>>,
    some_revoked: Notify,
    /// The attempts that go on to the end of the process.
    left_behind: Mutex<Vec<Lease>>,
    stale: AtomicU64,
}

impl Node {
    pub(super) fn new(name: String, role: Role, labels: Labels, lease: Duration) -> Self {
        Self {
            id: AtomicI64::new(0),
            name,
            role,
            labels,
            lease,
            give_up: lease.saturating_sub(lease / 6),
            gatekeeper: Gatekeeper::new(),
            silent: watch::Sender::new(None),
            held: Mutex::default(),
            revoked: Mutex::default(),
            some_revoked: Notify::new(),
            left_behind: Mutex::default(),
            stale: AtomicU64::new(0),
        }
    }

    pub(super) fn id(&self) -> i64 {
        self.id.load(Ordering::SeqCst)
    }

    pub(super) fn set_id(&self, id: i64) {
        self.id.store(id, Ordering::SeqCst);
    }

    /// Its labels, if it runs jobs.
    pub(super) fn at_work(&self) -> &[Labels] {
        if self.role == Role::Api { &[] } else { std::slice::from_ref(&self.labels) }
    }

    /// Whether it may run what requires these labels, as a lane has them.
    pub(super) fn may_run(&self, place: &str) -> bool {
        place.is_empty() || serde_json::from_str::<Labels>(place).is_ok_and(|required| meets(&self.labels, &required))
    }

    pub(super) fn is_silent(&self) -> bool {
        self.why_silent().is_some()
    }

    pub(super) fn why_silent(&self) -> Option<&'static str> {
        *self.silent.borrow()
    }

    /// It has a place, or another one of its name has.
    pub(super) fn set_replaced(&self, replaced: bool) {
        let why = replaced.then_some(REPLACED);
        if self.silent.send_if_modified(|silent| std::mem::replace(silent, why) != why) && replaced {
            tracing::error!("{REPLACED}: it claims nothing until that one is gone");
        }
    }

    /// Waits until it can say that it is there.
    pub(super) async fn heard(&self) {
        if self.is_silent() {
            // Its sender is here, so it does not end early.
            let _ = self.silent.subscribe().wait_for(Option::is_none).await;
        }
    }

    /// Attempts were claimed.
    pub(super) fn hold_all(&self, runs: impl Iterator<Item = (JobId, Arc<Run>)>) {
        self.held().extend(runs);
    }

    /// The attempts of these leases, as far as they run here.
    pub(super) fn runs(&self, leases: impl Iterator<Item = Lease>) -> Vec<Option<Arc<Run>>> {
        let held = self.held();
        leases.map(|lease| held.get(&lease.id).filter(|run| run.token == lease.token).cloned()).collect()
    }

    /// It does not run here any more.
    pub(super) fn drop_lease(&self, lease: Lease) {
        let mut held = self.held();
        if held.get(&lease.id).is_some_and(|run| run.token == lease.token) {
            held.remove(&lease.id);
        }
    }

    /// All that runs here.
    pub(super) fn leases(&self) -> Vec<Lease> {
        self.held().iter().map(|(id, run)| Lease { id: *id, token: run.token }).collect()
    }

    /// These go on to the end of the process.
    pub(super) fn leave_behind(&self, running: Vec<Lease>) {
        self.left_behind.lock().unwrap_or_else(PoisonError::into_inner).extend(running);
    }

    /// All that is claimed by this node and does not run.
    pub(super) fn idle(&self) -> Vec<Lease> {
        let running = self.left_behind.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.leases().into_iter().filter(|lease| !running.contains(lease)).collect()
    }

    fn held(&self) -> MutexGuard<'_, HashMap<JobId, Arc<Run>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These attempts are to stop.
    pub(super) fn revoke(&self, leases: impl IntoIterator<Item = Lease>, why: Revocation) {
        let mut revoked = self.revoked.lock().unwrap_or_else(PoisonError::into_inner);
        revoked.extend(leases.into_iter().map(|lease| (lease, why)));
        if !revoked.is_empty() {
            self.some_revoked.notify_one();
        }
    }

    /// Waits until there are attempts to stop.
    pub(super) async fn revoked(&self) -> Vec<(Lease, Revocation)> {
        loop {
            let revoked = std::mem::take(&mut *self.revoked.lock().unwrap_or_else(PoisonError::into_inner));
            if !revoked.is_empty() {
                return revoked.into_iter().collect();
            }
            self.some_revoked.notified().await;
        }
    }

    /// A result came too late: its lease had ended.
    pub(super) fn count_stale(&self) {
        self.stale.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn stale(&self) -> u64 {
        self.stale.load(Ordering::SeqCst)
    }

    /// Says that it is there, over and over, and has the writer look after nodes that are not. Stops what runs here if nobody can be told
    /// for too long.
    pub(super) async fn beat(&self, connect: &Connect, writer: &mpsc::WeakSender<Command>, end: &CancellationToken) {
        let every = self.lease / BEATS;
        // By a clock that goes on while the process is stopped, and that nobody sets.
        let mut heard_at = Instant::now();
        // One of its own: whoever reads, and however long that takes, must not take a node its leases.
        let mut connection = None;
        let mut pause = every;
        let mut time = Time::default();
        let (untold, mut is_untold) = (Sparing::default(), false);
        while !end.is_cancelled() {
            let left = self.give_up.saturating_sub(heard_at.elapsed());
            let wait = if self.is_silent() { pause } else { pause.min(left) };
            if end.run_until_cancelled(tokio::time::sleep(wait.max(Duration::from_millis(1)))).await.is_none() {
                return;
            }
            let asked_at = Instant::now();
            let left = self.give_up.saturating_sub(heard_at.elapsed());
            // Where leases are not very short, there is time for another one if this connection goes nowhere.
            let limit = if self.is_silent() {
                every.max(AGAIN.1)
            } else {
                (every / 2).max(AGAIN.0).min(left).max(Duration::from_millis(10))
            };
            let id = self.id();
            let beat = match tokio::time::timeout(limit, self.renew(connect, &mut connection, limit)).await {
                Ok(beat) => beat.map_err(|error| error.to_string()),
                Err(_) => Err("it does not answer".to_owned()),
            };
            pause = every;
            if beat.is_err() {
                // It may be broken, or from a time when nothing could be written.
                connection = None;
                pause = AGAIN.0.min(every / 4);
            }
            match beat {
                Ok(Beat { known, others_expired, clock }) => {
                    let away = asked_at - std::mem::replace(&mut heard_at, asked_at);
                    if std::mem::take(&mut is_untold) {
                        tracing::info!("the database is told again that this node is there");
                    }
                    self.silent.send_if_modified(|silent| silent.take_if(|why| *why == UNHEARD).is_some());
                    if !known {
                        if !self.is_silent() {
                            tracing::warn!("this node was not heard of for too long: what it runs is run elsewhere");
                        }
                        let held = self.leases();
                        // The writer may have taken a new place meanwhile: what was claimed by that is good.
                        if self.id() == id {
                            self.revoke(held, Revocation::Lost);
                        }
                    }
                    if let Some(doubt) = time.look((asked_at, clock), away, self.lease) {
                        tracing::warn!("{doubt}: for the length of a lease no node is taken for gone");
                    }
                    let is_gone = others_expired && time.may_be_trusted(self.lease);
                    if is_gone || !known {
                        // If there is no room for it, the next beat says it again.
                        if let Some(writer) = writer.upgrade() {
                            let _ = writer.try_send(Command::Reap);
                        }
                    }
                }
                Err(error) => {
                    is_untold = true;
                    if let Some(more) = untold.tell() {
                        tracing::warn!(error, more, "the database can't be told that this node is there");
                    }
                }
            }
            // The lease does not wait for that: whoever has a lock on all jobs, as a maintenance of their table may, must not take it.
            if let Some(session) = &mut connection {
                match tokio::time::timeout(every / 4, session.ask(async |connection| stopping(connection, id).await)).await {
                    Ok(Ok(stopping)) => self.revoke(stopping, Revocation::Cancelled),
                    _ => connection = None,
                }
            }
            if heard_at.elapsed() >= self.give_up {
                if self.silent.send_if_modified(|silent| silent.replace(UNHEARD).is_none()) {
                    tracing::error!(
                        "the database has not been reached for too long: what runs here is stopped, since it is run elsewhere"
                    );
                }
                // Also what was claimed as it was given up.
                self.revoke(self.leases(), Revocation::Lost);
            }
        }
    }

    async fn renew(&self, connect: &Connect, kept: &mut Option<Session>, time: Duration) -> Result<Beat, StoreError> {
        let session = match kept {
            Some(session) => session,
            // One host that says nothing must not take the time of the next one: that has what is left.
            None => kept.insert(connect.open_by_key("heartbeat", time).await?),
        };
        session.ask(async |connection: &mut PgConnection| self.renew_on(connection).await).await
    }

    async fn renew_on(&self, connection: &mut PgConnection) -> Result<Beat, StoreError> {
        let lease = self.lease_ms();
        let text = "UPDATE nodes SET seen_at = clock_timestamp(), expires_at = clock_timestamp() + $2 * INTERVAL '1 millisecond' \
                    WHERE id = $1 AND expires_at > to_timestamp(0)";
        let known = sqlx::query(text).bind(self.id()).bind(lease).execute(&mut *connection).await?.rows_affected() > 0;
        let text = "SELECT EXISTS (SELECT 1 FROM nodes WHERE expires_at < clock_timestamp()), \
                    (extract(epoch FROM clock_timestamp()) * 1000000)::BIGINT";
        let (others_expired, clock) = sqlx::query_as(text).fetch_one(&mut *connection).await?;
        Ok(Beat { known, others_expired, clock: Timestamp::from_micros(clock) })
    }

    /// Whether one that has started later under its name is there. Each would take the other's jobs for ever, if this one came back.
    pub(super) async fn is_replaced(&self, connection: &mut PgConnection) -> Result<bool, StoreError> {
        let text = "SELECT EXISTS (SELECT 1 FROM nodes WHERE name = $1 AND id > $2 AND expires_at > clock_timestamp())";
        // One that has just started takes the place.
        Ok(self.id() > 0 && sqlx::query_scalar(text).bind(&self.name).bind(self.id()).fetch_one(connection).await?)
    }

    #[expect(clippy::cast_precision_loss, reason = "milliseconds of minutes")]
    fn lease_ms(&self) -> f64 {
        self.lease.as_millis() as f64
    }

    /// Counts this start, inside the writer's transaction.
    pub(super) async fn register(&self, connection: &mut PgConnection) -> Result<i64, StoreError> {
        let text = "INSERT INTO nodes (name, version, role, labels, expires_at, draining, knows) \
                    VALUES ($1, $2, $5, $6, clock_timestamp() + $3 * INTERVAL '1 millisecond', $4, $7) RETURNING id";
        let query = sqlx::query_scalar(text).bind(&self.name).bind(env!("CARGO_PKG_VERSION")).bind(self.lease_ms());
        // One that lost its place is what it was; one that has just started claims.
        Ok(query
            .bind(self.gatekeeper.is_shut())
            .bind(self.role.as_str())
            .bind(json(&self.labels))
            .bind(connect::known())
            .fetch_one(connection)
            .await?)
    }
}

/// What a node hears when it says that it is there.
struct Beat {
    /// Its leases are still its own.
    known: bool,
    others_expired: bool,
    /// What time it is, says the database.
    clock: Timestamp,
}

/// The database's clock, by which leases end, as it is seen by one that nobody sets. It jumps where it is set, and where another machine takes
/// the database over; and it goes on while the database is away for all. Then leases seem to be over of nodes that are there.
#[derive(Default)]
struct Time {
    /// When it was looked at, and what it said then.
    seen: Option<(Instant, Timestamp)>,
    doubted_at: Option<Instant>,
}

impl Time {
    /// It says this, having been asked at that moment, and having told nothing for so long before. Why leases that are over by it may not be, if
    /// there is a reason.
    fn look(&mut self, (asked_at, clock): (Instant, Timestamp), away: Duration, lease: Duration) -> Option<&'static str> {
        let now = Instant::now();
        // No more time has gone by than between the first question and this answer.
        let jumped = |(seen_at, seen)| clock.since(seen) > now - seen_at + lease / TOLERANCE;
        let doubt = if self.seen.is_some_and(jumped) {
            Some("the database's clock has jumped")
        } else {
            // Others, too, may not have been able to say that they are there.
            (away >= lease / 2).then_some("the database was away for long")
        };
        if doubt.is_some() {
            self.doubted_at = Some(now);
        }
        self.seen = Some((asked_at, clock));
        doubt
    }

    /// Whether leases have been over for long enough by it: since there was a doubt, all nodes that are there have said so.
    fn may_be_trusted(&self, lease: Duration) -> bool {
        self.doubted_at.is_none_or(|at| at.elapsed() >= lease)
    }
}

/// The attempts of a node that are to stop.
pub(super) async fn stopping(connection: &mut PgConnection, node: i64) -> Result<Vec<Lease>, StoreError> {
    let text = "SELECT id, token FROM work WHERE node = $1 AND state = 2 AND stopping";
    let rows = sqlx::query(text).bind(node).fetch_all(connection).await?;
    rows.iter()
        .map(|row| {
            let mut cells = Cells::new(row);
            Ok(Lease { id: cells.id()?, token: cells.take()? })
        })
        .collect()
}

/// Nodes that were not heard of in time, or are earlier starts of the one of this name. What one of them says of itself from here on waits until this
/// is committed, and finds that it is gone.
pub(super) async fn gone(connection: &mut PgConnection, me: i64, name: &str) -> Result<Vec<(i64, String)>, StoreError> {
    let text =
        "SELECT id, name FROM nodes WHERE (expires_at < clock_timestamp() OR name = $2 AND id < $1) AND id <> $1 FOR UPDATE";
    Ok(sqlx::query_as(text).bind(me).bind(name).fetch_all(connection).await?)
}

/// The labels of the nodes that run jobs.
pub(super) async fn labels(connection: &mut PgConnection) -> Result<Vec<Labels>, StoreError> {
    let rows = sqlx::query("SELECT labels FROM nodes WHERE role <> $1").bind(Role::Api.as_str()).fetch_all(connection).await?;
    rows.iter().map(|row| Ok(Cells::new(row).json()?.unwrap_or_default())).collect()
}

/// Nodes whose jobs are being taken from them: what they hold is not theirs any more.
pub(super) async fn shut_out(connection: &mut PgConnection, nodes: &[i64]) -> Result<(), StoreError> {
    sqlx::query("UPDATE nodes SET expires_at = to_timestamp(0) WHERE id = ANY($1)").bind(nodes).execute(connection).await?;
    Ok(())
}

/// Nodes that are not there any more.
pub(super) async fn forget(connection: &mut PgConnection, nodes: &[i64]) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM nodes WHERE id = ANY($1)").bind(nodes).execute(connection).await?;
    Ok(())
}

/// Jobs that this node has claimed and does not know of: their transaction was committed, but nobody heard of it. And whether each is to stop.
pub(super) async fn unheard(connection: &mut PgConnection, node: i64, held: &[Lease]) -> Result<Vec<(JobId, bool)>, StoreError> {
    let text = concat!(
        "SELECT id, stopping FROM work WHERE node = $1 AND state = 2 AND (id IS DISTINCT FROM ",
        of_id!("$2::UUID[]", "id", "$2"),
        " OR token IS DISTINCT FROM ",
        of_id!("$3::BIGINT[]", "id", "$2"),
        ")"
    );
    let (ids, tokens) = rows::by_id(held.iter().map(|lease| (lease.id, lease.token)));
    let rows = sqlx::query(text).bind(node).bind(ids).bind(tokens).fetch_all(connection).await?;
    let one = |row| {
        let mut cells = Cells::new(row);
        Ok((cells.id()?, cells.take()?))
    };
    rows.iter().map(one).collect()
}

/// Up to `most` of the jobs that run on these nodes, in the order of their ids; without their workloads, which could take longer than a
/// transaction may.
pub(super) async fn running(connection: &mut PgConnection, nodes: &[i64], most: usize) -> Result<Vec<Job>, StoreError> {
    let text =
        concat!("SELECT ", outline_of_job!(), from_jobs!(), "WHERE w.state = 2 AND w.node = ANY($1) ORDER BY w.id LIMIT $2");
    sqlx::query(text).bind(nodes).bind(number(most)).fetch_all(connection).await?.iter().map(rows::job).collect()
}

/// Ends the comparisons that ran on these nodes; but for those of an earlier start of the node of this name, which ends them by itself.
pub(super) async fn interrupt(
    connection: &mut PgConnection,
    nodes: &[i64],
    name: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    let text = "UPDATE comparisons SET state = $1, finished_at = $2, error = 'the server went down while it ran' \
                WHERE state = 1 AND node IN (SELECT id FROM nodes WHERE id = ANY($3) AND name <> $4)";
    sqlx::query(text)
        .bind(code(ComparisonState::Failed))
        .bind(now.as_micros())
        .bind(nodes)
        .bind(name)
        .execute(connection)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_are_not_taken_for_over_because_the_clock_has_jumped_or_the_database_was_away() {
        let (lease, no_time) = (Duration::from_secs(30), Duration::ZERO);
        let (start, clock) = (Instant::now().checked_sub(Duration::from_secs(60)).unwrap(), Timestamp::from_micros(0));
        // All that is asked for is answered now.
        let seen = |asked, clock_says| (start + Duration::from_secs(asked), clock.after(Duration::from_secs(clock_says)));
        let mut time = Time::default();
        assert!(time.look(seen(0, 0), no_time, lease).is_none() && time.may_be_trusted(lease));
        assert!(time.look(seen(50, 62), no_time, lease).is_none());
        assert!(time.look(seen(50, 0), no_time, lease).is_none(), "it was set back");
        assert!(time.look(seen(55, 30), no_time, lease).is_some());
        assert!(!time.may_be_trusted(lease));
        time.doubted_at = Some(start + Duration::from_secs(30));
        assert!(time.may_be_trusted(lease));
        assert!(time.look(seen(55, 30), lease / 3, lease).is_none() && time.may_be_trusted(lease));
        assert!(time.look(seen(55, 30), lease, lease).is_some() && !time.may_be_trusted(lease));
    }
}
