//! Work whose cost is known, or that misbehaves on purpose.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use trine::job::{Bound, Failure, Form};
use trine::measure::Usage;
use trine::workload::{Context, Environment, Registry, Work, Workload};

/// Trine's own workloads and those of this file.
pub(crate) fn registry(environment: Environment) -> Registry {
    Registry::native(environment)
        .register::<Spin>()
        .register::<Hold>()
        .register::<Nap>()
        .register::<Panics>()
        .register::<Deaf>()
        .register::<Dies>()
        .register::<Pid>()
        .register::<Says>()
        .register::<SaysAsync>()
}

/// Computes until its thread has used this much CPU time.
#[derive(Deserialize, utoipa::ToSchema)]
pub(crate) struct Spin {
    cpu_ms: u64,
}

fn spin(cpu: Duration) {
    let used = || {
        let usage = Usage::of_thread();
        Duration::from_micros(usage.cpu_user_us + usage.cpu_system_us)
    };
    let until = used() + cpu;
    while used() < until {
        std::hint::black_box((0..1_000_u64).sum::<u64>());
    }
}

/// A future that waits, then holds whoever polls it, then waits again.
#[derive(Deserialize, utoipa::ToSchema)]
pub(crate) struct Hold {
    hold_ms: u64,
}

/// Blocks its thread without computing.
#[derive(Deserialize, utoipa::ToSchema)]
pub(crate) struct Nap {
    ms: u64,
}

/// Panics with this message.
#[derive(Deserialize, utoipa::ToSchema)]
pub(crate) struct Panics {
    message: String,
}

/// Blocks until a file is there, whatever it is told. Says that it began by making another.
#[derive(Deserialize, utoipa::ToSchema)]
pub(crate) struct Deaf {
    until: String,
    began: String,
}

/// Takes its process down.
#[derive(Deserialize, utoipa::ToSchema)]
pub(crate) struct Dies {
    how: String,
}

/// Says which process it runs in.
#[derive(Deserialize, utoipa::ToSchema)]
pub(crate) struct Pid {}

/// Writes so many lines, each followed by a progress.
#[derive(Deserialize, utoipa::ToSchema)]
pub(crate) struct Says {
    lines: u32,
}

/// The same as a future.
#[derive(Deserialize, utoipa::ToSchema)]
pub(crate) struct SaysAsync {
    lines: u32,
}

fn say(context: &Context, lines: u32) {
    for n in 0..lines {
        context.log(format!("line {n}"));
        context.progress(&n);
    }
}

macro_rules! workload {
    ($type:ty, $name:literal, $form:ident, |$this:ident| $work:expr) => {
        workload!($type, $name, $form, |$this, _context| $work);
    };
    ($type:ty, $name:literal, $form:ident, |$this:ident, $context:ident| $work:expr) => {
        impl Workload for $type {
            const TYPE: &'static str = $name;
            const ABOUT: &'static str = "for tests";
            const BOUND: Bound = Bound::Cpu;
            const FORM: Form = Form::$form;

            fn example() -> Value {
                json!({})
            }

            fn work(self, $context: Context) -> Work {
                let $this = self;
                $work
            }
        }
    };
}

workload!(Spin, "spin", Blocking, |this| Work::blocking(move || {
    spin(Duration::from_millis(this.cpu_ms));
    Ok(this.cpu_ms)
}));

workload!(Hold, "hold", Async, |this| Work::future(async move {
    tokio::time::sleep(Duration::from_millis(20)).await;
    std::thread::sleep(Duration::from_millis(this.hold_ms));
    tokio::time::sleep(Duration::from_millis(20)).await;
    Ok(this.hold_ms)
}));

workload!(Nap, "nap", Blocking, |this| Work::blocking(move || {
    std::thread::sleep(Duration::from_millis(this.ms));
    Ok(this.ms)
}));

workload!(Panics, "panics", Blocking, |this| Work::blocking(move || -> Result<(), Failure> { panic!("{}", this.message) }));

workload!(Deaf, "deaf", Blocking, |this| Work::blocking(move || {
    std::fs::write(&this.began, "").unwrap();
    while !std::path::Path::new(&this.until).exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}));

workload!(Dies, "dies", Blocking, |this| Work::blocking(move || -> Result<(), Failure> {
    match this.how.as_str() {
        "exit" => std::process::exit(7),
        "abort" => std::process::abort(),
        other => panic!("no way to die: {other}"),
    }
}));

workload!(Pid, "pid", Blocking, |_this| Work::blocking(|| Ok(std::process::id())));

workload!(Says, "says", Blocking, |this, context| Work::blocking(move || {
    say(&context, this.lines);
    Ok(())
}));

workload!(SaysAsync, "says_async", Async, |this, context| Work::future(async move {
    say(&context, this.lines);
    tokio::task::yield_now().await;
    Ok(())
}));
