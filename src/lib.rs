//! Trine runs work three ways - on an event loop, on threads, in processes - and measures which of the three it needs.

pub mod api;
pub mod app;
pub mod artifact;
pub mod auth;
pub mod cli;
pub mod clock;
pub mod command;
pub mod comparison;
pub mod config;
pub mod dispatch;
pub mod executor;
pub mod function;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod job;
pub mod measure;
pub mod outbound;
pub mod profile;
pub mod sandbox;
pub mod schedule;
pub mod server;
pub mod shutdown;
pub mod store;
pub mod telemetry;
pub mod webhook;
pub mod workload;
