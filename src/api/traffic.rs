//! How often each operation is asked for, what it answers, and how long that takes: for `/metrics`.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use axum::response::Response;
use pin_project_lite::pin_project;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::ApiState;
use super::access::Operation;

/// The upper ends of the buckets, in seconds.
const BUCKETS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 10.0, 60.0];

/// What was answered, by which operation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answer {
    operation: Arc<str>,
    status: u16,
}

/// The times of all requests since the server was started. Clones are handles to the same.
#[derive(Clone, Debug)]
pub struct Traffic(Family<Answer, Histogram, fn() -> Histogram>);

impl Default for Traffic {
    fn default() -> Self {
        Self(Family::new_with_constructor(|| Histogram::new(BUCKETS)))
    }
}

impl Traffic {
    pub(super) fn register(&self, registry: &mut Registry) {
        let about = "Time from a request's headers until its answer begins, by the operation's id in the OpenAPI document and the status; \
                     with what a client asked to wait for an end";
        registry.register("trine_http_request_seconds", about, self.0.clone());
    }
}

pin_project! {
    /// An answer that is taken down when it begins, if it is one of an operation; and held until the client has it.
    pub(super) struct Timed<F> {
        #[pin]
        answering: F,
        api: ApiState,
        operation: Option<Arc<Operation>>,
        looks: bool,
        begun: Instant,
    }
}

impl<F> Timed<F> {
    /// The answer to a request that only `looks`, or does something.
    pub(super) fn new(api: ApiState, operation: Option<Arc<Operation>>, looks: bool, answering: F) -> Self {
        Self { answering, api, operation, looks, begun: Instant::now() }
    }
}

impl<F: Future<Output = Result<Response, E>>, E> Future for Timed<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let answer = ready!(this.answering.poll(cx));
        // What is done is not refused afterwards.
        let nothing_is_done = |answer: &Response| *this.looks || answer.status().is_client_error();
        let answer = answer.map(|answer| if nothing_is_done(&answer) { this.api.held.hold(answer) } else { answer });
        if let (Ok(response), Some(operation)) = (&answer, this.operation) {
            let told = Answer { operation: Arc::clone(&operation.id), status: response.status().as_u16() };
            this.api.traffic.0.get_or_create(&told).observe(this.begun.elapsed().as_secs_f64());
        }
        Poll::Ready(answer)
    }
}
