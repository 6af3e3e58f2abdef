//! `jobs` and `results` in partitions by day: an option, since not every database has them.
//!
//! An id begins with the time of its job's submission, so a day is a range of ids, and whoever knows an id finds its partition. What was there
//! before the tables were divided is one partition, of all before a day (`divide.rs`). What belongs to no day that has a partition goes to
//! the one of the rest, so no insert fails for want of a partition. Names say what a partition holds; those of other names are left alone.
//!
//! As long as the tables are divided, each node sees to it that there are partitions for the next days, whatever its own settings say;
//! retention drops those of days that are over (`drop.rs`).

mod divide;
mod drop;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::civil::{Date, date};
use jiff::{Span, Unit};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use uuid::Uuid;

pub(super) use self::divide::divide;
pub(super) use self::drop::{Dropped, drop_day, drop_empty, tidy};
use super::rows::uuid;
use crate::clock::Timestamp;
use crate::store::StoreError;
use crate::store::kept::first_id;

/// The tables that are divided, in the same way.
const TABLES: [&str; 2] = ["jobs", "results"];
/// For how many days there are partitions ahead.
const AHEAD: i64 = 3;
/// How a partition's name begins, behind the table's, if it holds all before a day.
const BEFORE: &str = "before_";

const EPOCH: Date = date(1970, 1, 1);
const FORMAT: &str = "%Y%m%d";

/// A day in UTC: so many days since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Day(i64);

impl Day {
    const LENGTH_US: i64 = 86_400_000_000;

    fn of(at: Timestamp) -> Self {
        Self(at.as_micros().div_euclid(Self::LENGTH_US))
    }

    /// The one of an id: its first 48 bits are milliseconds.
    fn of_id(id: Uuid) -> Self {
        let millis = id.as_bytes()[..6].iter().fold(0_i64, |millis, byte| (millis << 8) | i64::from(*byte));
        Self::of(Timestamp::from_micros(millis.saturating_mul(1_000)))
    }

    const fn plus(self, days: i64) -> Self {
        Self(self.0 + days)
    }

    fn starts_at(self) -> Timestamp {
        Timestamp::from_micros(self.0.saturating_mul(Self::LENGTH_US))
    }

    /// The first id that may be of this day.
    pub(super) fn first_id(self) -> Uuid {
        uuid(first_id(self.starts_at()))
    }

    /// As names have it; `None` if it is too far away for one.
    fn name(self) -> Option<String> {
        let date = EPOCH.checked_add(Span::new().try_days(self.0).ok()?).ok()?;
        Some(date.strftime(FORMAT).to_string())
    }

    fn parse(name: &str) -> Option<Self> {
        let date = Date::strptime(FORMAT, name).ok()?;
        let day = Self(EPOCH.until((Unit::Day, date)).ok()?.get_days().into());
        // Digits may be missing all the same.
        (day.name()? == name).then_some(day)
    }
}

/// The partition of a day, or of all before one: of both tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Partition {
    /// Its first day; `None` for the beginning of time.
    from: Option<Day>,
    /// The day after its last one.
    until: Day,
}

impl Partition {
    const fn of(day: Day) -> Self {
        Self { from: Some(day), until: day.plus(1) }
    }

    const fn before(day: Day) -> Self {
        Self { from: None, until: day }
    }

    /// What its tables are called behind the name of what they are part of.
    fn suffix(self) -> Option<String> {
        match self.from {
            Some(day) => day.name(),
            None => Some(format!("{BEFORE}{}", self.until.name()?)),
        }
    }

    fn parse(suffix: &str) -> Option<Self> {
        match suffix.strip_prefix(BEFORE) {
            Some(day) => Day::parse(day).map(Self::before),
            None => Day::parse(suffix).map(Self::of),
        }
    }

    fn holds(self, day: Day) -> bool {
        self.from.is_none_or(|from| from <= day) && day < self.until
    }

    /// The ids that it may hold: from the first one on, before the second one.
    fn ids(self) -> (Uuid, Uuid) {
        (self.from.map_or(Uuid::nil(), Day::first_id), self.until.first_id())
    }

    /// The first id of a day that is kept as a whole until it is dropped.
    pub(super) fn first_of_day(self) -> Option<Uuid> {
        self.from.map(Day::first_id)
    }

    /// Whether it can't hold this id or a later one.
    pub(super) fn ends_before(self, id: Uuid) -> bool {
        self.until.first_id() <= id
    }

    /// Whether it is over for long enough, at this moment, for whatever was submitted then to have ended, mostly.
    pub(super) fn is_over(self, at: Timestamp) -> bool {
        /// What was submitted at the end of a day ends later; what takes longer keeps its whole day.
        const REST_OF_DAY_US: i64 = 3_600_000_000;
        self.until.starts_at().as_micros().saturating_add(REST_OF_DAY_US) <= at.as_micros()
    }
}

/// Where partitions end, as this node saw them last; empty where tables are not divided.
#[derive(Default)]
pub(super) struct Ends {
    ids: Mutex<Vec<Uuid>>,
    /// Whether it was said that there are few locks for so many.
    warned: AtomicBool,
}

impl Ends {
    pub(super) fn are_any(&self) -> bool {
        !self.ids().is_empty()
    }

    fn ids(&self) -> MutexGuard<'_, Vec<Uuid>> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn see(&self, partitions: &[Partition]) {
        *self.ids() = partitions.iter().map(|partition| partition.ids().1).collect();
    }

    /// All ids, in ranges of so few days that a read of one of them asks for few partitions; the last ones first.
    ///
    /// For each partition that is asked for there is a part of the plan, and there are locks, of which a PostgreSQL has not very many.
    pub(super) fn ranges(&self) -> Vec<(Uuid, Uuid)> {
        /// So many days, and those that are made ahead.
        const DAYS: usize = 14;
        let ends = self.ids();
        let mut last = Uuid::max();
        let mut ranges = Vec::new();
        for end in ends.iter().rev().skip(DAYS).step_by(DAYS) {
            ranges.push((*end, last));
            last = *end;
        }
        ranges.push((Uuid::nil(), last));
        ranges
    }
}

/// The partitions of days, the first ones first; `None` if the tables are not divided.
pub(super) async fn list(connection: &mut PgConnection) -> Result<Option<Vec<Partition>>, StoreError> {
    // What only one of them has, by somebody else's hand, is left alone.
    let text = "SELECT c.relname::TEXT FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = to_regclass('results') \
                AND to_regclass('jobs' || substr(c.relname, length('results') + 1)) IS NOT NULL";
    let names: Vec<String> = sqlx::query_scalar(text).fetch_all(connection).await?;
    if names.is_empty() {
        return Ok(None);
    }
    let suffix = |name: &String| name.strip_prefix("results_").and_then(Partition::parse);
    let mut partitions: Vec<Partition> = names.iter().filter_map(suffix).collect();
    partitions.sort_unstable_by_key(|partition| (partition.until, partition.from));
    Ok(Some(partitions))
}

/// Makes the partitions for today and the next days that are missing, if the tables are divided.
pub(super) async fn look_ahead(connection: &mut PgConnection, ends: &Ends, now: Timestamp) -> Result<(), StoreError> {
    let Some(partitions) = list(connection).await? else { return divide::take_back(connection).await };
    ends.see(&partitions);
    let days = missing(&partitions, now).len();
    if days == 0 {
        return Ok(());
    }
    count_locks(connection, ends, partitions.len() + days).await?;
    let mut transaction = connection.begin().await?;
    let done = make_missing(&mut transaction, now).await;
    if done.is_ok() {
        return Ok(transaction.commit().await?);
    }
    transaction.rollback().await?;
    match done {
        Err(error) if is_of_the_moment(&error) => {
            tracing::warn!(%error, "no partitions could be made for the next days, since the tables are in use; it is tried again");
            Ok(())
        }
        done => done,
    }
}

/// Tells the operator if the database has too few locks for reads of all partitions: each of these takes some for each.
async fn count_locks(connection: &mut PgConnection, ends: &Ends, partitions: usize) -> Result<(), StoreError> {
    /// Two tables, with their indexes.
    const LOCKS: usize = 13;
    let text = "SELECT current_setting('max_locks_per_transaction')::BIGINT";
    let there: i64 = sqlx::query_scalar(text).fetch_one(connection).await?;
    let needed = partitions * LOCKS;
    if usize::try_from(there).is_ok_and(|there| there < needed) && !ends.warned.swap(true, Ordering::Relaxed) {
        tracing::warn!(
            partitions,
            max_locks_per_transaction = there,
            needed,
            "PostgreSQL may run out of locks when all partitions are read by several at once: raise its max_locks_per_transaction"
        );
    }
    Ok(())
}

/// Today and the next days, as far as there is no partition for them.
fn missing(partitions: &[Partition], now: Timestamp) -> Vec<Day> {
    let today = Day::of(now);
    let days = (0..=AHEAD).map(|days| today.plus(days));
    days.filter(|day| !partitions.iter().any(|partition| partition.holds(*day))).collect()
}

async fn make_missing(connection: &mut PgConnection, now: Timestamp) -> Result<(), StoreError> {
    // One node after the other; and not for long, since whoever reads all partitions waits behind this.
    sqlx::raw_sql("SET LOCAL lock_timeout = '500ms'; SET LOCAL statement_timeout = '2s'").execute(&mut *connection).await?;
    sqlx::query("LOCK TABLE ONLY jobs, ONLY results IN SHARE UPDATE EXCLUSIVE MODE").execute(&mut *connection).await?;
    for day in missing(&list(connection).await?.unwrap_or_default(), now) {
        let partition = Partition::of(day);
        let (first, end) = partition.ids();
        let text = "SELECT EXISTS (SELECT 1 FROM jobs_rest WHERE id >= $1 AND id < $2) \
                    OR EXISTS (SELECT 1 FROM results_rest WHERE id >= $1 AND id < $2)";
        // What has gone to the rest stays there, with all else of its day.
        if !sqlx::query_scalar(text).bind(first).bind(end).fetch_one(&mut *connection).await? {
            make(connection, partition).await?;
        }
    }
    Ok(())
}

/// Makes an empty partition.
async fn make(connection: &mut PgConnection, partition: Partition) -> Result<(), StoreError> {
    let Some(suffix) = partition.suffix() else { return Ok(()) };
    let (first, end) = partition.ids();
    for table in TABLES {
        // Made by itself and attached, so that nobody who reads or writes the table has to be waited for.
        let text = format!(
            "CREATE TABLE {table}_{suffix} (LIKE {table} INCLUDING ALL); \
             ALTER TABLE {table} ATTACH PARTITION {table}_{suffix} FOR VALUES FROM ('{first}') TO ('{end}')"
        );
        // Names and bounds are those of a day.
        sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut *connection).await?;
    }
    Ok(())
}

/// Whether others were in the way: they had a lock for too long, or wrote or dropped what was not so, or was there, a moment before; or there
/// was more to look at than there is time for.
fn is_of_the_moment(error: &StoreError) -> bool {
    let StoreError::Database(sqlx::Error::Database(error)) = error else { return false };
    error.code().is_some_and(|code| ["55P03", "57014", "23514", "40P01", "42P01"].contains(&&*code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_a_partition_holds() {
        let day = Day::of("2026-11-27T23:59:59.999999Z".parse().unwrap());
        for (partition, suffix) in [(Partition::of(day), "20261127"), (Partition::before(day), "before_20261127")] {
            assert_eq!(partition.suffix().as_deref(), Some(suffix));
            assert_eq!(Partition::parse(suffix), Some(partition));
        }
        for other in ["rest", "before", "2026112", "20261331", "before_", "20261127_old"] {
            assert_eq!(Partition::parse(other), None, "{other}");
        }
        assert_eq!(Day(i64::MAX / 2).name(), None);
    }

    #[test]
    fn ranges_are_of_few_days_and_leave_nothing_out() {
        let ends = Ends::default();
        assert_eq!(ends.ranges(), [(Uuid::nil(), Uuid::max())]);
        let days: Vec<Partition> = (0..93).map(|day| Partition::of(Day(20_000 + day))).collect();
        ends.see(&days);
        let ranges = ends.ranges();
        assert_eq!((ranges.len(), ranges[0].1, ranges[6].0), (7, Uuid::max(), Uuid::nil()));
        assert!(ranges.windows(2).all(|pair| pair[0].0 == pair[1].1 && pair[0].0 < pair[0].1));
        assert_eq!(ranges[0].0, days[78].ids().1);
    }

    #[test]
    fn a_day_is_a_range_of_ids() {
        let day = Day::of("2026-11-27T12:00:00Z".parse().unwrap());
        let (first, end) = Partition::of(day).ids();
        assert_eq!((first, Day::of_id(first), Day::of_id(end)), (day.first_id(), day, day.plus(1)));
        assert!(Partition::before(day).holds(day.plus(-1)) && !Partition::before(day).holds(day));
        let over = |at: &str| Partition::of(day).is_over(at.parse().unwrap());
        assert!(!over("2026-11-28T00:59:59Z") && over("2026-11-28T01:00:00Z"));
    }
}
