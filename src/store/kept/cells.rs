use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{Decode, Postgres, Row as _, Sqlite, Type};
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::job::{JobId, Owner};
use crate::store::StoreError;
use crate::store::codes::Code;

/// What both databases can give back.
pub(in crate::store) trait Value<'r>:
    Decode<'r, Sqlite> + Type<Sqlite> + Decode<'r, Postgres> + Type<Postgres>
{
}

impl<'r, T: Decode<'r, Sqlite> + Type<Sqlite> + Decode<'r, Postgres> + Type<Postgres>> Value<'r> for T {}

/// A row of either database.
pub(in crate::store) trait Row {
    fn value<'r, T: Value<'r>>(&'r self, at: usize) -> Result<T, StoreError>;
}

impl Row for SqliteRow {
    fn value<'r, T: Value<'r>>(&'r self, at: usize) -> Result<T, StoreError> {
        Ok(self.try_get(at)?)
    }
}

impl Row for PgRow {
    fn value<'r, T: Value<'r>>(&'r self, at: usize) -> Result<T, StoreError> {
        Ok(self.try_get(at)?)
    }
}

/// Reads a row's columns from left to right.
pub(in crate::store) struct Cells<'r, R> {
    row: &'r R,
    next: usize,
}

impl<'r, R: Row> Cells<'r, R> {
    pub(in crate::store) const fn new(row: &'r R) -> Self {
        Self { row, next: 0 }
    }

    pub(in crate::store) fn take<T: Value<'r>>(&mut self) -> Result<T, StoreError> {
        let at = self.next;
        self.next += 1;
        self.row.value(at)
    }

    /// Leaves columns out.
    pub(in crate::store) const fn skip(&mut self, columns: usize) {
        self.next += columns;
    }

    pub(in crate::store) fn id(&mut self) -> Result<JobId, StoreError> {
        Ok(JobId::from_bytes(self.take::<Uuid>()?.into_bytes()))
    }

    /// `None` if nobody owns it.
    pub(in crate::store) fn owner(&mut self) -> Result<Option<Owner>, StoreError> {
        Ok(self.take::<Option<i64>>()?.and_then(Owner::from_code))
    }

    pub(in crate::store) fn code<T: Code>(&mut self) -> Result<T, StoreError> {
        T::from_code(self.take::<i16>()?.into())
    }

    pub(in crate::store) fn code_or_none<T: Code>(&mut self) -> Result<Option<T>, StoreError> {
        self.take::<Option<i16>>()?.map(|code| T::from_code(code.into())).transpose()
    }

    pub(in crate::store) fn number<T: TryFrom<i64>>(&mut self) -> Result<T, StoreError> {
        let value: i64 = self.take()?;
        T::try_from(value).map_err(|_| StoreError::Corrupt(format!("{value} is out of range")))
    }

    pub(in crate::store) fn time(&mut self) -> Result<Timestamp, StoreError> {
        Ok(Timestamp::from_micros(self.take()?))
    }

    pub(in crate::store) fn time_or_none(&mut self) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.take::<Option<i64>>()?.map(Timestamp::from_micros))
    }

    pub(in crate::store) fn raw(&mut self) -> Result<Box<RawValue>, StoreError> {
        RawValue::from_string(self.take()?).map_err(corrupt)
    }

    pub(in crate::store) fn json<T: DeserializeOwned>(&mut self) -> Result<Option<T>, StoreError> {
        let text: Option<&str> = self.take()?;
        text.map(serde_json::from_str).transpose().map_err(corrupt)
    }
}

/// JSON that can't be read.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub(in crate::store) fn corrupt(error: serde_json::Error) -> StoreError {
    StoreError::Corrupt(error.to_string())
}
