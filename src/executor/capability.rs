//! What each executor can and can't do, as data: published at `GET /executors`, checked at submission.

use serde::Serialize;

use crate::job::{Executor, Runtime};

/// How far an executor can do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Ability {
    /// At any moment.
    Always,
    /// At the next point where the work gives its thread back.
    AtNextAwait,
    /// Only if the work asks whether it should stop, as Trine's own do.
    Cooperatively,
}

/// What an executor can do with a job.
#[expect(clippy::struct_excessive_bools, reason = "a table of yes and no, published as it is")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Capabilities {
    /// Stop a running job at a client's wish.
    pub cancel: Ability,
    /// Stop it when its deadline has passed.
    pub deadline: Ability,
    /// Limit its memory: that of jobs in these runtimes. A process of Trine's own work has no limit; Python shares one host on the other
    /// executors, which has a limit for all of its jobs together.
    pub memory_limit: &'static [Runtime],
    /// Keep the server and other jobs safe from its crash.
    pub isolation: bool,
    /// Measure its CPU time.
    pub cpu_time: bool,
    /// Measure its peak memory.
    pub memory: bool,
    /// Measure how long it held the event loop.
    pub longest_poll: bool,
}

/// What this executor can do.
pub const fn capabilities(executor: Executor) -> Capabilities {
    match executor {
        Executor::Async => Capabilities {
            cancel: Ability::AtNextAwait,
            deadline: Ability::AtNextAwait,
            memory_limit: &[],
            isolation: false,
            cpu_time: true,
            memory: false,
            longest_poll: true,
        },
        Executor::Threads => Capabilities {
            cancel: Ability::Cooperatively,
            deadline: Ability::Cooperatively,
            memory_limit: &[],
            isolation: false,
            cpu_time: true,
            memory: false,
            longest_poll: false,
        },
        Executor::Processes => Capabilities {
            cancel: Ability::Always,
            deadline: Ability::Always,
            memory_limit: &[Runtime::Python, Runtime::Command],
            isolation: true,
            cpu_time: true,
            memory: true,
            longest_poll: false,
        },
    }
}
