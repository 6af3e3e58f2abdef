//! `/jobs/{id}/artifacts`: the files that a job left behind.

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{
    ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_NONE_MATCH, IF_RANGE, RANGE,
};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::body::Binary;
use super::jobs::find;
use super::json::Json;
use super::list::List;
use super::problem::{Kind, Problem, answers};
use super::query::{Id, Named, Query};
use super::{ApiState, condition, example};
use crate::artifact::{Artifact, ArtifactError, Content, Part};
use crate::clock::Timestamp;
use crate::job::Job;

/// Whose artifacts.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct OfAttempt {
    /// The attempt that left them; the latest one if it is not said.
    #[param(value_type = Option<i32>, minimum = 1)]
    attempt: Option<Number>,
}

/// The number of an attempt.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "i32")]
struct Number(u32);

impl TryFrom<i32> for Number {
    type Error = &'static str;

    fn try_from(number: i32) -> Result<Self, &'static str> {
        u32::try_from(number).ok().filter(|number| *number > 0).map(Self).ok_or("attempts are numbered from 1")
    }
}

impl OfAttempt {
    fn or_latest(self, job: &Job) -> u32 {
        self.attempt.map_or(job.attempt, |Number(attempt)| attempt)
    }
}

/// A file that a job left behind.
#[derive(Serialize, ToSchema)]
#[schema(as = Artifact)]
pub(super) struct ArtifactView {
    /// Its path below the folder that the job had for such files.
    name: String,
    /// Its length.
    bytes: u64,
    /// When it was kept.
    #[schema(value_type = String, format = DateTime)]
    kept_at: Timestamp,
    /// Where it can be had from.
    #[schema(format = "uri-reference")]
    href: String,
}

impl ArtifactView {
    pub(super) fn of(job: impl std::fmt::Display, attempt: u32, artifact: Artifact) -> Self {
        let Artifact { name, bytes, kept_at } = artifact;
        let href = format!("/jobs/{job}/artifacts/{}?attempt={attempt}", utf8_percent_encode(&name, NON_ALPHANUMERIC));
        Self { name, bytes, kept_at, href }
    }
}

/// List artifacts
///
/// The files that an attempt at the job left behind, by name. They are there as soon as the attempt has ended, however it did.
#[utoipa::path(
    get, path = "/jobs/{id}/artifacts", tag = "artifacts", operation_id = "listArtifacts",
    params(("id" = String, Path, description = "The job's id", format = "uuid"), OfAttempt),
    responses(
        (status = 200, description = "Its artifacts", body = List<ArtifactView>, example = example::artifacts),
        answers::BadQuery, answers::UnknownJob, answers::Unavailable,
    ),
)]
pub(super) async fn list(
    State(api): State<ApiState>,
    Id(id): Id,
    Query(attempt): Query<OfAttempt>,
) -> Result<Json<List<ArtifactView>>, Problem> {
    let attempt = attempt.or_latest(&find(&api, id).await?);
    let artifacts = api.artifacts.list(id, attempt).await?;
    Ok(Json(List::whole(artifacts.into_iter().map(|artifact| ArtifactView::of(id, attempt, artifact)))))
}

/// Get an artifact
///
/// The file as the job wrote it, or the part of it that the header `Range` asks for. Whoever goes on with a file that came in part sends
/// the `ETag` that it had as `If-Range`, and gets the whole of what has taken its place, as the file of a later attempt.
#[utoipa::path(
    get, path = "/jobs/{id}/artifacts/{name}", tag = "artifacts", operation_id = "getArtifact",
    params(
        ("id" = String, Path, description = "The job's id", format = "uuid"),
        ("name" = String, Path, description = "The artifact's name; a `/` in it is written as `%2F`", example = "report.csv"),
        OfAttempt,
        ("Range" = Option<String>, Header, description = "One range of bytes, such as `bytes=0-1023`"),
        ("If-None-Match" = Option<String>, Header, description = "The `ETag` of a file that is not to be sent again"),
        ("If-Range" = Option<String>, Header, description = "The `ETag` of the file of which this is to be a part; of another one, all comes"),
    ),
    responses(
        (status = 200, description = "The file", body = Binary, content_type = "application/octet-stream",
            headers(("ETag" = String, description = "What the file is told by from another one of the same name"))),
        (status = 206, description = "A part of it", body = Binary, content_type = "application/octet-stream",
            headers(
                ("Content-Range" = String, description = "Which part it is"),
                ("ETag" = String, description = "What the file is told by from another one of the same name"),
            )),
        (status = 304, description = "It is the file that the client has",
            headers(("ETag" = String, description = "What the file is told by from another one of the same name"))),
        answers::BadQuery, answers::UnknownJob, answers::UnknownArtifact, answers::RangeNotSatisfiable, answers::Unavailable,
    ),
)]
pub(super) async fn get(
    State(api): State<ApiState>,
    Id(id): Id,
    Named(name): Named,
    Query(attempt): Query<OfAttempt>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let attempt = attempt.or_latest(&find(&api, id).await?);
    if headers.contains_key(IF_NONE_MATCH)
        && let Some(etag) = api.artifacts.version(id, attempt, &name).await?.map(|version| etag(&version))
        && condition::has(&headers, &etag)
    {
        return Ok((StatusCode::NOT_MODIFIED, [(ETAG, etag)]).into_response());
    }
    // Of what has no content there are no parts.
    let range = headers.get(RANGE).filter(|_| method == Method::GET);
    let part = range.and_then(|range| part(range.to_str().ok()?));
    // A date is none that was told, and a weak one no proof that it is the same: neither is the version of any file.
    let of = headers.get(IF_RANGE).map(|tag| tag.to_str().ok().and_then(version).unwrap_or_default());
    let unknown = || Problem::new(Kind::UnknownArtifact, format!("attempt {attempt} at the job has left no {name:?}"));
    let Content { version, bytes, part, stream } = match api.artifacts.get(id, attempt, &name, part, of).await {
        Err(ArtifactError::NoSuchPart(bytes)) => {
            let length = [(CONTENT_RANGE, format!("bytes */{bytes}"))];
            return Ok((length, Problem::from(ArtifactError::NoSuchPart(bytes))).into_response());
        }
        found => found?.ok_or_else(unknown)?,
    };
    let last = name.rsplit('/').next().unwrap_or_default();
    // A browser must not take it for a page of this server: it is saved, whatever it is.
    let mut response = Response::builder()
        .header(CONTENT_TYPE, "application/octet-stream")
        .header(CONTENT_DISPOSITION, format!("attachment; filename*=UTF-8''{}", utf8_percent_encode(last, NON_ALPHANUMERIC)))
        .header(CONTENT_LENGTH, part.as_ref().map_or(bytes, |part| part.end - part.start))
        .header(ETAG, etag(&version))
        .header(ACCEPT_RANGES, "bytes");
    if let Some(part) = part {
        let place = format!("bytes {}-{}/{bytes}", part.start, part.end.saturating_sub(1));
        response = response.status(StatusCode::PARTIAL_CONTENT).header(CONTENT_RANGE, place);
    }
    response.body(Body::from_stream(stream)).map(IntoResponse::into_response).map_err(Problem::internal)
}

fn etag(version: &str) -> String {
    format!("\"{version}\"")
}

/// What a header `Range` (RFC 9110, 14.2) asks for. One that can't be understood, or wants several parts, is as good as none.
fn part(range: &str) -> Option<Part> {
    let (unit, range) = range.split_once('=')?;
    let (first, last) = range.split_once('-').filter(|_| unit.eq_ignore_ascii_case("bytes"))?;
    match (first, last) {
        ("", count) => Some(Part::Last(number(count)?)),
        (first, "") => Some(Part::From(number(first)?)),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some(Part::Between(first, last))
        }
    }
}

/// The version that a strong `ETag` stands for.
fn version(tag: &str) -> Option<&str> {
    tag.strip_prefix('"')?.strip_suffix('"')
}

/// Digits alone: Rust reads a sign, too.
fn number(digits: &str) -> Option<u64> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

impl From<ArtifactError> for Problem {
    fn from(error: ArtifactError) -> Self {
        match error {
            ArtifactError::NoSuchPart(_) => Self::new(Kind::RangeNotSatisfiable, error.to_string()),
            error => {
                tracing::warn!(%error, "artifacts can't be had");
                Self::new(Kind::Unavailable, "the storage of artifacts is not available now")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("bytes=0-0", Some(Part::Between(0, 0)))]
    #[case("Bytes=0-0", Some(Part::Between(0, 0)))]
    #[case("bytes=5-", Some(Part::From(5)))]
    #[case("bytes=-5", Some(Part::Last(5)))]
    #[case("bytes=5-4", None)]
    #[case("bytes=0-1,3-4", None)]
    #[case("bytes=", None)]
    #[case("bytes=-", None)]
    #[case("lines=0-1", None)]
    #[case("bytes=99999999999999999999-", None)]
    #[case("bytes=+1-+2", None)]
    #[case("bytes=+1-", None)]
    #[case("bytes=-+1", None)]
    fn a_range_is_one_range_of_bytes(#[case] header: &str, #[case] expected: Option<Part>) {
        assert_eq!(part(header), expected);
    }
}
