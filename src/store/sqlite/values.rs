//! One statement for many rows: `VALUES` lists of a few fixed lengths, so that each statement is prepared once.

use std::sync::{Arc, OnceLock};

use sqlx::AssertSqlSafe;
use sqlx::sqlite::SqliteArguments;

/// The most rows of one statement.
const MOST_ROWS: usize = 512;
/// Lists are 1, 2, 4 … [`MOST_ROWS`] rows long.
const LENGTHS: usize = MOST_ROWS.ilog2() as usize + 1;

/// A statement whose text holds `{values}`, a table of `columns` columns named `column1`, `column2` and so on.
///
/// A list is filled up with rows of NULL, so the statement must say `WHERE column1 IS NOT NULL`.
pub(super) struct ValuesStatement {
    template: &'static str,
    columns: usize,
    texts: [OnceLock<Arc<str>>; LENGTHS],
}

impl ValuesStatement {
    pub(super) const fn new(template: &'static str, columns: usize) -> Self {
        Self { template, columns, texts: [const { OnceLock::new() }; LENGTHS] }
    }

    /// The statements for all `rows`, each with its arguments, which `bind` adds in the order of the columns.
    pub(super) fn batches<'a, R>(
        &'a self,
        rows: &'a [R],
        bind: impl Fn(&R, &mut Binder) + 'a,
    ) -> impl Iterator<Item = (AssertSqlSafe<Arc<str>>, Result<SqliteArguments, sqlx::Error>)> + 'a {
        rows.chunks(MOST_ROWS).map(move |chunk| {
            let length = chunk.len().next_power_of_two();
            let mut binder = Binder::new(length * self.columns);
            for row in chunk {
                bind(row, &mut binder);
            }
            for _ in chunk.len() * self.columns..length * self.columns {
                binder.bind(None::<i64>);
            }
            (self.text(length), binder.finish())
        })
    }

    fn text(&self, length: usize) -> AssertSqlSafe<Arc<str>> {
        let text = self.texts[length.ilog2() as usize].get_or_init(|| {
            let row = format!("({})", vec!["?"; self.columns].join(","));
            self.template.replace("{values}", &format!("(VALUES {})", vec![row; length].join(","))).into()
        });
        // Built from constants of this program only; all data goes through arguments.
        AssertSqlSafe(Arc::clone(text))
    }
}

/// Collects the arguments of a statement; the first that can't be encoded is the error of the whole.
pub(super) struct Binder {
    arguments: SqliteArguments,
    error: Option<sqlx::error::BoxDynError>,
}

impl Binder {
    fn new(expected: usize) -> Self {
        use sqlx::Arguments as _;
        let mut arguments = SqliteArguments::default();
        arguments.reserve(expected, 0);
        Self { arguments, error: None }
    }

    pub(super) fn bind<'q, T: sqlx::Encode<'q, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>>(&mut self, value: T) -> &mut Self {
        use sqlx::Arguments as _;
        if let Err(error) = self.arguments.add(value) {
            self.error.get_or_insert(error);
        }
        self
    }

    fn finish(self) -> Result<SqliteArguments, sqlx::Error> {
        self.error.map_or(Ok(self.arguments), |error| Err(sqlx::Error::Encode(error)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sqlx::{Connection, SqliteConnection};

    #[tokio::test]
    async fn any_number_of_rows_goes_through_few_statements() {
        static INSERT: ValuesStatement =
            ValuesStatement::new("INSERT INTO t SELECT column1, column2 FROM {values} WHERE column1 IS NOT NULL", 2);
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        sqlx::query("CREATE TABLE t (a INTEGER, b TEXT)").execute(&mut connection).await.unwrap();
        let rows: Vec<i64> = (1..=1_337).collect();
        let mut statements = 0;
        for (text, arguments) in INSERT.batches(&rows, |row, binder| {
            binder.bind(*row).bind(row.to_string());
        }) {
            statements += 1;
            sqlx::query_with(text, arguments.unwrap()).execute(&mut connection).await.unwrap();
        }
        let (count, sum): (i64, i64) =
            sqlx::query_as("SELECT count(*), sum(a) FROM t WHERE b = CAST(a AS TEXT)").fetch_one(&mut connection).await.unwrap();
        assert_eq!((statements, count, sum), (3, 1_337, 1_337 * 1_338 / 2));
    }
}
