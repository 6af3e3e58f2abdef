//! The program as its users run it: started, killed, drained, and driven by its own command line.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on fails")]

mod artifacts;
mod behind;
mod canary;
mod cancel;
mod cluster;
mod command_line;
mod commands;
mod comparisons;
mod crash;
mod data_folder;
mod disk;
mod drain;
mod events;
mod files;
mod forged;
mod functions;
mod hostile_sites;
mod keys;
mod left_behind;
mod load;
mod log;
mod names;
mod network;
mod outbound;
#[path = "../patience/mod.rs"]
mod patience;
#[path = "../port/mod.rs"]
mod port;
#[path = "../postgres/mod.rs"]
mod postgres;
mod python;
mod quarantine;
mod retention;
mod scheduled;
mod schedules;
mod schemathesis;
mod server;
mod slow_clients;
mod soak;
mod tls;
mod together;
mod upgrade;
mod webhooks;
mod workers;
