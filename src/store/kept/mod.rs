//! What both drivers keep alike: the columns of a table, the statements that read the same in both databases, which integer stands for
//! what, and how a row is read. One file for each kind of thing.
//!
//! Placeholders are `$1`, `$2` …, which both databases understand.

mod cells;
pub(super) mod comparison;
pub(super) mod delivery;
pub(super) mod function;
pub(super) mod key;
mod options;
pub(super) mod schedule;
mod values;

pub(super) use self::cells::{Cells, Row, corrupt};
pub(super) use self::options::{Figures, Options, figures, timing};
pub(super) use self::values::{code, json, number};
