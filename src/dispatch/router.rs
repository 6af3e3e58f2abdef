//! Which executor runs a job: a pure function of what the client said and what the workload is.

use crate::executor::{Capabilities, capabilities};
use crate::job::{Bound, Choice, Executor, Form, Route, Rule, Runtime};

/// What a decision rests on.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// The client's tag.
    pub bound: Bound,
    /// The executor that the client insists on, if any.
    pub choice: Choice,
    /// Whether the client wants the job to be isolated.
    pub isolated: bool,
    /// What the workload is written in.
    pub runtime: Runtime,
    /// How the workload is written.
    pub form: Form,
    /// Whether a global lock lets one of its threads compute at a time.
    pub gil: bool,
}

/// The client insists on an executor that can't do what it asks for as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unable {
    /// It wants isolation.
    #[error("{0} can't isolate a job; `GET /executors` says what each executor can do")]
    Isolate(Executor),
    /// It wants a program to be run.
    #[error("{0} can't run a command, which is a program and needs a process of its own")]
    Command(Executor),
}

impl Unable {
    /// The field at fault, as a JSON Pointer.
    pub const fn pointer(self) -> &'static str {
        match self {
            Self::Isolate(_) => "/isolated",
            Self::Command(_) => "/executor",
        }
    }
}

/// An executor that was looked at, and what spoke for or against it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Considered {
    /// Which.
    pub executor: Executor,
    /// What speaks for or against it.
    pub because: &'static str,
    /// What it can do.
    pub capabilities: Capabilities,
}

/// The route, by the first rule that applies.
///
/// The rules are those of the guide: waits belong on an event loop if they are written for one and on threads otherwise;
/// computing belongs on threads where no global lock keeps them from running at once.
pub const fn route(facts: Facts) -> Result<Route, Unable> {
    let is_command = matches!(facts.runtime, Runtime::Command);
    let (executor, rule) = match (facts.choice.insisted(), facts.bound, facts.form) {
        (Some(executor), ..) if facts.isolated && !capabilities(executor).isolation => return Err(Unable::Isolate(executor)),
        (Some(executor @ (Executor::Async | Executor::Threads)), ..) if is_command => return Err(Unable::Command(executor)),
        (Some(executor), ..) => (executor, Rule::Insisted),
        (None, ..) if facts.isolated => (Executor::Processes, Rule::Isolated),
        (None, ..) if is_command => (Executor::Processes, Rule::Command),
        (None, Bound::Io, Form::Async) => (Executor::Async, Rule::IoAsync),
        (None, Bound::Io, Form::Blocking) => (Executor::Threads, Rule::IoBlocking),
        (None, Bound::Cpu, _) if facts.gil => (Executor::Processes, Rule::CpuProcesses),
        (None, Bound::Cpu, _) => (Executor::Threads, Rule::CpuThreads),
    };
    Ok(Route { executor, queue: executor.queue(facts.runtime, facts.bound), rule })
}

/// Every executor, with what speaks for or against running such a job on it.
pub fn considered(bound: Bound, runtime: Runtime, form: Form, gil: bool) -> [Considered; 3] {
    Executor::ALL.map(|executor| Considered {
        executor,
        capabilities: capabilities(executor),
        because: match (executor, bound, form) {
            (Executor::Async | Executor::Threads, ..) if runtime == Runtime::Command => "runs no programs",
            (Executor::Processes, ..) if runtime == Runtime::Command => "gives a program a process of its own, in the sandbox",
            (Executor::Async, Bound::Io, Form::Async) => "one thread holds thousands of such waits",
            (Executor::Async, Bound::Io, Form::Blocking) => {
                "a blocking wait would hold the event loop, and every other job on it"
            }
            (Executor::Async, Bound::Cpu, _) => "computing would hold the event loop, and every other job on it",
            (Executor::Threads, Bound::Io, Form::Async) => "works, at the price of a thread for each wait",
            (Executor::Threads, Bound::Io, Form::Blocking) => "threads wait side by side",
            (Executor::Threads, Bound::Cpu, _) if gil => "the interpreter's global lock lets one thread compute at a time",
            (Executor::Threads, Bound::Cpu, _) => "threads compute on all cores at once, with the smallest hand-over",
            (Executor::Processes, Bound::Io, _) => "works, but a whole process waits for each job",
            (Executor::Processes, Bound::Cpu, _) => {
                "computes on all cores and can be killed and limited, but pays for serialising and the process hop"
            }
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Queue;
    use rstest::rstest;

    #[rstest]
    #[case(Bound::Io, Choice::Auto, Form::Async, Executor::Async, Rule::IoAsync)]
    #[case(Bound::Io, Choice::Auto, Form::Blocking, Executor::Threads, Rule::IoBlocking)]
    #[case(Bound::Cpu, Choice::Auto, Form::Async, Executor::Threads, Rule::CpuThreads)]
    #[case(Bound::Cpu, Choice::Auto, Form::Blocking, Executor::Threads, Rule::CpuThreads)]
    #[case(Bound::Cpu, Choice::Async, Form::Blocking, Executor::Async, Rule::Insisted)]
    #[case(Bound::Io, Choice::Threads, Form::Async, Executor::Threads, Rule::Insisted)]
    #[case(Bound::Io, Choice::Processes, Form::Async, Executor::Processes, Rule::Insisted)]
    fn the_first_rule_that_applies_decides(
        #[case] bound: Bound,
        #[case] choice: Choice,
        #[case] form: Form,
        #[case] executor: Executor,
        #[case] rule: Rule,
    ) {
        let facts = Facts { bound, choice, isolated: false, runtime: Runtime::Native, form, gil: false };
        let route = route(facts).unwrap();
        assert_eq!((route.executor, route.rule, route.queue), (executor, rule, executor.queue(Runtime::Native, bound)));
    }

    #[rstest]
    #[case(Bound::Io, Form::Async, true, Queue::PythonAsync, Rule::IoAsync)]
    #[case(Bound::Io, Form::Blocking, true, Queue::PythonThreads, Rule::IoBlocking)]
    #[case(Bound::Cpu, Form::Blocking, true, Queue::PythonProcesses, Rule::CpuProcesses)]
    #[case(Bound::Cpu, Form::Async, false, Queue::PythonThreads, Rule::CpuThreads)]
    fn a_global_lock_sends_computing_to_processes(
        #[case] bound: Bound,
        #[case] form: Form,
        #[case] gil: bool,
        #[case] queue: Queue,
        #[case] rule: Rule,
    ) {
        let facts = Facts { bound, choice: Choice::Auto, isolated: false, runtime: Runtime::Python, form, gil };
        assert_eq!(route(facts).map(|route| (route.queue, route.rule)), Ok((queue, rule)));
    }

    #[rstest]
    #[case(Choice::Auto, Ok((Executor::Processes, Rule::Isolated)))]
    #[case(Choice::Processes, Ok((Executor::Processes, Rule::Insisted)))]
    #[case(Choice::Threads, Err(Unable::Isolate(Executor::Threads)))]
    #[case(Choice::Async, Err(Unable::Isolate(Executor::Async)))]
    fn isolation_is_given_by_processes_or_refused(#[case] choice: Choice, #[case] expected: Result<(Executor, Rule), Unable>) {
        let facts = Facts { bound: Bound::Io, choice, isolated: true, runtime: Runtime::Native, form: Form::Async, gil: false };
        assert_eq!(route(facts).map(|route| (route.executor, route.rule)), expected);
    }

    #[rstest]
    #[case(Choice::Auto, false, Ok(Rule::Command))]
    #[case(Choice::Auto, true, Ok(Rule::Isolated))]
    #[case(Choice::Processes, false, Ok(Rule::Insisted))]
    #[case(Choice::Threads, false, Err(Unable::Command(Executor::Threads)))]
    #[case(Choice::Async, false, Err(Unable::Command(Executor::Async)))]
    #[case(Choice::Async, true, Err(Unable::Isolate(Executor::Async)))]
    fn a_command_runs_in_a_process_or_not_at_all(
        #[case] choice: Choice,
        #[case] isolated: bool,
        #[case] expected: Result<Rule, Unable>,
    ) {
        let facts = Facts { bound: Bound::Cpu, choice, isolated, runtime: Runtime::Command, form: Form::Blocking, gil: false };
        let expected = expected.map(|rule| (Queue::Commands, rule));
        assert_eq!(route(facts).map(|route| (route.queue, route.rule)), expected);
    }
}
