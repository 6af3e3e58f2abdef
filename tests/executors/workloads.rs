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
        .register::<Turns>()
        .register::<TurnsAsync>()
        .register::<Yields>()
        .register::<Faults>()
        .register::<Cores>()
        .register::<Reads>()
        .register::<Locked>()
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

/// Turns of computing and waiting.
#[derive(Deserialize, utoipa::ToSchema)]
pub(crate) struct Turns {
    compute_ms: u64,
    wait_ms: u64,
    times: u32,
}

/// The same as a future.
#[derive(Deserialize, utoipa::ToSchema)]
pub(crate) struct TurnsAsync {
    compute_ms: u64,
    wait_ms: u64,
    times: u32,
}

/// A future that computes and gives its thread back in between, without waiting for anything.
#[derive(Deserialize, utoipa::ToSchema)]
pub(crate) struct Yields {
    compute_ms: u64,
    times: u32,
}

/// Touches fresh memory, page by page.
#[derive(Deserialize, utoipa::ToSchema)]
pub(crate) struct Faults {
    mib: usize,
    times: u32,
}

/// Computes on several threads at once.
#[derive(Deserialize, utoipa::ToSchema)]
pub(crate) struct Cores {
    cpu_ms: u64,
    cores: u32,
}

/// Reads what comes byte by byte, each so much later than the one before.
#[derive(Deserialize, utoipa::ToSchema)]
pub(crate) struct Reads {
    times: u32,
    ms: u64,
}

/// Waits for a lock that another thread has for so long.
#[derive(Deserialize, utoipa::ToSchema)]
pub(crate) struct Locked {
    ms: u64,
}

workload!(Turns, "turns", Blocking, |this| Work::blocking(move || {
    for _ in 0..this.times {
        spin(Duration::from_millis(this.compute_ms));
        std::thread::sleep(Duration::from_millis(this.wait_ms));
    }
    Ok(())
}));

workload!(TurnsAsync, "turns_async", Async, |this| Work::future(async move {
    for _ in 0..this.times {
        spin(Duration::from_millis(this.compute_ms));
        tokio::time::sleep(Duration::from_millis(this.wait_ms)).await;
    }
    Ok(())
}));

workload!(Yields, "yields", Async, |this| Work::future(async move {
    for _ in 0..this.times {
        spin(Duration::from_millis(this.compute_ms));
        tokio::task::yield_now().await;
    }
    Ok(())
}));

workload!(Faults, "faults", Blocking, |this| Work::blocking(move || {
    let sum = (0..this.times).map(|n| {
        let mut memory = vec![0_u8; this.mib << 20];
        memory.iter_mut().step_by(4_096).for_each(|byte| *byte = n.to_le_bytes()[0]);
        std::hint::black_box(&memory).iter().map(|byte| u64::from(*byte)).sum::<u64>()
    });
    Ok(sum.sum::<u64>())
}));

workload!(Cores, "cores", Blocking, |this| Work::blocking(move || {
    std::thread::scope(|scope| {
        for _ in 0..this.cores {
            scope.spawn(|| spin(Duration::from_millis(this.cpu_ms)));
        }
    });
    Ok(())
}));

workload!(Reads, "reads", Blocking, |this| Work::blocking(move || {
    use std::io::{Read as _, Write as _};
    let (mut near, mut far) = std::os::unix::net::UnixStream::pair().unwrap();
    let feeding = std::thread::spawn(move || {
        for _ in 0..this.times {
            std::thread::sleep(Duration::from_millis(this.ms));
            far.write_all(&[7]).unwrap();
        }
    });
    for _ in 0..this.times {
        near.read_exact(&mut [0]).unwrap();
    }
    feeding.join().unwrap();
    Ok(())
}));

workload!(Locked, "locked", Blocking, |this| Work::blocking(move || {
    let (lock, (taken, is_taken)) = (std::sync::Mutex::new(()), std::sync::mpsc::channel());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _held = lock.lock().unwrap();
            taken.send(()).unwrap();
            std::thread::sleep(Duration::from_millis(this.ms));
        });
        is_taken.recv().unwrap();
        drop(lock.lock().unwrap());
    });
    Ok(())
}));
