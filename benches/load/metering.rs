//! What measuring and learning cost, over what a job costs that does nothing.

use std::future::ready;
use std::hint::black_box;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use nix::time::{ClockId, clock_gettime};
use serde_json::value::RawValue;
use trine::clock::Timestamp;
use trine::command::Commands;
use trine::job::{Bound, Executor, Form, Runtime, Spec, Timing, Written};
use trine::measure::{Crowd, Metered};
use trine::profile::{Profiles, Sample};
use trine::workload::{Environment, PythonRules, Registry, WorkloadSettings};

use crate::noop::{CONNECTIONS, MINIMAL, load};
use crate::report::{Bar, Figure, add_all, print};
use crate::server::{Server, folder};
use crate::{Options, Result};

/// How often each part is done to find out what it costs.
const TIMES: u32 = 200_000;

pub(crate) async fn run(options: &Options) -> Result<()> {
    let folder = folder()?;
    let mut server = Server::start(folder.path(), &[]).await?;
    let settings = WorkloadSettings {
        outbound: trine::outbound::OutboundSettings::default(),
        http_max_bytes: 0,
        workspace: folder.path().join("workspace"),
        python: PythonRules::default(),
        commands: Commands::default(),
    };
    let registry = Registry::native(Environment::open(&settings)?);
    let spec = Spec { kind: "sleep".into(), json: RawValue::from_string(r#"{"type":"sleep","ms":0}"#.into())? };
    let likeness = registry.prepare(&spec)?.likeness.ok_or("it is like others")?;
    let written = Written { runtime: Runtime::Native, form: Form::Async, gil: false, needs_a_process: false };
    let (profiles, key) = (Profiles::default(), likeness.key());
    let timing = Timing {
        wall_us: 2,
        cpu_user_us: Some(2),
        cpu_system_us: Some(0),
        longest_poll_us: Some(2),
        core_wait_us: Some(0),
        ..Timing::default()
    };
    let mut figures = [
        Figure::new("CPU time of a job in the server, µs"),
        Figure::new("of it the meter, ns"),
        Figure::new("of it what is asked of the profile, ns"),
        Figure::new("of it what is added to the profile, ns"),
        Figure::with_bar("measuring and learning, part of a job", Bar::AtMost(0.02)),
    ];
    // The first jobs make what later ones only use.
    server.accepted += load(server.address, MINIMAL, CONNECTIONS, Duration::from_secs(1)).await?;
    server.finish(|_| Ok(())).await?;
    for _ in 0..options.rounds {
        let before = server.cpu_time()?;
        let jobs = load(server.address, MINIMAL, CONNECTIONS, Duration::from_secs(options.seconds)).await?;
        server.accepted += jobs;
        server.finish(|_| Ok(())).await?;
        let job = server.cpu_time()?.saturating_sub(before).as_secs_f64() / jobs as f64;
        // As far apart as the server's own: the meter asks the kernel now and then.
        let apart = Duration::from_secs(options.seconds).div_f64(jobs as f64);
        let crowd = Crowd::default();
        let mut cx = Context::from_waker(Waker::noop());
        let bare = cost_apart(apart, || {
            let _ = black_box(Box::pin(ready(7)).poll_unpin(&mut cx));
        });
        let metered = cost_apart(apart, || {
            let mut metered = Metered::new(Box::pin(ready(7)), crowd.clone());
            drop(black_box(metered.poll_unpin(&mut cx)));
            black_box(metered.meter());
        });
        let asked = cost(|| {
            black_box(profiles.digest(&likeness.key(), written));
        });
        let added = cost(|| profiles.record(Some(&key), &Sample::new(Bound::Io, Executor::Async, timing, Timestamp::now())));
        let meter = metered - bare;
        let values = [job * 1e6, meter * 1e9, asked * 1e9, added * 1e9, (meter + asked + added) / job];
        add_all(&mut figures, values);
    }
    print("metering: what measuring and learning cost of jobs that do nothing", &figures);
    drop(Arc::new(registry));
    server.stop().await
}

/// The CPU time of a call, in seconds.
fn cost(mut call: impl FnMut()) -> f64 {
    let clock = || clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).unwrap_or_default();
    let before = clock();
    for _ in 0..TIMES {
        call();
    }
    clock().saturating_sub(before).as_secs_f64() / f64::from(TIMES)
}

/// The time of a call, in seconds, where one comes so long after the other. What took longer than any of them does was interrupted.
fn cost_apart(apart: Duration, mut call: impl FnMut()) -> f64 {
    const LONGEST: Duration = Duration::from_micros(20);
    let (mut sum, mut count) = (Duration::ZERO, 0);
    for _ in 0..TIMES / 10 {
        let from = Instant::now();
        call();
        let took = from.elapsed();
        if took < LONGEST {
            sum += took;
            count += 1;
        }
        while from.elapsed() < apart {
            std::hint::spin_loop();
        }
    }
    sum.as_secs_f64() / f64::from(count.max(1))
}
