//! Which executor runs a job: a pure function of what the client said, what the workload is, and what was measured of it.

use crate::executor::{Capabilities, capabilities};
use crate::job::{Bound, Choice, Evidence, Executor, Form, Observed, Route, Routing, Rule, Runtime, Written};
use crate::profile::Digest;

/// One job in so many is tried on the event loop, while it is not known how its workload behaves there, or to see whether it still holds
/// it; and where such work has failed.
const TRIAL: u64 = 50;
/// So many runs on the event loop show how a workload behaves there.
const PROVEN: u64 = 8;
/// What takes longer is not tried on the event loop: so long would it be held if it were not given back.
const LONGEST_TRIAL_US: u64 = 250_000;

/// Of work that is not known, and whose runs don't tell what it does beside others under a global lock, one job in so many is tried apart
/// from them.
const TRIAL_APART: u64 = 10;
/// What takes longer is tried apart no more often than known work; and what takes longer than the second not at all, since there are few
/// processes.
const LONGEST_APART_US: (u64, u64) = (1_000_000, 10_000_000);

/// What a decision rests on.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// The client's tag.
    pub bound: Bound,
    /// The executor that the client insists on, if any.
    pub choice: Choice,
    /// Whether the client wants the job to be isolated.
    pub isolated: bool,
    /// How the workload is written.
    pub written: Written,
}

/// The executor that the client insists on, or that its tag says, can't do what it asks for as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unable {
    /// It wants isolation.
    #[error("{0} can't isolate a job; `GET /executors` says what each executor can do")]
    Isolate(Executor),
    /// It wants a program to be run.
    #[error("{0} can't run a command, which is a program and needs a process of its own")]
    Command(Executor),
    /// It wants a function to be called that has limits.
    #[error("{0} can't keep a call of this function within its limits")]
    Limits(Executor),
}

impl Unable {
    /// The field at fault, as a JSON Pointer.
    pub const fn pointer(self) -> &'static str {
        match self {
            Self::Isolate(_) => "/isolated",
            Self::Command(_) | Self::Limits(_) => "/executor",
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
    let Written { runtime, form, gil, needs_a_process } = facts.written;
    let is_command = matches!(runtime, Runtime::Command);
    let (executor, rule) = match (facts.choice.insisted(), facts.bound, form) {
        (Some(executor), ..) if facts.isolated && !capabilities(executor).isolation => return Err(Unable::Isolate(executor)),
        (Some(executor @ (Executor::Async | Executor::Threads)), ..) if is_command => return Err(Unable::Command(executor)),
        (Some(executor), ..) => (executor, Rule::Insisted),
        (None, ..) if facts.isolated => (Executor::Processes, Rule::Isolated),
        (None, ..) if is_command => (Executor::Processes, Rule::Command),
        (None, Bound::Io, Form::Async) => (Executor::Async, Rule::IoAsync),
        (None, Bound::Io, Form::Blocking) => (Executor::Threads, Rule::IoBlocking),
        (None, Bound::Cpu, _) if gil => (Executor::Processes, Rule::CpuProcesses),
        (None, Bound::Cpu, _) => (Executor::Threads, Rule::CpuThreads),
    };
    if needs_a_process && !matches!(executor, Executor::Processes) {
        return Err(Unable::Limits(executor));
    }
    Ok(Route { executor, queue: executor.queue(runtime, facts.bound), rule, evidence: None })
}

/// The route, where what was measured of earlier runs has a say.
///
/// Nothing moves a job whose executor the client insists on, that has to be isolated, that is a program, or that calls a function whose
/// limits need a process. Without enough evidence the tag decides. Otherwise the demand for a core does, never the wall time alone, which
/// can't tell computing from waiting. Only what is known to give the event loop back comes there without its tag's word for it, and what is
/// known to hold it does not in any case: to threads and processes, whose numbers are bounded, anything may go. But now and then one is
/// tried there all the same, if that takes little.
pub fn choose(facts: Facts, routing: Routing, digest: Option<&Digest>) -> Result<Route, Unable> {
    let declared = route(facts)?;
    let fixed = matches!(declared.rule, Rule::Insisted | Rule::Isolated | Rule::Command) || facts.written.needs_a_process;
    let Some(digest) = digest.filter(|_| routing != Routing::Declared && !fixed) else { return Ok(declared) };
    let evidence = |executor, failing| {
        Some(Evidence {
            runs: digest.runs,
            observed: digest.observed,
            cpu_percent: percent(digest.demand),
            wall_us: digest.wall_us,
            held_us: digest.on_loop.holds.then_some(digest.on_loop.longest_us),
            executor,
            failing,
        })
    };
    let Some((executor, bound, rule)) = measured(facts, declared.executor, digest) else {
        // It does some of both: whoever has it routed by measurement is told why that has nothing to say.
        let is_known = routing == Routing::Measured && digest.observed.is_some();
        return Ok(if is_known { Route { evidence: evidence(declared.executor, false), ..declared } } else { declared });
    };
    let queue = executor.queue(facts.written.runtime, bound);
    // What fails there, but not where the tag sends it, stays with its tag - but for a few, or it would never be known that it fails no more.
    let fails = |executor: Executor| digest.failing[executor as usize];
    let stays = fails(executor) && !fails(declared.executor) && !is_trial(digest);
    let evidence = evidence(executor, stays);
    Ok(match routing {
        Routing::Measured if !stays => Route { executor, queue, rule, evidence },
        // Where measurement says the same as the tag, nothing need be said.
        _ if queue == declared.queue || rule == Rule::Trial => declared,
        _ => Route { evidence, ..declared },
    })
}

/// What measurement chooses: an executor, what the work is for it, and by which rule. `None` if it has nothing to say.
fn measured(facts: Facts, declared: Executor, digest: &Digest) -> Option<(Executor, Bound, Rule)> {
    let Written { form, gil, .. } = facts.written;
    let holds = digest.on_loop.holds;
    let is_trial = is_trial(digest);
    // What held it may have been there once: it would never be known if none came there any more.
    let again = holds && is_trial && digest.wall_us.min(digest.on_loop.longest_us) <= LONGEST_TRIAL_US;
    let apart = digest.untold_us.filter(|us| gil && *us <= LONGEST_APART_US.1).is_some_and(|us| {
        let every = if digest.observed.is_none() && us <= LONGEST_APART_US.0 { TRIAL_APART } else { TRIAL };
        // Not in the turn of the other trials.
        digest.turn % every == every / 2
    });
    Some(match digest.observed {
        Some(Observed::Cpu) if gil => (Executor::Processes, Bound::Cpu, Rule::MeasuredCpu),
        Some(Observed::Cpu) => (Executor::Threads, Bound::Cpu, Rule::MeasuredCpu),
        _ if apart => (Executor::Processes, Bound::Cpu, Rule::Trial),
        _ if again && declared == Executor::Async => (Executor::Async, Bound::Io, Rule::Trial),
        _ if holds && declared == Executor::Async => (Executor::Threads, Bound::Io, Rule::MeasuredHold),
        Some(Observed::Io) if form == Form::Blocking || holds => (Executor::Threads, Bound::Io, Rule::MeasuredIo),
        Some(Observed::Io) if declared == Executor::Async || digest.on_loop.runs >= PROVEN => {
            (Executor::Async, Bound::Io, Rule::MeasuredIo)
        }
        Some(Observed::Io) if is_trial && digest.wall_us <= LONGEST_TRIAL_US => (Executor::Async, Bound::Io, Rule::Trial),
        Some(Observed::Io) => (Executor::Threads, Bound::Io, Rule::MeasuredIo),
        // It does some of both, or now the one and now the other: the client knows better.
        Some(Observed::Mixed) | None => return None,
    })
}

/// Whether it is the turn of one that is tried where others are not sent.
const fn is_trial(digest: &Digest) -> bool {
    digest.turn % TRIAL == TRIAL - 1
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is between 0 and 255")]
fn percent(share: f64) -> u8 {
    (share * 100.0).round().clamp(0.0, 255.0) as u8
}

/// Every executor, with what speaks for or against running a job on it that is tagged and written so: what its tag says of it, or what was
/// measured of it if that chose the route.
pub fn considered(bound: Bound, route: &Route, Written { runtime, form, gil, .. }: Written) -> [Considered; 3] {
    let bound = match route.rule {
        Rule::MeasuredCpu => Bound::Cpu,
        // It may compute: its process shows that apart from others.
        Rule::Trial if route.executor == Executor::Processes => Bound::Cpu,
        Rule::MeasuredIo | Rule::MeasuredHold | Rule::Trial => Bound::Io,
        _ => bound,
    };
    let by_measurement = matches!(route.rule, Rule::MeasuredIo | Rule::MeasuredHold | Rule::Trial);
    let holds = by_measurement && route.evidence.is_some_and(|evidence| evidence.held_us.is_some());
    let unproven = route.rule == Rule::MeasuredIo && route.executor != Executor::Async;
    Executor::ALL.map(|executor| Considered {
        executor,
        capabilities: capabilities(executor),
        because: match (executor, bound, form) {
            (Executor::Async | Executor::Threads, ..) if runtime == Runtime::Command => "runs no programs",
            (Executor::Processes, ..) if runtime == Runtime::Command => "gives a program a process of its own, in the sandbox",
            (Executor::Async, Bound::Io, _) if holds => "it has held the event loop, and every other job on it",
            (Executor::Async, Bound::Io, Form::Async) if unproven => {
                "one thread holds thousands of such waits, but too few runs have shown that it gives the event loop back"
            }
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
    use crate::profile::LoopRecord;
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
        let facts = Facts { choice, ..native(bound, form) };
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
        let facts = facts(Runtime::Python, bound, form, gil);
        assert_eq!(route(facts).map(|route| (route.queue, route.rule)), Ok((queue, rule)));
    }

    #[rstest]
    #[case(Choice::Auto, Ok((Executor::Processes, Rule::Isolated)))]
    #[case(Choice::Processes, Ok((Executor::Processes, Rule::Insisted)))]
    #[case(Choice::Threads, Err(Unable::Isolate(Executor::Threads)))]
    #[case(Choice::Async, Err(Unable::Isolate(Executor::Async)))]
    fn isolation_is_given_by_processes_or_refused(#[case] choice: Choice, #[case] expected: Result<(Executor, Rule), Unable>) {
        let facts = Facts { choice, isolated: true, ..native(Bound::Io, Form::Async) };
        assert_eq!(route(facts).map(|route| (route.executor, route.rule)), expected);
    }

    const CPU: Option<Observed> = Some(Observed::Cpu);
    const IO: Option<Observed> = Some(Observed::Io);
    const MIXED: Option<Observed> = Some(Observed::Mixed);

    fn digest(observed: Option<Observed>, loop_runs: u64, holds: bool, turn: u64) -> Digest {
        let on_loop = LoopRecord { runs: loop_runs, holds, longest_us: 412_000 };
        Digest { runs: 120, observed, demand: 0.97, wall_us: 23_000, on_loop, turn, ..Digest::default() }
    }

    fn native(bound: Bound, form: Form) -> Facts {
        facts(Runtime::Native, bound, form, false)
    }

    fn facts(runtime: Runtime, bound: Bound, form: Form, gil: bool) -> Facts {
        Facts { bound, choice: Choice::Auto, isolated: false, written: Written { runtime, form, gil, needs_a_process: false } }
    }

    #[rstest]
    #[case::computes(Bound::Io, Form::Async, digest(CPU, 0, false, 0), Queue::ThreadsCpu, Rule::MeasuredCpu)]
    #[case::computes_and_holds(Bound::Io, Form::Async, digest(CPU, 50, true, 0), Queue::ThreadsCpu, Rule::MeasuredCpu)]
    #[case::computes_in_the_wrong_pool(Bound::Io, Form::Blocking, digest(CPU, 0, false, 0), Queue::ThreadsCpu, Rule::MeasuredCpu)]
    #[case::waits_in_the_wrong_pool(Bound::Cpu, Form::Blocking, digest(IO, 0, false, 0), Queue::ThreadsIo, Rule::MeasuredIo)]
    #[case::waits_unproven(Bound::Cpu, Form::Async, digest(IO, 7, false, 48), Queue::ThreadsIo, Rule::MeasuredIo)]
    #[case::waits_tried(Bound::Cpu, Form::Async, digest(IO, 7, false, 49), Queue::Async, Rule::Trial)]
    #[case::waits_proven(Bound::Cpu, Form::Async, digest(IO, 8, false, 1), Queue::Async, Rule::MeasuredIo)]
    #[case::holds_never_tried(Bound::Cpu, Form::Async, digest(IO, 1, true, 49), Queue::ThreadsIo, Rule::MeasuredIo)]
    #[case::blocking_never_tried(Bound::Cpu, Form::Blocking, digest(IO, 0, false, 49), Queue::ThreadsIo, Rule::MeasuredIo)]
    #[case::holds_while_it_waits(Bound::Io, Form::Async, digest(IO, 50, true, 0), Queue::ThreadsIo, Rule::MeasuredHold)]
    #[case::holds_and_tried_again(Bound::Io, Form::Async, digest(IO, 50, true, 49), Queue::Async, Rule::Trial)]
    #[case::holds_now_and_then(Bound::Io, Form::Async, digest(MIXED, 50, true, 0), Queue::ThreadsIo, Rule::MeasuredHold)]
    #[case::as_tagged(Bound::Io, Form::Async, digest(IO, 50, false, 0), Queue::Async, Rule::MeasuredIo)]
    #[case::both(Bound::Cpu, Form::Blocking, digest(MIXED, 0, false, 0), Queue::ThreadsCpu, Rule::CpuThreads)]
    #[case::new(Bound::Io, Form::Async, digest(None, 0, false, 49), Queue::Async, Rule::IoAsync)]
    fn measured_routing_goes_by_what_runs_did(
        #[case] bound: Bound,
        #[case] form: Form,
        #[case] digest: Digest,
        #[case] queue: Queue,
        #[case] rule: Rule,
    ) {
        let (facts, declared) = (native(bound, form), route(native(bound, form)).unwrap());
        let chosen = choose(facts, Routing::Measured, Some(&digest)).unwrap();
        assert_eq!((chosen.queue, chosen.rule), (queue, rule));
        // Advice follows the tag, and says so where measurement would not.
        let advised = choose(facts, Routing::Advise, Some(&digest)).unwrap();
        assert_eq!(Route { evidence: None, ..advised }, declared);
        let other = queue != declared.queue && rule != Rule::Trial;
        assert_eq!(advised.evidence.map(|evidence| evidence.executor), other.then_some(queue.executor()));
        assert_eq!(choose(facts, Routing::Declared, Some(&digest)), Ok(declared));
        assert_eq!(choose(facts, Routing::Measured, None), Ok(declared));
    }

    #[test]
    fn computing_under_a_global_lock_goes_to_processes() {
        let facts = facts(Runtime::Python, Bound::Io, Form::Async, true);
        let chosen = choose(facts, Routing::Measured, Some(&digest(CPU, 0, true, 0))).unwrap();
        assert_eq!((chosen.queue, chosen.rule), (Queue::PythonProcesses, Rule::MeasuredCpu));
        let reason = "measured to compute: 120 runs of 23 ms used 97 % of a core whenever there was one, and held the event loop for up to 412 ms";
        assert_eq!(chosen.reason(), reason);
    }

    #[test]
    fn what_few_runs_were_is_not_made_up() {
        let holds = digest(None, 3, true, 0);
        for routing in [Routing::Measured, Routing::Advise] {
            let route = choose(native(Bound::Io, Form::Async), routing, Some(&holds)).unwrap();
            assert_eq!(route.evidence.map(|evidence| (evidence.runs, evidence.observed)), Some((120, None)));
            assert!(route.reason().contains("to hold the event loop"), "{}", route.reason());
        }
    }

    #[test]
    fn advice_has_the_numbers() {
        let advised = choose(native(Bound::Cpu, Form::Blocking), Routing::Advise, Some(&digest(IO, 0, false, 0))).unwrap();
        let (tag, advice) = (
            Rule::CpuThreads.reason(),
            "but it was measured to wait (120 runs of 23 ms used 97 % of a core whenever there was one), and measured routing would choose threads",
        );
        assert_eq!(advised.reason(), format!("{tag}; {advice}"));
    }

    #[rstest]
    #[case::computes(Bound::Io, Form::Blocking, digest(CPU, 0, false, 0), "io_blocking", "threads compute on all cores")]
    #[case::waits(Bound::Cpu, Form::Blocking, digest(IO, 0, false, 0), "cpu_threads", "threads wait side by side")]
    #[case::holds(Bound::Io, Form::Async, digest(IO, 50, true, 0), "io_async", "it has held the event loop")]
    #[case::unproven(Bound::Cpu, Form::Async, digest(IO, 7, false, 0), "cpu_threads", "too few runs have shown")]
    fn what_was_measured_speaks_for_the_route_that_it_chose(
        #[case] bound: Bound,
        #[case] form: Form,
        #[case] digest: Digest,
        #[case] declared: &str,
        #[case] says: &str,
    ) {
        let facts = native(bound, form);
        let said = |routing| {
            let route = choose(facts, routing, Some(&digest)).unwrap();
            let says = considered(bound, &route, facts.written).iter().any(|considered| considered.because.contains(says));
            (route.rule.as_str(), says)
        };
        assert!(matches!(said(Routing::Measured), (rule, true) if rule.starts_with("measured_")));
        // Where the tag decides, it is what speaks.
        assert_eq!(said(Routing::Advise), (declared, false));
    }

    #[test]
    fn what_is_fixed_is_never_moved() {
        let io = native(Bound::Cpu, Form::Async);
        let limited = facts(Runtime::Python, Bound::Cpu, Form::Blocking, true);
        let digest = digest(IO, 50, false, 49);
        for facts in [
            Facts { isolated: true, ..io },
            Facts { choice: Choice::Processes, ..io },
            facts(Runtime::Command, Bound::Cpu, Form::Blocking, false),
            Facts { written: Written { needs_a_process: true, ..limited.written }, ..limited },
            Facts { choice: Choice::Processes, isolated: true, ..io },
        ] {
            assert_eq!(choose(facts, Routing::Measured, Some(&digest)), route(facts));
        }
    }

    #[test]
    fn what_fails_where_it_is_sent_stays_with_its_tag() {
        let facts = facts(Runtime::Python, Bound::Io, Form::Async, true);
        let failing = |failing| Digest { failing, ..digest(CPU, 50, false, 0) };
        let queue = |digest| choose(facts, Routing::Measured, Some(&digest)).unwrap().queue;
        assert_eq!(queue(failing([false, false, true])), Queue::PythonAsync);
        assert_eq!(queue(failing([true, false, true])), Queue::PythonProcesses);
        let reason = |routing| {
            let route = choose(facts, routing, Some(&failing([false, false, true]))).unwrap();
            (route.rule, route.evidence.map(|evidence| (evidence.executor, evidence.failing)), route.reason().into_owned())
        };
        let (rule, evidence, said) = reason(Routing::Measured);
        assert_eq!((rule, evidence), (Rule::IoAsync, Some((Executor::Processes, true))));
        assert!(
            said.contains("; it was measured to compute (") && said.ends_with("most of its latest runs on processes failed"),
            "{said}"
        );
        assert_eq!(reason(Routing::Advise), (rule, evidence, said));
        // It may have been the executor's fault, which has passed.
        let tried = Digest { turn: TRIAL - 1, ..failing([false, false, true]) };
        assert_eq!(queue(tried), Queue::PythonProcesses);
    }

    #[rstest]
    #[case::not_known(None, 5, Some(Queue::PythonProcesses))]
    #[case::not_its_turn(None, 6, None)]
    #[case::known_to_wait(IO, 25, Some(Queue::PythonProcesses))]
    #[case::known_to_wait_not_its_turn(IO, 5, Some(Queue::PythonThreads))]
    #[case::known_to_compute(CPU, 6, Some(Queue::PythonProcesses))]
    fn what_does_not_tell_beside_others_is_tried_apart(
        #[case] observed: Option<Observed>,
        #[case] turn: u64,
        #[case] queue: Option<Queue>,
    ) {
        let facts = facts(Runtime::Python, Bound::Io, Form::Blocking, true);
        let digest = Digest { untold_us: Some(400_000), ..digest(observed, 0, false, turn) };
        let chosen = |digest| choose(facts, Routing::Measured, Some(&digest)).unwrap();
        let route = chosen(digest);
        assert_eq!(route.evidence.map(|_| route.queue), queue);
        let tried = route.rule == Rule::Trial;
        assert_eq!(tried, route.reason().starts_with("tried in a process now and then"));
        let of_processes = considered(facts.bound, &route, facts.written)[Executor::Processes as usize].because;
        assert!(!tried || of_processes.starts_with("computes on all cores"), "{of_processes}");
        // What takes long would keep one of few processes busy, and where it is told there is nothing to try.
        let (slow, slowest) = (LONGEST_APART_US.0 + 1, LONGEST_APART_US.1 + 1);
        for (untold_us, turn, tried) in
            [(Some(slow), 25, observed != CPU), (Some(slow), 5, false), (Some(slowest), 25, false), (None, 25, false)]
        {
            assert_eq!(chosen(Digest { untold_us, turn, ..digest }).rule == Rule::Trial, tried);
        }
    }

    #[test]
    fn what_does_some_of_both_says_why_its_tag_decides() {
        let chosen = |routing| choose(native(Bound::Cpu, Form::Blocking), routing, Some(&digest(MIXED, 0, false, 0))).unwrap();
        let said = chosen(Routing::Measured).reason().into_owned();
        assert!(
            said.contains("; it was measured to do both (120 runs of 23 ms") && said.ends_with("so its tag decides"),
            "{said}"
        );
        assert_eq!(chosen(Routing::Advise).evidence, None);
    }

    #[test]
    fn what_takes_long_is_not_tried() {
        let facts = native(Bound::Cpu, Form::Async);
        let long = Digest { wall_us: LONGEST_TRIAL_US + 1, ..digest(IO, 0, false, 49) };
        assert_eq!(choose(facts, Routing::Measured, Some(&long)).unwrap().queue, Queue::ThreadsIo);
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
        let facts = Facts { choice, isolated, ..facts(Runtime::Command, Bound::Cpu, Form::Blocking, false) };
        let expected = expected.map(|rule| (Queue::Commands, rule));
        assert_eq!(route(facts).map(|route| (route.queue, route.rule)), expected);
    }

    #[rstest]
    #[case(Bound::Cpu, Choice::Auto, false, Ok(Rule::CpuProcesses))]
    #[case(Bound::Io, Choice::Auto, true, Ok(Rule::Isolated))]
    #[case(Bound::Io, Choice::Processes, false, Ok(Rule::Insisted))]
    #[case(Bound::Io, Choice::Auto, false, Err(Unable::Limits(Executor::Threads)))]
    #[case(Bound::Cpu, Choice::Async, false, Err(Unable::Limits(Executor::Async)))]
    #[case(Bound::Cpu, Choice::Async, true, Err(Unable::Isolate(Executor::Async)))]
    fn a_function_with_limits_is_called_in_a_process_or_not_at_all(
        #[case] bound: Bound,
        #[case] choice: Choice,
        #[case] isolated: bool,
        #[case] expected: Result<Rule, Unable>,
    ) {
        let of_function = facts(Runtime::Python, bound, Form::Blocking, true);
        let facts = Facts { choice, isolated, written: Written { needs_a_process: true, ..of_function.written }, ..of_function };
        let expected = expected.map(|rule| (Queue::PythonProcesses, rule));
        assert_eq!(route(facts).map(|route| (route.queue, route.rule)), expected);
    }
}
