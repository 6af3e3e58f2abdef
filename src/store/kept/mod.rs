//! What both drivers keep alike: the columns of a table, the statements that read the same in both databases, which integer stands for
//! what, and how a row is read. One file for each kind of thing.
//!
//! Placeholders are `$1`, `$2` …, which both databases understand.

mod cells;
pub(super) mod comparison;
pub(super) mod delivery;
pub(super) mod edge;
pub(super) mod event;
pub(super) mod function;
pub(super) mod job;
pub(super) mod key;
pub(super) mod lane;
pub(super) mod once;
mod options;
pub(super) mod profile;
pub(super) mod schedule;
pub(super) mod state;
mod unread;
mod values;

pub(super) use self::cells::{Cells, Row, corrupt};
pub(super) use self::options::{Figures, Options, figures, timing};
pub(super) use self::unread::{LEFT, Unread};
pub(super) use self::values::{ID_SLACK, code, first_id, json, number};
