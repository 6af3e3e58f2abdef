//! Inline: no executor at all, but one call after the other on one thread. What the executors are compared with.

use std::convert::Infallible;
use std::sync::{Arc, mpsc};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tower::Service;

use super::attempt::{Attempt, Ran};
use super::deadline::limited;
use super::threads;
use crate::job::{Failure, FailureKind};
use crate::workload::Registry;

/// Runs attempts on a thread of its own, in the order in which they come; the thread ends with the last handle.
///
/// It keeps their deadlines itself, since they count from when the thread comes to them.
#[derive(Clone)]
pub(super) struct InlineExecutor {
    calls: mpsc::Sender<Call>,
    grace: Duration,
}

struct Call {
    attempt: Attempt,
    begin: oneshot::Sender<()>,
    report: oneshot::Sender<Ran>,
}

impl InlineExecutor {
    /// Starts the thread, with a runtime that drives nothing but the one future that is being waited for.
    pub(super) fn start(registry: Arc<Registry>, grace: Duration) -> std::io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (calls, received) = mpsc::channel();
        std::thread::Builder::new().name("trine-inline".into()).spawn(move || serve(&runtime, &registry, &received))?;
        Ok(Self { calls, grace })
    }
}

fn serve(runtime: &Runtime, registry: &Registry, calls: &mpsc::Receiver<Call>) {
    while let Ok(Call { attempt, begin, report }) = calls.recv() {
        let _ = begin.send(());
        let Attempt { workload, stop, reporter, slot, .. } = attempt;
        let ran = threads::run(|| registry.work(&workload, stop.clone(), reporter), &stop, |work| runtime.block_on(work));
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
        let (stop, deadline, grace) = (attempt.stop.clone(), attempt.deadline, self.grace);
        let ((begin, begun), (report, ran)) = (oneshot::channel(), oneshot::channel());
        // Without the thread nobody reports, which is told below.
        let _ = self.calls.send(Call { attempt, begin, report });
        Box::pin(async move {
            tokio::select! {
                _ = begun => {}
                _ = stop.stopped() => {}
            }
            let ran =
                async { Ok(ran.await.unwrap_or_else(|_| Ran::failed(Failure::new(FailureKind::Lost, "the thread is gone")))) };
            limited(std::pin::pin!(ran), stop, deadline, grace).await
        })
    }
}
