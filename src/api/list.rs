//! Lists of jobs: filters, pages, cursors.

use axum::http::header::{CONTENT_TYPE, LINK};
use axum::http::{HeaderMap, HeaderValue, Uri};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use url::form_urlencoded;
use utoipa::{IntoParams, ToSchema};

use super::access::Caller;
use super::format::Format;
use super::json::Json;
use super::problem::Problem;
use super::table;
use super::view::StateName;
use crate::clock::Timestamp;
use crate::job::{Bound, Executor, FailureKind, FindingKind, FindingKinds, Job, JobId};
use crate::store::{Filter, Order, Page, on_page};

/// A page of a list.
#[derive(Serialize, ToSchema)]
pub(super) struct List<T> {
    /// What is on this page.
    pub(super) items: Vec<T>,
    /// Where the next page begins, as the parameter `cursor`; null on the last page.
    #[schema(required)]
    pub(super) next_cursor: Option<String>,
}

impl<T> List<T> {
    /// A list that always fits on one page.
    pub(super) fn whole(items: impl IntoIterator<Item = T>) -> Self {
        Self { items: items.into_iter().collect(), next_cursor: None }
    }
}

/// Which jobs a list holds, in which order, and how it is answered.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// Where they are or how they ended.
    #[param(example = "succeeded")]
    pub(super) state: Option<StateName>,
    /// Of which kind the error is with which they ended.
    #[param(example = "timeout")]
    error: Option<FailureKind>,
    /// How they are tagged.
    bound: Option<Bound>,
    /// Where they run.
    executor: Option<Executor>,
    /// Their workload's `type`.
    #[param(example = "primes")]
    workload: Option<String>,
    /// A label, as `name:value`.
    #[param(value_type = Option<String>, pattern = ":", example = "team:search")]
    tag: Option<Label>,
    /// Accepted at this time or later (RFC 3339).
    #[param(value_type = Option<String>, format = DateTime, example = "2026-01-31T12:00:00Z")]
    since: Option<Timestamp>,
    /// Accepted before this time (RFC 3339).
    #[param(value_type = Option<String>, format = DateTime, example = "2026-02-01T00:00:00Z")]
    until: Option<Timestamp>,
    /// Only what has ended with figures that speak against its tag or executor: `any`, or of one kind.
    #[param(inline)]
    advice: Option<Advice>,
    /// In which order of acceptance.
    #[serde(default)]
    #[param(inline, value_type = Option<Sequence>)]
    order: Sequence,
    /// How many on a page, at most: it ends earlier where workloads and outputs are long, 8 MiB together.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000, default = 50)]
    limit: Limit,
    /// The `next_cursor` of the page before.
    #[param(value_type = Option<String>, pattern = "^[A-Za-z0-9_-]{8}[c-f][A-Za-z0-9_-]{12}[AQgw]$")]
    cursor: Option<Cursor>,
    /// The format, where the header `Accept` can't be set.
    #[param(inline)]
    format: Option<Format>,
}

/// What a job's figures by themselves can speak against.
#[derive(Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Advice {
    /// Any of these.
    Any,
    /// Tagged `io`, but it computed.
    Computes,
    /// Tagged `cpu`, but it waited.
    Waits,
    /// It held the event loop.
    HeldLoop,
}

impl From<Advice> for FindingKinds {
    fn from(advice: Advice) -> Self {
        match advice {
            Advice::Any => FindingKind::ALL.into_iter().collect(),
            Advice::Computes => FindingKind::Computes.into(),
            Advice::Waits => FindingKind::Waits.into(),
            Advice::HeldLoop => FindingKind::HeldLoop.into(),
        }
    }
}

/// In which order of acceptance a list is.
#[derive(Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Sequence {
    /// The latest first.
    #[default]
    Newest,
    /// The earliest first.
    Oldest,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "usize")]
pub(super) struct Limit(pub(super) usize);

impl Default for Limit {
    fn default() -> Self {
        Self(50)
    }
}

impl TryFrom<usize> for Limit {
    type Error = &'static str;

    fn try_from(limit: usize) -> Result<Self, &'static str> {
        (1..=1000).contains(&limit).then_some(Self(limit)).ok_or("must be 1 to 1000")
    }
}

#[derive(Clone, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Label(pub(super) String, pub(super) String);

impl TryFrom<String> for Label {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        text.split_once(':').map(|(name, value)| Self(name.into(), value.into())).ok_or("must be name:value")
    }
}

/// The last job of a page, as text that means nothing to clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct Cursor(JobId);

impl Cursor {
    /// The page behind this job.
    pub(super) const fn after(id: JobId) -> Self {
        Self(id)
    }

    /// The page behind what has this id, of whatever kind.
    pub(super) const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(JobId::from_bytes(bytes))
    }

    /// The id that the page is behind.
    pub(super) const fn bytes(self) -> [u8; 16] {
        *self.0.as_bytes()
    }
}

impl From<Cursor> for String {
    fn from(Cursor(id): Cursor) -> Self {
        URL_SAFE_NO_PAD.encode(id.as_bytes())
    }
}

impl TryFrom<String> for Cursor {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
        // An id is a UUID of version 7; other bytes never came from here.
        let id = bytes.filter(|bytes| bytes[6] >> 4 == 7).map(JobId::from_bytes);
        id.map(Self).ok_or("must be the next_cursor of a page")
    }
}

impl ListQuery {
    /// The conditions, of a request by this caller.
    pub(super) fn filter(&self, Caller(owner): Caller) -> Filter {
        Filter {
            owner,
            state: self.state.map(Into::into),
            error: self.error,
            bound: self.bound,
            executor: self.executor,
            workload: self.workload.clone(),
            tag: self.tag.clone().map(|Label(name, value)| (name, value)),
            since: self.since,
            until: self.until,
            findings: self.advice.map(Into::into),
        }
    }

    /// The page, and one job more, by which to see whether there is a next one.
    pub(super) fn page(&self) -> Page {
        let order = match self.order {
            Sequence::Newest => Order::NewestFirst,
            Sequence::Oldest => Order::OldestFirst,
        };
        Page { order, after: self.cursor.map(|Cursor(id)| id), limit: self.limit.0 + 1 }
    }

    /// The format in which the client wants the list.
    pub(super) fn format(&self, headers: &HeaderMap) -> Result<Format, Problem> {
        self.format.map_or_else(|| Format::accepted(headers), Ok)
    }

    /// The answer: the jobs of the page as `view` shows them, and where the next page is.
    pub(super) fn answer<'a, V: Serialize>(
        &self,
        format: Format,
        uri: &Uri,
        jobs: &'a [Job],
        view: impl Fn(&'a Job) -> Option<V>,
    ) -> Response {
        let page = &jobs[..on_page(self.limit.0, jobs)];
        let next_cursor = page.last().filter(|_| jobs.len() > page.len()).map(|last| Cursor(last.id));
        let items = page.iter().filter_map(view);
        let mut response = match format {
            Format::Json => Json(List { items: items.collect(), next_cursor: next_cursor.map(String::from) }).into_response(),
            Format::Ndjson => lines(items).into_response(),
            Format::Csv => table::csv(page).into_response(),
        };
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
        if let Some(link) = next_cursor.and_then(|cursor| next(uri, cursor)) {
            response.headers_mut().insert(LINK, link);
        }
        response
    }
}

/// One JSON object a line.
fn lines(items: impl Iterator<Item = impl Serialize>) -> Vec<u8> {
    let mut lines = Vec::new();
    for item in items {
        let start = lines.len();
        // Writing to memory does not fail, and views have text as names.
        let _ = serde_json::to_writer(&mut lines, &item);
        // A workload is kept as it was sent. Line breaks in it stand between values, never within: there JSON has them escaped.
        for byte in lines[start..].iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')) {
            *byte = b' ';
        }
        lines.push(b'\n');
    }
    lines
}

/// The header `Link` (RFC 8288) to the next page: the same query with another cursor.
pub(super) fn next(uri: &Uri, cursor: Cursor) -> Option<HeaderValue> {
    let query = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).filter(|(name, _)| name != "cursor");
    let query =
        form_urlencoded::Serializer::new(String::new()).extend_pairs(query).append_pair("cursor", &String::from(cursor)).finish();
    format!("<{}?{query}>; rel=\"next\"", uri.path()).try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StateFilter;
    use rstest::rstest;

    fn parse(query: &str) -> Result<ListQuery, serde_urlencoded::de::Error> {
        serde_urlencoded::from_str(query)
    }

    #[test]
    fn a_cursor_comes_back() {
        let id = JobId::new();
        let text = String::from(Cursor(id));
        assert_eq!(text.len(), 22);
        assert_eq!(Cursor::try_from(text), Ok(Cursor(id)));
    }

    #[rstest]
    #[case("")]
    #[case("x")]
    #[case("not a cursor")]
    #[case("AAAAAAAAAAAAAAAAAAAAAA")]
    #[case("AZwT7J4AcACAAAAAAAAAAQAA")]
    fn another_text_is_no_cursor(#[case] text: &str) {
        assert!(Cursor::try_from(text.to_owned()).is_err());
    }

    #[test]
    fn filters_are_read() {
        let query =
            parse("state=failed&bound=io&executor=async&workload=http&tag=a%3Ab%3Ac&since=2026-01-31T12:00:00Z&limit=2").unwrap();
        let filter = query.filter(Caller::default());
        assert_eq!(filter.state, Some(StateFilter::Ended(crate::job::Ending::Failed)));
        assert_eq!(
            (filter.bound, filter.executor, filter.workload.as_deref()),
            (Some(Bound::Io), Some(Executor::Async), Some("http"))
        );
        assert_eq!(filter.tag, Some(("a".into(), "b:c".into())));
        assert_eq!(filter.since.unwrap().to_string(), "2026-01-31T12:00:00.000000Z");
        assert_eq!((query.page().limit, query.page().order), (3, Order::NewestFirst));
        assert_eq!(parse("order=oldest").unwrap().page().order, Order::OldestFirst);
        assert_eq!(parse("").unwrap().page().limit, 51);
    }

    #[rstest]
    #[case("limit=0")]
    #[case("limit=1001")]
    #[case("state=done")]
    #[case("tag=team")]
    #[case("since=yesterday")]
    #[case("order=random")]
    #[case("cursor=x")]
    #[case("format=xml")]
    #[case("page=2")]
    fn other_queries_are_refused(#[case] query: &str) {
        assert!(parse(query).is_err());
    }

    #[test]
    fn the_link_keeps_the_query() {
        let cursor = Cursor::try_from("AZwT7J4AcACAAAAAAAAAAQ".to_owned()).unwrap();
        let uri = Uri::from_static("/results?tag=a%3Ab&cursor=old&limit=2");
        assert_eq!(next(&uri, cursor).unwrap(), "</results?tag=a%3Ab&limit=2&cursor=AZwT7J4AcACAAAAAAAAAAQ>; rel=\"next\"");
    }

    #[test]
    fn a_line_break_in_a_workload_breaks_no_line() {
        let raw = serde_json::value::RawValue::from_string("{\r\n \"a\": \"b\\n\"\n}".into()).unwrap();
        assert_eq!(lines([raw].iter()), b"{   \"a\": \"b\\n\" }\n");
    }
}
