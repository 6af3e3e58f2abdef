//! What every operation asks of a request before it is looked at: an address of a sane length, a caller who may do that, and a note of
//! what administrators do. How long its answer takes is taken down here, too.

use std::convert::Infallible;
use std::future::ready;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::{MatchedPath, Request};
use axum::http::Method;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt as _;
use futures_util::future::{BoxFuture, Either};
use tower::{Layer, Service};

use super::access::{Caller, Holder, Operation, Operations};
use super::problem::{Kind, Problem};
use super::traffic::Timed;
use super::{ApiState, idempotency, origin, preference, query};
use crate::auth::NewAct;
use crate::dispatch::to_the_end;
use crate::job::Role;
use crate::store::StoreError;

/// The longest path with its query, in bytes. Filters and cursors are far shorter.
const MAX_URI_BYTES: usize = 8192;

/// Who is let in, and to what. Clones are handles to the same.
#[derive(Clone)]
pub(super) struct Entrance {
    api: ApiState,
    operations: Arc<Operations>,
}

impl<S> Layer<S> for Entrance {
    type Service = Door<S>;

    fn layer(&self, inner: S) -> Door<S> {
        Door { entrance: self.clone(), inner }
    }
}

/// A handler behind the entrance.
#[derive(Clone)]
pub(super) struct Door<S> {
    entrance: Entrance,
    inner: S,
}

impl<S> Service<Request> for Door<S>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Timed<Passing<S>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let operation = self.entrance.operation(&request);
        let looks = request.method() == Method::GET;
        let answering = self.answer(request, operation.as_deref());
        Timed::new(self.entrance.api.clone(), operation, looks, answering)
    }
}

/// Boxed only for those who need more than a look at them.
type Passing<S> = Either<<S as Service<Request>>::Future, BoxFuture<'static, Result<Response, Infallible>>>;

impl<S> Door<S>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    fn answer(&mut self, request: Request, operation: Option<&Operation>) -> Passing<S> {
        let admission = self.entrance.check(&request, operation);
        let keyring = &self.entrance.api.keyring;
        if admission.is_err() && keyring.may_be_new(request.headers()) {
            let (keyring, mut door) = (Arc::clone(keyring), self.take_ready());
            return Either::Right(Box::pin(async move {
                let admission = match keyring.look_again().await {
                    Ok(()) => door.entrance.check(&request, door.entrance.operation(&request).as_deref()),
                    Err(error) => Err(error.into()),
                };
                door.admit(request, admission).await
            }));
        }
        self.admit(request, admission)
    }

    /// Leaves its clone in its place: it alone has been asked whether it is ready.
    fn take_ready(&mut self) -> Self {
        let next = self.clone();
        std::mem::replace(self, next)
    }

    fn admit(&mut self, request: Request, admission: Result<Admission, Problem>) -> Passing<S> {
        match admission {
            Ok(Admission { holder: None, act: None, outlives_client: false }) => Either::Left(self.inner.call(request)),
            Ok(Admission { holder, act, outlives_client }) => {
                let Self { entrance, inner } = self.take_ready();
                let passing = pass(entrance, inner, request, holder, act);
                Either::Right(if outlives_client {
                    let closed = || Ok(Problem::from(StoreError::Closed).into_response());
                    Box::pin(async move { to_the_end(passing).await.unwrap_or_else(closed) })
                } else {
                    Box::pin(passing)
                })
            }
            Err(problem) => Either::Right(Box::pin(ready(Ok(problem.into_response())))),
        }
    }
}

/// On what terms a request passes.
struct Admission {
    /// Who makes it, if a key was asked for.
    holder: Option<Holder>,
    /// What is to be written down of it.
    act: Option<NewAct>,
    /// Whether it is done to its end though the client hangs up: it changes what the server has in memory beside the store.
    outlives_client: bool,
}

/// Lets a request pass to its handler, with its caller if a key was asked for; what is to be written down is.
async fn pass<S>(
    entrance: Entrance,
    mut handler: S,
    mut request: Request,
    holder: Option<Holder>,
    act: Option<NewAct>,
) -> Result<Response, Infallible>
where
    S: Service<Request, Response = Response, Error = Infallible>,
{
    if let Some(holder) = &holder {
        request.extensions_mut().insert(Caller::from(holder));
        // Whose key it is, of administrators as well, who are no owners as callers.
        request.extensions_mut().insert(holder.owner);
    }
    let Some(act) = act else {
        let waiting = holder.as_ref().filter(|_| preference::looks_and_may_wait(&request)).map(|holder| holder.key.clone());
        let response = handler.call(request).await?;
        // A key that has ended meanwhile is not good for what was waited for; what is done is not refused afterwards.
        let still = waiting.map_or(Ok(()), |key| entrance.api.keyring.still(&key));
        return Ok(still.map_or_else(Problem::into_response, |()| entrance.while_live(holder, response)));
    };
    // Written down before it is done: nothing is done that is not written down.
    let store = entrance.api.dispatcher.store();
    let id = match store.begin_act(act).await {
        Ok(id) => id,
        Err(error) => return Ok(Problem::from(error).into_response()),
    };
    let response = handler.call(request).await?;
    if let Err(error) = store.end_act(id, response.status().as_u16()).await {
        tracing::warn!(%error, act = id, "the end of an act could not be written down");
    }
    Ok(response)
}

impl Entrance {
    pub(super) fn new(api: ApiState, operations: Operations) -> Self {
        Self { api, operations: Arc::new(operations) }
    }

    /// The same answer; if it goes on for as long as the client likes, it ends when the caller's key does.
    fn while_live(&self, holder: Option<Holder>, response: Response) -> Response {
        let media_type = response.headers().get(CONTENT_TYPE);
        let Some(Holder { key, .. }) = holder.filter(|_| media_type.is_some_and(|media_type| media_type == "text/event-stream"))
        else {
            return response;
        };
        let gone = Arc::clone(&self.api.keyring).gone(key);
        response.map(|body| Body::from_stream(body.into_data_stream().take_until(Box::pin(gone))))
    }

    /// What a request asks for, if that is described.
    fn operation(&self, request: &Request) -> Option<Arc<Operation>> {
        let path = request.extensions().get::<MatchedPath>()?;
        self.operations.find(request.method(), path.as_str()).cloned()
    }

    /// Whether a request may pass, and on what terms.
    fn check(&self, request: &Request, operation: Option<&Operation>) -> Result<Admission, Problem> {
        origin::check_host(request.version(), request.headers())?;
        let uri = request.uri();
        if uri.path().len() + uri.query().map_or(0, str::len) > MAX_URI_BYTES {
            return Err(Problem::new(Kind::UriTooLong, format!("a URL may have at most {MAX_URI_BYTES} bytes")));
        }
        // Nothing has a name with NUL in it, and not every store can look for one.
        if uri.path().contains("%00") {
            return Err(Problem::new(Kind::NotFound, "there is nothing at this path"));
        }
        if self.api.dispatcher.role() == Role::Work && !operation.is_some_and(|operation| operation.is_of_workers) {
            return Err(Problem::new(
                Kind::NoApi,
                "the role of this server is `work`: send this to a server of the cluster whose role is `all` or `api`",
            ));
        }
        // Whoever has a key may hear that there is no such path or method.
        let (is_open, asked) = operation.map_or((false, None), |operation| (operation.scope.is_none(), operation.scope));
        let holder = if self.api.keyring.is_open() {
            // With a key, a page has to have it; without one, it is enough to be a page.
            self.api.pages.check(request.headers())?;
            None
        } else if !is_open {
            let holder = self.api.keyring.holder(request.headers())?;
            if let Some(scope) = asked.filter(|scope| !holder.scopes.allow(*scope)) {
                return Err(Problem::new(Kind::Forbidden, format!("the API key does not have the scope {scope}")));
            }
            Some(holder)
        } else {
            None
        };
        if let (Some(query), Some(Operation { refuses_queries: true, .. })) = (uri.query(), operation) {
            query::refuse(query)?;
        }
        let changes = !request.method().is_safe() && operation.is_some_and(|operation| !operation.submits);
        if changes && request.method() == Method::POST {
            idempotency::refuse(request.headers())?;
        }
        let act = operation.filter(|operation| operation.is_recorded).map(|operation| NewAct {
            key: holder.as_ref().map(|holder| holder.key.clone()),
            operation: operation.id.to_string(),
            target: uri.path().to_owned(),
        });
        Ok(Admission { holder, act, outlives_client: changes })
    }
}
