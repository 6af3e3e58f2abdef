//! Trine runs work three ways - on an event loop, on threads, in processes - and measures which of the three it needs.
//!
//! The path of a job goes through `api`, `dispatch`, `executor`, `workload` and `store`; `ARCHITECTURE.md` describes it.

// The domain.
pub mod clock;
pub mod job;

// The path of a job, from a request to its result.
pub mod api;
pub mod dispatch;
pub mod executor;
pub mod store;
pub mod workload;

// What is learned on the way.
pub mod comparison;
pub mod measure;
pub mod profile;

// What users and operators bring.
pub mod artifact;
pub mod command;
pub mod function;
pub mod schedule;
pub mod webhook;

// The edges to the world outside.
pub mod auth;
pub mod outbound;
pub mod own;
pub mod sandbox;
pub mod server;

// The program.
pub mod app;
pub mod cli;
pub mod config;
pub mod shutdown;
pub mod telemetry;

#[cfg(any(test, fuzzing))]
pub mod fuzz;
