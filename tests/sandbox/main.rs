//! The sandbox, with programs that try to get out of it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on fails")]

mod bench;
mod files;
mod host;
mod limits;
mod network;
mod processes;
mod rights;
