//! Whatever goes wrong, as Problem Details (RFC 9457).

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;
use utoipa::openapi::{ContentBuilder, HeaderBuilder, ObjectBuilder, Ref, RefOr, Response as Described, ResponseBuilder, Type};

use super::json::Json;
use crate::dispatch::{Full, NoRoom, NotReady, OverQuota, SubmitError};
use crate::store::StoreError;
use crate::workload::{Invalid, pointer_token};

/// The media type of every answer that reports a problem.
const MEDIA_TYPE: &str = "application/problem+json";

/// What is said of the store to whoever may not know more.
const NOT_NOW: &str = "the store is not available now";
/// Seconds after which a client should try again what can't be done now.
const RETRY_AFTER_SECONDS: u64 = 2;

macro_rules! kinds {
    ($($(#[$about:meta])* $kind:ident = $status:ident $slug:literal, $title:literal, $example:literal;)*) => {
        /// What can go wrong. Each kind has a stable name, `/problems/…`, and always the same status.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Kind {
            $($(#[$about])* $kind,)*
        }

        impl Kind {
            /// All of them.
            pub(super) const ALL: &[Self] = &[$(Self::$kind),*];

            /// The last part of its name.
            pub(super) const fn slug(self) -> &'static str {
                match self { $(Self::$kind => $slug,)* }
            }

            /// The status of the answer.
            pub(super) const fn status(self) -> StatusCode {
                match self { $(Self::$kind => StatusCode::$status,)* }
            }

            /// The same sentence for every problem of this kind.
            pub(super) const fn title(self) -> &'static str {
                match self { $(Self::$kind => $title,)* }
            }

            /// A detail as it might be.
            const fn example(self) -> &'static str {
                match self { $(Self::$kind => $example,)* }
            }
        }

        /// The kinds as types, for the description of an operation's answers.
        #[allow(dead_code, reason = "what any operation may answer is not said at each")]
        pub(super) mod answers {
            use super::{BTreeMap, Described, Kind, RefOr};

            $($(#[$about])* pub(in crate::api) struct $kind;

            impl utoipa::IntoResponses for $kind {
                fn responses() -> BTreeMap<String, RefOr<Described>> {
                    [Kind::$kind.reference()].into()
                }
            })*
        }
    };
}

kinds! {
    /// The body is not JSON, or broke off.
    MalformedJson = BAD_REQUEST "malformed-json", "The body is not JSON",
        "expected `,` or `}` at line 1 column 18";
    /// The header `Idempotency-Key` has a value that it can't have.
    BadIdempotencyKey = BAD_REQUEST "bad-idempotency-key", "The idempotency key is not valid",
        "Idempotency-Key: must be one header with 1 to 255 visible characters";
    /// A query parameter is unknown, repeated or has a value that it can't have.
    BadQuery = BAD_REQUEST "bad-query", "A query parameter is not valid",
        "limit: must be 1 to 1000";
    /// The request does not say, or not in one way, by which name the server was found.
    BadHost = BAD_REQUEST "bad-host", "The request does not name one host",
        "a request has one header `Host`, not 0";
    /// There is no API key, or it is good for nothing.
    Unauthenticated = UNAUTHORIZED "unauthenticated", "There is no valid API key",
        "send an API key as `Authorization: Bearer trine_…`";
    /// The API key does not go so far; or a page from elsewhere asked a server that needs no key.
    Forbidden = FORBIDDEN "forbidden", "The caller may not do this",
        "the API key does not have the scope submit";
    /// The path names nothing.
    NotFound = NOT_FOUND "not-found", "There is nothing here",
        "the path names nothing that this server has; /docs lists what there is";
    /// No job has this id.
    UnknownJob = NOT_FOUND "unknown-job", "No job has this id",
        "no job has the id 01997d3e-8c00-7000-8000-000000000000";
    /// No comparison has this id.
    UnknownComparison = NOT_FOUND "unknown-comparison", "No comparison has this id",
        "no comparison has the id 01997d3e-8c00-7000-8000-000000000000";
    /// No function has this name, or it has no such version.
    UnknownFunction = NOT_FOUND "unknown-function", "There is no such function, or no such version of it",
        "no function is called \"resize\"";
    /// No schedule has this name.
    UnknownSchedule = NOT_FOUND "unknown-schedule", "There is no such schedule",
        "no schedule is called \"nightly\"";
    /// No message of a webhook has this id.
    UnknownDelivery = NOT_FOUND "unknown-delivery", "No message has this id",
        "no message has the id \"msg_2b1c7a0f3d5e4896a7b8c9d0e1f20314\"";
    /// The job has left no such file.
    UnknownArtifact = NOT_FOUND "unknown-artifact", "There is no such artifact",
        "attempt 1 at the job has left no \"report.csv\"";
    /// Nothing was learned of such runs, or it made way for others.
    UnknownProfile = NOT_FOUND "unknown-profile", "There is no such profile",
        "no runs are known of \"primes:below~2^20\"";
    /// No key has this id.
    UnknownKey = NOT_FOUND "unknown-key", "There is no such key",
        "no key has the id \"3f1c09a2b47d\", or it was revoked";
    /// No node of the cluster has this name.
    UnknownNode = NOT_FOUND "unknown-node", "There is no such node",
        "no node is called \"worker-3\"";
    /// The path is right, the method is not; `Allow` lists those that are.
    MethodNotAllowed = METHOD_NOT_ALLOWED "method-not-allowed", "The path does not have this method",
        "the header Allow lists the methods of this path";
    /// None of the media types in `Accept` can be made.
    NotAcceptable = NOT_ACCEPTABLE "not-acceptable", "None of the accepted media types can be made",
        "there are application/json, text/csv and application/x-ndjson";
    /// The body did not arrive in time.
    BodyTimeout = REQUEST_TIMEOUT "body-timeout", "The body did not arrive in time",
        "the body took longer than 30 s";
    /// The file has no such bytes.
    RangeNotSatisfiable = RANGE_NOT_SATISFIABLE "range-not-satisfiable", "The file has no such part",
        "the file has 1024 bytes";
    /// It has ended, so there is nothing to cancel.
    AlreadyFinished = CONFLICT "already-finished", "It has already ended",
        "the job ended as succeeded";
    /// It is in none of the states in which it was to be cancelled.
    InAnotherState = PRECONDITION_FAILED "in-another-state", "It is in another state",
        "the job is left alone: it is in another state";
    /// The job has not ended, so there is no result and nothing to run again.
    NotFinished = CONFLICT "not-finished", "The job has not ended yet",
        "the job is running";
    /// The comparison has not finished, so there is nothing to show.
    NoReport = CONFLICT "no-report", "The comparison has no report",
        "the comparison is running";
    /// There is a schedule of this name.
    ScheduleExists = CONFLICT "schedule-exists", "There is a schedule of this name",
        "there is a schedule \"nightly\"; `PUT` replaces it";
    /// The body is longer, or the batch has more jobs, than the server takes.
    TooLarge = PAYLOAD_TOO_LARGE "too-large", "This is more than can be taken at once",
        "the body may have at most 12582912 bytes";
    /// The URL is longer than any that this server has a use for.
    UriTooLong = URI_TOO_LONG "uri-too-long", "The URL is too long",
        "a URL may have at most 8192 bytes";
    /// The body is of a kind that this operation does not take.
    UnsupportedMediaType = UNSUPPORTED_MEDIA_TYPE "unsupported-media-type", "The body is not of a media type that is taken",
        "send application/json";
    /// The submission is JSON, but not a job that can be accepted. `errors` points at the field.
    InvalidJob = UNPROCESSABLE_ENTITY "invalid-job", "The job is not valid",
        "/workload/below: invalid type: string \"many\", expected a whole number from 0 to 4294967295";
    /// The filter of jobs is JSON, but not one by which they can be chosen. `errors` points at the field.
    InvalidFilter = UNPROCESSABLE_ENTITY "invalid-filter", "The filter is not valid",
        "needs a condition; `all` is one that every job passes";
    /// The comparison is JSON, but can't be run here. `errors` points at the field.
    InvalidComparison = UNPROCESSABLE_ENTITY "invalid-comparison", "The comparison is not valid",
        "/concurrency/2: must be 1 to 64, as many as there are `tasks`";
    /// The idempotency key came before, with another path or body. What came then was accepted, this was not.
    IdempotencyKeyReused = UNPROCESSABLE_ENTITY "idempotency-key-reused", "The idempotency key came with another request before",
        "the key came before with another request";
    /// Too many jobs wait for the executor already; `Retry-After` says when there may be room. Of a batch, nothing was accepted.
    QueueFull = TOO_MANY_REQUESTS "queue-full", "Too many jobs wait already",
        "the queue threads-cpu takes 10000 waiting jobs at most";
    /// The key has the server do as much as its quota allows, or submitted too much in a minute; `Retry-After` says when there may be room. Of
    /// a batch, nothing was accepted.
    QuotaUsedUp = TOO_MANY_REQUESTS "quota-used-up", "The quota of the key is used up",
        "the quota of this key is used up: its `queued` is 100";
    /// The function can't be deployed: its name or its content is not what it has to be.
    InvalidFunction = UNPROCESSABLE_ENTITY "invalid-function", "The function is not valid",
        "the source is not UTF-8";
    /// The schedule is JSON, but not one that can be kept, or its job can't be submitted. `errors` points at the field.
    InvalidSchedule = UNPROCESSABLE_ENTITY "invalid-schedule", "The schedule is not valid",
        "/cron: not a cron expression of 5 or 6 fields: it has 0";
    /// The key can't be made as it is described.
    InvalidKey = UNPROCESSABLE_ENTITY "invalid-key", "The key is not valid",
        "/scopes: must have at least one";
    /// Something unexpected; the cause is in the server's log.
    Internal = INTERNAL_SERVER_ERROR "internal", "The server failed",
        "the cause is in the server's log";
    /// The server takes no work now: its disk is full, or it is shutting down. Nothing was changed.
    Unavailable = SERVICE_UNAVAILABLE "unavailable", "The server can't take this now",
        "the store is not available now";
    /// The server runs jobs, and answers nobody but those who watch over it; another one of the cluster has the API.
    NoApi = SERVICE_UNAVAILABLE "no-api", "This server only runs jobs",
        "the role of this server is `work`: send this to a server of the cluster whose role is `all` or `api`";
    /// The server can't run jobs.
    NotReady = SERVICE_UNAVAILABLE "not-ready", "The server is not ready",
        "the server is shutting down";
}

impl Kind {
    /// Whether the answer says when to try again.
    fn says_when(self) -> bool {
        matches!(self.status(), StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS)
    }

    /// Its status, and by what operations refer to its description in the OpenAPI document.
    pub(super) fn reference(self) -> (String, RefOr<Described>) {
        (self.status().as_str().to_owned(), RefOr::Ref(Ref::from_response_name(self.slug())))
    }

    /// Its description in the OpenAPI document.
    pub(super) fn describe(self) -> Described {
        let mut problem = Problem::new(self, self.example());
        if self == Self::InvalidJob {
            problem.errors = vec![Fault {
                pointer: Some("/workload/below".into()),
                detail: "invalid type: string \"many\", expected a whole number from 0 to 4294967295".into(),
                ..Fault::default()
            }];
        }
        let content =
            ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).example(Some(json!(problem.body()))).build();
        let mut response = ResponseBuilder::new().description(self.title()).content(MEDIA_TYPE, content);
        if self == Self::RangeNotSatisfiable {
            let text = ObjectBuilder::new().schema_type(Type::String).build();
            let header = HeaderBuilder::new().schema(Some(text)).description(Some("How long the file is, as `bytes */1024`"));
            response = response.header("Content-Range", header.build());
        }
        if self.says_when() {
            let seconds = ObjectBuilder::new().schema_type(Type::Integer).build();
            let header = HeaderBuilder::new().schema(Some(seconds)).description(Some("Seconds to wait before trying again"));
            response = response.header("Retry-After", header.build());
        }
        response.build()
    }
}

/// Of so many jobs at most the faults are told.
const MAX_FAULTS: usize = 100;
/// The longest that a text may be, in bytes, that has in it what the client sent; and how much of a longer one's beginning and end is told.
/// At the end it often says what was expected.
const MAX_TEXT: usize = 1000;
const TOLD: (usize, usize) = (200, 500);

/// Something that went wrong, on its way to the client.
#[derive(Debug)]
pub(super) struct Problem {
    kind: Kind,
    detail: String,
    errors: Vec<Fault>,
    /// When to try again, in seconds, where the answer says so.
    retry_after: u64,
}

/// A place in the request that is at fault.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
#[schema(as = ProblemError)]
pub(super) struct Fault {
    /// The place in the body, as JSON Pointer (RFC 6901).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = JsonPointer)]
    pointer: Option<String>,
    /// The query parameter.
    #[serde(skip_serializing_if = "Option::is_none")]
    parameter: Option<String>,
    /// The line of a source, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
    /// The character of the line, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<u32>,
    /// What is wrong with it.
    detail: String,
}

/// Problem Details (RFC 9457).
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct Body<'a> {
    /// What kind of problem, by a stable name.
    #[schema(value_type = String, format = "uri-reference")]
    r#type: String,
    /// The same for every problem of this type.
    title: &'static str,
    /// The status of the answer.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What happened this time.
    detail: &'a str,
    /// The places in the request that are at fault.
    #[serde(skip_serializing_if = "<[Fault]>::is_empty")]
    errors: &'a [Fault],
}

impl Problem {
    /// A problem of this kind; the detail says what happened this time.
    pub(super) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self { kind, detail: shortened(detail.into()), errors: Vec::new(), retry_after: RETRY_AFTER_SECONDS }
    }

    /// A query parameter is wrong.
    pub(super) fn bad_query(parameter: impl Into<String>, detail: impl Into<String>) -> Self {
        let (parameter, detail) = (shortened(parameter.into()), shortened(detail.into()));
        let fault = Fault { parameter: Some(parameter.clone()), detail: detail.clone(), ..Fault::default() };
        Self { errors: vec![fault], ..Self::new(Kind::BadQuery, format!("{parameter}: {detail}")) }
    }

    /// Those of several jobs of a batch: what the first one is, with the places of all.
    pub(super) fn all(problems: impl IntoIterator<Item = Self>) -> Self {
        let mut problems = problems.into_iter();
        let Some(mut all) = problems.next() else { return Self::internal("there is no problem where there should be one") };
        let mut more = 0;
        for problem in problems {
            more += 1;
            if more < MAX_FAULTS {
                all.errors.extend(problem.errors);
            }
        }
        if more > 0 {
            all.detail = format!("{} - and {more} more are at fault, see `errors`", all.detail);
        }
        all
    }

    /// No job has the id that this text stands for.
    pub(super) fn unknown_job(id: impl Display) -> Self {
        Self::new(Kind::UnknownJob, format!("no job has the id {id}"))
    }

    /// Something unexpected. The client learns no more than that; the log has the cause.
    pub(super) fn internal(cause: impl Display) -> Self {
        tracing::error!(%cause, "a request failed");
        Self::new(Kind::Internal, Kind::Internal.example())
    }

    /// There is no room, and perhaps never will be.
    fn no_room(kind: Kind, retry_after: Option<Duration>, detail: String) -> Self {
        match retry_after {
            Some(wait) => {
                let retry_after = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
                Self { retry_after, ..Self::new(kind, detail) }
            }
            // However long a client waits, it does not fit.
            None => Self::new(Kind::TooLarge, detail),
        }
    }

    /// A handler panicked.
    pub(super) fn of_panic(panic: Box<dyn Any + Send>) -> Self {
        let message = match panic.downcast::<String>() {
            Ok(message) => *message,
            Err(panic) => panic.downcast::<&str>().map_or_else(|_| "no message".to_owned(), |message| (*message).to_owned()),
        };
        Self::internal(format_args!("a handler panicked: {message}"))
    }

    /// The same problem with the place in which it happened, such as the element of a batch, before its pointers.
    pub(super) fn within(mut self, place: impl Display) -> Self {
        if self.errors.is_empty() {
            self = self.at("");
        }
        for pointer in self.errors.iter_mut().filter_map(|fault| fault.pointer.as_mut()) {
            pointer.insert_str(0, &format!("/{place}"));
        }
        if let [Fault { pointer: Some(pointer), detail, .. }] = self.errors.as_slice() {
            self.detail = format!("{pointer}: {detail}");
        }
        self
    }

    /// The same problem of a text that is this line of the body: where it is no JSON, it speaks of its own first line.
    pub(super) fn in_body_line(mut self, line: usize) -> Self {
        if self.kind == Kind::MalformedJson {
            self.detail = self.detail.replace(" at line 1 ", &format!(" at line {line} "));
        }
        self
    }

    /// The same problem of a body that is to be something else than a job.
    pub(super) fn of_what(mut self, kind: Kind) -> Self {
        if self.kind == Kind::InvalidJob {
            self.kind = kind;
        }
        self
    }

    /// The same problem, pointing at this place of the body.
    pub(super) fn at(mut self, pointer: impl Into<String>) -> Self {
        self.errors = vec![Fault { pointer: Some(pointer.into()), detail: self.detail.clone(), ..Fault::default() }];
        self
    }

    /// What happened this time.
    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    /// The same problem, pointing into a source, if it is known where.
    pub(super) fn in_line(mut self, line: Option<u32>, column: Option<u32>) -> Self {
        if line.is_some() {
            self.errors = vec![Fault { line, column, detail: self.detail.clone(), ..Fault::default() }];
        }
        self
    }

    /// What the client reads.
    pub(super) fn body(&self) -> Body<'_> {
        Body {
            r#type: format!("/problems/{}", self.kind.slug()),
            title: self.kind.title(),
            status: self.kind.status().as_u16(),
            detail: &self.detail,
            errors: &self.errors,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.kind.status(), Json(self.body())).into_response();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        if self.kind.says_when() {
            response.headers_mut().insert(RETRY_AFTER, self.retry_after.into());
        }
        if self.kind.status() == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"trine\""));
        }
        response
    }
}

impl From<Invalid> for Problem {
    fn from(invalid: Invalid) -> Self {
        let Invalid { pointer, message } = at_field(invalid);
        let (pointer, message) = (shortened(pointer), shortened(message));
        let detail = if pointer.is_empty() { message.clone() } else { format!("{pointer}: {message}") };
        let fault = Fault { pointer: Some(pointer), detail: message, ..Fault::default() };
        Self { errors: vec![fault], ..Self::new(Kind::InvalidJob, detail) }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Taken | StoreError::Closed | StoreError::Silent(_) => Self::new(Kind::Unavailable, error.to_string()),
            // Where it is and what it says is not the client's business. What could not be written, the store has told.
            StoreError::Unavailable(_) => Self::new(Kind::Unavailable, NOT_NOW),
            StoreError::Database(_) if error.may_pass() => {
                tracing::warn!(%error, "a request could not be served now");
                Self::new(Kind::Unavailable, NOT_NOW)
            }
            StoreError::TooManyPlaces => Self::new(Kind::QueueFull, error.to_string()),
            StoreError::Unusable(_)
            | StoreError::TooNew { .. }
            | StoreError::Outdated { .. }
            | StoreError::OldNodes { .. }
            | StoreError::UnknownParent { .. }
            | StoreError::Refused(_)
            | StoreError::Corrupt(_)
            | StoreError::Database(_) => Self::internal(error),
        }
    }
}

impl From<SubmitError> for Problem {
    /// The pointer is that of a submission on its own; [`Problem::within`] puts it in its batch.
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Invalid(wrong) => Self::all(wrong.into_iter().map(|wrong| wrong.invalid.into())),
            SubmitError::Draining => Self::new(Kind::Unavailable, error.to_string()),
            SubmitError::KeyUsed => Self::new(Kind::IdempotencyKeyReused, error.to_string()),
            SubmitError::Gone => Self::new(Kind::UnknownJob, error.to_string()),
            SubmitError::Full(full) => full.into(),
            SubmitError::NoRoom(no_room) => no_room.into(),
            SubmitError::Store(error) => error.into(),
        }
    }
}

impl From<Full> for Problem {
    fn from(full: Full) -> Self {
        Self::no_room(Kind::QueueFull, full.retry_after, full.to_string())
    }
}

impl From<OverQuota> for Problem {
    fn from(over: OverQuota) -> Self {
        Self::no_room(Kind::QuotaUsedUp, over.retry_after, over.to_string())
    }
}

impl From<NoRoom> for Problem {
    fn from(error: NoRoom) -> Self {
        match error {
            NoRoom::Over(over) => over.into(),
            NoRoom::Store(error) => error.into(),
        }
    }
}

impl From<NotReady> for Problem {
    fn from(error: NotReady) -> Self {
        match error {
            // The node has said it in its log.
            NotReady::Store(StoreError::Silent(why)) => Self::new(Kind::NotReady, why),
            NotReady::Store(error) => {
                tracing::warn!(%error, "the server is not ready");
                Self::new(Kind::NotReady, NOT_NOW)
            }
            error => Self::new(Kind::NotReady, error.to_string()),
        }
    }
}

/// What a refusal quotes may be as long as a body, and is told more than once: of a long text only the ends.
fn shortened(text: String) -> String {
    if text.len() <= MAX_TEXT {
        return text;
    }
    let (first, last) = (text.floor_char_boundary(TOLD.0), text.ceil_char_boundary(text.len() - TOLD.1));
    format!("{}…{}", &text[..first], &text[last..])
}

/// A field that is missing or unknown is named in the message; the path ends at the object around it.
fn at_field(mut invalid: Invalid) -> Invalid {
    let name = ["missing field `", "unknown field `", "duplicate field `"]
        .into_iter()
        .find_map(|start| invalid.message.strip_prefix(start))
        .and_then(|rest| rest.split_once('`'))
        .map(|(name, _)| format!("/{}", pointer_token(name)));
    if let Some(name) = name.filter(|name| !invalid.pointer.ends_with(name)) {
        invalid.pointer.push_str(&name);
    }
    invalid
}

/// Makes a problem of an error that the framework answered by itself: no route, no such method, a missing page of the documentation.
pub(super) fn complete(response: Response) -> Response {
    let status = response.status();
    let described = response.headers().get(CONTENT_TYPE).is_some_and(|media_type| media_type == MEDIA_TYPE);
    if described || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let kind = match status {
        // Of a path that is no UTF-8, too.
        StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST => Kind::NotFound,
        StatusCode::METHOD_NOT_ALLOWED => Kind::MethodNotAllowed,
        other => return Problem::internal(format_args!("the framework answered {other}")).into_response(),
    };
    let mut problem = Problem::new(kind, kind.example()).into_response();
    if let Some(methods) = response.headers().get(axum::http::header::ALLOW) {
        problem.headers_mut().insert(axum::http::header::ALLOW, methods.clone());
    }
    problem
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(problem: &Problem) -> serde_json::Value {
        serde_json::to_value(problem.body()).unwrap()
    }

    #[test]
    fn points_at_the_field() {
        let problem = Problem::from(Invalid::new("/workload/below", "must be at least 2"));
        assert_eq!(
            json(&problem),
            json!({
                "type": "/problems/invalid-job", "title": "The job is not valid", "status": 422,
                "detail": "/workload/below: must be at least 2",
                "errors": [{ "pointer": "/workload/below", "detail": "must be at least 2" }],
            })
        );
        let problem = json(&problem.within(7));
        assert_eq!(problem["errors"][0]["pointer"], "/7/workload/below");
        assert_eq!(problem["detail"], "/7/workload/below: must be at least 2");
    }

    #[test]
    fn of_what_is_long_the_ends_are_told() {
        let name = "ü".repeat(100_000);
        let invalid = Invalid::new("", format!("unknown field `{name}`, expected `bound`"));
        let problem = Problem::from(invalid).within(7);
        let told = json(&problem);
        let (pointer, detail) = (told["errors"][0]["pointer"].as_str().unwrap(), told["errors"][0]["detail"].as_str().unwrap());
        assert!(pointer.starts_with("/7/üü") && pointer.contains('…'), "{pointer}");
        assert!(detail.starts_with("unknown field `üü") && detail.ends_with("ü`, expected `bound`"), "{detail}");
        assert!(told.to_string().len() < 4 * MAX_TEXT, "{told}");
        let query = json(&Problem::bad_query(name.clone(), name.clone()));
        assert!(query.to_string().len() < 4 * MAX_TEXT, "{query}");
        assert_eq!(json(&Problem::new(Kind::NotFound, "ü".repeat(500)))["detail"], "ü".repeat(500));
    }

    #[test]
    fn an_unexpected_error_stays_in_the_log() {
        let problem = json(&StoreError::Corrupt("secret".into()).into());
        assert_eq!((&problem["status"], &problem["type"]), (&json!(500), &json!("/problems/internal")));
        assert!(!problem.to_string().contains("secret"));
    }

    #[test]
    fn a_database_that_is_away_is_so_for_now_and_not_shown() {
        let away = [StoreError::Unavailable("secret".into()), StoreError::Database(sqlx::Error::PoolTimedOut)];
        for error in away {
            let problem = json(&error.into());
            assert_eq!((&problem["status"], &problem["detail"]), (&json!(503), &json!(NOT_NOW)));
        }
    }

    #[test]
    fn what_may_work_later_says_when_to_try_again() {
        let response = Problem::from(SubmitError::Draining).into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[RETRY_AFTER], "2");
        assert_eq!(response.headers()[CONTENT_TYPE], MEDIA_TYPE);
    }

    #[test]
    fn names_are_unique() {
        let slugs: std::collections::BTreeSet<_> = Kind::ALL.iter().map(|kind| kind.slug()).collect();
        assert_eq!(slugs.len(), Kind::ALL.len());
    }
}
