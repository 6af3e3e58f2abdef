//! Statements that take many rows at once, as bound values.
//!
//! Each statement is there in a few sizes, so that it is prepared once for each of them. Where there are fewer rows than a size has,
//! the rest is null, and a statement has to pass over such rows.

use std::sync::Arc;

use futures_util::future::join;
use sqlx::encode::Encode;
use sqlx::sqlite::SqliteArguments;
use sqlx::{Arguments as _, Sqlite, SqliteConnection, Type};

use crate::store::StoreError;

/// How many rows a statement has. Close together where most transactions are: a row that is passed over costs too.
const SIZES: [usize; 20] = [1, 2, 4, 6, 8, 12, 16, 20, 24, 28, 32, 36, 40, 48, 56, 64, 80, 96, 112, 128];
/// The most rows of one statement.
pub(super) const MOST: usize = SIZES[SIZES.len() - 1];

/// One or more statements that take the same rows.
pub(super) struct Many {
    /// By size: inside a transaction, beginning one, ending one, and doing both.
    texts: Vec<[String; 4]>,
}

/// Statements and what they are given, which is made out when it is their turn: one trip to the thread that talks to SQLite.
pub(super) struct Trip<'t> {
    texts: &'static [String; 4],
    make_out: Box<dyn FnOnce() -> Result<SqliteArguments, StoreError> + Send + 't>,
}

/// Values for the rows of a statement, from the left to the right.
pub(super) struct Values {
    arguments: SqliteArguments,
}

impl Many {
    /// From the text of the statements for so many rows.
    pub(super) fn new(text: impl Fn(usize) -> String) -> Self {
        let texts = SIZES.iter().map(|&rows| {
            let inside = text(rows);
            // A single statement is a transaction by itself.
            let alone =
                if inside.matches(';').count() == 1 { inside.clone() } else { format!("BEGIN IMMEDIATE; {inside} COMMIT;") };
            [inside.clone(), format!("BEGIN IMMEDIATE; {inside}"), format!("{inside} COMMIT;"), alone]
        });
        Self { texts: texts.collect() }
    }

    /// A trip with so many rows, at most [`MOST`]. `fill` gives all values of the statements, for as many rows as it is told.
    pub(super) fn trip<'t>(
        &'static self,
        rows: usize,
        fill: impl FnOnce(&mut Values, usize) -> Result<(), StoreError> + Send + 't,
    ) -> Trip<'t> {
        let at = SIZES.partition_point(|size| *size < rows).min(SIZES.len() - 1);
        let make_out = move || {
            let mut values = Values { arguments: SqliteArguments::default() };
            fill(&mut values, SIZES[at])?;
            Ok(values.arguments)
        };
        Trip { texts: &self.texts[at], make_out: Box::new(make_out) }
    }
}

impl Trip<'_> {
    fn made_out(self) -> Result<(&'static [String; 4], SqliteArguments), StoreError> {
        Ok((self.texts, (self.make_out)()?))
    }
}

impl Values {
    /// The next value.
    pub(super) fn push<'v>(&mut self, value: impl Encode<'v, Sqlite> + Type<Sqlite>) -> Result<(), StoreError> {
        self.arguments.add(value).map_err(|error| StoreError::Database(sqlx::Error::Encode(error)))
    }

    /// The next value, a text: copied once, where sqlx would copy what it is lent, and then wrap the copy.
    pub(super) fn text(&mut self, text: &str) -> Result<(), StoreError> {
        self.push(Arc::<str>::from(text))
    }

    /// The values of all rows, and of those to be passed over up to `size`.
    pub(super) fn rows<T>(
        &mut self,
        rows: &[T],
        size: usize,
        columns: usize,
        push: impl Fn(&mut Self, &T) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.arguments.reserve(size * columns, 0);
        rows.iter().try_for_each(|row| push(self, row))?;
        (rows.len()..size).flat_map(|_| 0..columns).try_for_each(|_| self.push(None::<i64>))
    }
}

/// Makes the trips one after the other; `alone`, as a transaction of their own. While SQLite is busy with one, the next is made out, and no
/// more: a large batch is never there twice.
pub(super) async fn make(connection: &mut SqliteConnection, trips: Vec<Trip<'_>>, alone: bool) -> Result<(), StoreError> {
    let (mut trips, mut begins) = (trips.into_iter(), alone);
    let mut next = trips.next().map(Trip::made_out).transpose()?;
    while let Some((texts, arguments)) = next {
        let ends = alone && trips.len() == 0;
        let which = usize::from(begins) + 2 * usize::from(ends);
        begins = false;
        let trip = sqlx::query_with(texts[which].as_str(), arguments).execute(&mut *connection);
        let (trip, made_out) = join(trip, async { trips.next().map(Trip::made_out).transpose() }).await;
        trip?;
        next = made_out?;
    }
    Ok(())
}

/// `(?, ?), (?, ?)`, with so many columns and rows.
pub(super) fn marks(columns: usize, rows: usize) -> String {
    let row = format!("({})", vec!["?"; columns].join(", "));
    vec![row; rows].join(", ")
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use sqlx::Connection as _;

    use super::*;

    static NUMBERS: LazyLock<Many> = LazyLock::new(|| {
        Many::new(|rows| {
            format!(
                "INSERT INTO numbers SELECT * FROM (VALUES {}) WHERE column1 IS NOT NULL; DELETE FROM numbers WHERE n IN ({});",
                marks(1, rows),
                marks(1, rows)
            )
        })
    });

    fn numbers(all: &[i64]) -> Vec<Trip<'_>> {
        let trips = all.chunks(MOST).map(|chunk| {
            NUMBERS.trip(chunk.len(), move |values, size| {
                values.rows(chunk, size, 1, |values, n| values.push(*n))?;
                values.rows(chunk, size, 1, |values, n| values.push(Some(*n).filter(|n| n % 10 == 0)))
            })
        });
        trips.collect()
    }

    #[tokio::test]
    async fn every_number_of_rows_fits() {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        sqlx::query("CREATE TABLE numbers (n INTEGER NOT NULL PRIMARY KEY)").execute(&mut connection).await.unwrap();
        for count in (0..=130).chain([255, 256, 257, 1_000]) {
            let all: Vec<i64> = (0..count).collect();
            make(&mut connection, numbers(&all), true).await.unwrap();
            let kept: i64 = sqlx::query_scalar("SELECT count(*) FROM numbers").fetch_one(&mut connection).await.unwrap();
            assert_eq!(kept, count - (count + 9) / 10);
            sqlx::query("DELETE FROM numbers").execute(&mut connection).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_transaction_over_several_trips_is_all_or_nothing() {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        sqlx::query("CREATE TABLE numbers (n INTEGER NOT NULL PRIMARY KEY)").execute(&mut connection).await.unwrap();
        let twice: Vec<i64> = (1..400).chain([399]).collect();
        assert!(make(&mut connection, numbers(&twice), true).await.is_err());
        sqlx::query("ROLLBACK").execute(&mut connection).await.unwrap();
        let kept: i64 = sqlx::query_scalar("SELECT count(*) FROM numbers").fetch_one(&mut connection).await.unwrap();
        assert_eq!(kept, 0);
    }
}
