//! Inline: no executor at all, but one call after the other on one thread. What the executors are compared with.

use std::convert::Infallible;
use std::sync::{Arc, mpsc};
use std::task::{Context as TaskContext, Poll};

use futures_util::future::BoxFuture;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tower::Service;

use super::attempt::{Attempt, Ran};
use super::threads;
use crate::job::{Failure, FailureKind};
use crate::workload::Registry;

/// Runs attempts on a thread of its own, in the order in which they come; the thread ends with the last handle.
#[derive(Clone)]
pub(super) struct InlineExecutor {
    calls: mpsc::Sender<Call>,
}

struct Call {
    attempt: Attempt,
    report: oneshot::Sender<Ran>,
}

impl InlineExecutor {
    /// Starts the thread, with a runtime that drives nothing but the one future that is being waited for.
    pub(super) fn start(registry: Arc<Registry>) -> std::io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (calls, received) = mpsc::channel();
        std::thread::Builder::new().name("trine-inline".into()).spawn(move || serve(&runtime, &registry, &received))?;
        Ok(Self { calls })
    }
}

fn serve(runtime: &Runtime, registry: &Registry, calls: &mpsc::Receiver<Call>) {
    while let Ok(Call { attempt, report }) = calls.recv() {
        let Attempt { workload, stop, reporter, slot, .. } = attempt;
        let ran = threads::run(registry.work(&workload, stop.clone(), reporter), &stop, |work| runtime.block_on(work));
        drop(slot);
        let _ = report.send(ran);
    }
}

impl Service<Attempt> for InlineExecutor {
    type Response = Ran;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Ran, Infallible>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, attempt: Attempt) -> Self::Future {
        let (report, ran) = oneshot::channel();
        // Without the thread nobody reports, which is told below.
        let _ = self.calls.send(Call { attempt, report });
        Box::pin(
            async move { Ok(ran.await.unwrap_or_else(|_| Ran::failed(Failure::new(FailureKind::Lost, "the thread is gone")))) },
        )
    }
}
