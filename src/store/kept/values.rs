//! How values are written.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::job::JobId;
use crate::store::codes::Code;

/// How far the time in an id may be from the time of acceptance. They are mostly milliseconds apart, but a store that can't write
/// accepts late, and ids never go back when the clock does.
pub(in crate::store) const ID_SLACK: Duration = Duration::from_hours(1);

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

/// The smallest id of a moment: its first 48 bits are the milliseconds since the Unix epoch (RFC 9562, UUID version 7).
pub(in crate::store) fn first_id(at: Timestamp) -> JobId {
    let millis = at.as_micros().div_euclid(1_000).clamp(0, (1 << 48) - 1);
    let mut id = [0; 16];
    id[..6].copy_from_slice(&millis.to_be_bytes()[2..]);
    JobId::from_bytes(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_made_now_lie_behind_the_first_id_of_now() {
        let first = first_id(Timestamp::now());
        assert!(JobId::new() >= first);
        assert!(JobId::new() < first_id(Timestamp::now().after(Duration::from_mins(1))));
    }
}
