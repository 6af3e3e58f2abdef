//! How values are written.

use crate::store::codes::Code;

/// What stands for a value.
pub(in crate::store) fn code(value: impl Code) -> i16 {
    i16::try_from(value.code()).unwrap_or(-1)
}

/// Types of this program with string keys, which always can be written as JSON.
pub(in crate::store) fn json(value: &(impl serde::Serialize + ?Sized)) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// A limit of rows.
pub(in crate::store) fn number(most: usize) -> i64 {
    i64::try_from(most).unwrap_or(i64::MAX)
}
