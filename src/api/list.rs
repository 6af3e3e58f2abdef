//! Lists of jobs: filters, pages, cursors, and whole lists a line a job.

use std::collections::BTreeSet;

use axum::body::Bytes;
use axum::http::header::{CONTENT_TYPE, LINK};
use axum::http::{HeaderMap, HeaderValue, Uri};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::stream;
use serde::{Deserialize, Serialize};
use url::form_urlencoded;
use utoipa::openapi::Ref;
use utoipa::openapi::schema::{Array, ArrayBuilder};
use utoipa::{IntoParams, ToSchema};

use super::access::Caller;
use super::format::Format;
use super::held::Held;
use super::json::Json;
use super::problem::Problem;
use super::query::REPEATED;
use super::state::States;
use super::submission::MAX_TAGS;
use super::table;
use crate::clock::Timestamp;
use crate::job::{BadOwner, Bound, Executor, FailureKind, FindingKind, FindingKinds, Job, JobId, Owner};
use crate::store::{Filter, Order, Page, StoreError, on_page};

/// How many jobs are read at once of a list that is answered whole.
const TOGETHER: usize = 1_000;

/// A page of a list.
#[derive(Serialize, ToSchema)]
pub(super) struct List<T> {
    #[schema(schema_with = items::<T>)]
    pub(super) items: Vec<T>,
    /// Where the next page begins, as the parameter `cursor`; null on the last page.
    #[schema(required)]
    pub(super) next_cursor: Option<String>,
}

/// What is on a page, by the name of what that is: derived, each list would tell all of it once more.
fn items<T: ToSchema>() -> Array {
    ArrayBuilder::new().items(Ref::from_schema_name(T::name())).description(Some("What is on this page.")).build()
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
    /// Where they are or how they ended: any of these, with commas between, such as `failed,lost`.
    pub(super) state: Option<States>,
    /// Of which kind the error is with which they ended.
    error: Option<FailureKind>,
    /// How they are tagged.
    bound: Option<Bound>,
    /// Where they run.
    executor: Option<Executor>,
    /// Their workload's `type`, such as `primes`.
    workload: Option<String>,
    /// Whose they are: the id of a key, as `GET /keys` has it in `owner`. Only administrators may ask for what is another's.
    #[param(value_type = Option<String>, pattern = "^[0-9a-f]{12}$")]
    owner: Option<Whose>,
    /// A label, as `name:value`, such as `team:search`; may be repeated, for jobs that have all of them: 16 at most, as a job has.
    #[serde(default)]
    #[param(value_type = Option<Vec<String>>)]
    tag: Labels,
    /// Accepted at this time or later (RFC 3339, such as `2026-01-31T12:00:00Z`).
    #[param(value_type = Option<String>, format = DateTime)]
    since: Option<Timestamp>,
    /// Accepted before this time (RFC 3339).
    #[param(value_type = Option<String>, format = DateTime)]
    until: Option<Timestamp>,
    /// Only what has ended with figures that speak against its tag or executor: `any`, or of one kind.
    #[param(inline)]
    advice: Option<Advice>,
    /// In which order of the ids.
    #[serde(default)]
    #[param(inline, value_type = Option<Sequence>)]
    order: Sequence,
    /// How many on a page, at most: it ends earlier where workloads and outputs are long, 8 MiB together. Without it, a page of JSON has 50;
    /// CSV and NDJSON have no pages then, but all there is.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    limit: Option<Limit>,
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

/// In which order of its ids a list is.
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

/// An owner, as people write one.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
struct Whose(Owner);

impl TryFrom<String> for Whose {
    type Error = BadOwner;

    fn try_from(digits: String) -> Result<Self, BadOwner> {
        digits.parse().map(Self)
    }
}

/// Labels that jobs have all of, each as `name:value`: one, or several.
#[derive(Clone, Default, Deserialize)]
#[serde(try_from = "OneOrSeveral")]
pub(super) struct Labels(BTreeSet<(String, String)>);

/// A label, or several.
#[derive(Deserialize, ToSchema)]
#[serde(untagged, expecting = "must be name:value, or several of that")]
pub(super) enum OneOrSeveral {
    One(String),
    Several(Vec<String>),
}

impl TryFrom<OneOrSeveral> for Labels {
    type Error = String;

    fn try_from(labels: OneOrSeveral) -> Result<Self, String> {
        let label =
            |text: &str| text.split_once(':').map(|(name, value)| (name.into(), value.into())).ok_or("must be name:value");
        let labels: Result<BTreeSet<_>, _> = match &labels {
            OneOrSeveral::One(repeated) => repeated.split(REPEATED).map(label).collect(),
            OneOrSeveral::Several(labels) => labels.iter().map(|text| label(text)).collect(),
        };
        match labels? {
            // No job has all of them, and a database would look for each.
            labels if labels.len() > MAX_TAGS => Err(format!("a job has {MAX_TAGS} labels at most")),
            labels => Ok(Self(labels)),
        }
    }
}

impl From<Labels> for Vec<(String, String)> {
    fn from(Labels(labels): Labels) -> Self {
        labels.into_iter().collect()
    }
}

/// The last job of a page, as text that means nothing to clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
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
    pub(super) fn filter(&self, caller: Caller) -> Result<Filter, Problem> {
        let asked = self.owner.map(|Whose(owner)| owner);
        if asked.is_some_and(|owner| !caller.sees(Some(owner))) {
            return Err(Problem::bad_query("owner", "only administrators may ask for what is another's"));
        }
        Ok(Filter {
            owner: asked.or(caller.0),
            states: States::of(self.state.as_ref()),
            error: self.error,
            bound: self.bound,
            executor: self.executor,
            workload: self.workload.clone(),
            tags: self.tag.clone().into(),
            since: self.since,
            until: self.until,
            findings: self.advice.map(Into::into),
        })
    }

    /// Whether it is all that passes, and no page of it.
    fn is_whole(&self, format: Format) -> bool {
        self.limit.is_none() && format != Format::Json
    }

    /// The page, and one job more, by which to see whether there is a next one.
    pub(super) fn page(&self, format: Format) -> Page {
        let order = match self.order {
            Sequence::Newest => Order::NewestFirst,
            Sequence::Oldest => Order::OldestFirst,
        };
        let limit = if self.is_whole(format) { TOGETHER } else { self.limit.unwrap_or_default().0 };
        Page { order, after: self.cursor.map(|Cursor(id)| id), limit: limit + 1 }
    }

    /// The format in which the client wants the list.
    pub(super) fn format(&self, headers: &HeaderMap) -> Result<Format, Problem> {
        self.format.map_or_else(|| Format::accepted(headers), Ok)
    }

    /// The answer: the jobs of the first `page`, and where the next one is; or the jobs of all pages, of which the others are `read` when
    /// the client has taken in those before.
    pub(super) fn answer<V: Shown, F>(
        &self,
        held: &Held,
        format: Format,
        uri: &Uri,
        (page, jobs): (Page, &[Job]),
        read: impl Fn(Page) -> F + Send + 'static,
    ) -> Result<Response, Problem>
    where
        F: Future<Output = Result<Vec<Job>, StoreError>> + Send + 'static,
    {
        let (shown, next_page) = split(page, jobs);
        let next_cursor = next_page.and_then(|next| next.after).map(Cursor).filter(|_| !self.is_whole(format));
        let mut response = match format {
            Format::Json => {
                let items = shown.iter().filter_map(V::view).collect();
                Json(List { items, next_cursor: next_cursor.map(String::from) }).into_response()
            }
            Format::Csv | Format::Ndjson if self.is_whole(format) => {
                let first = rows::<V>(format, shown, true);
                let others = stream::try_unfold(next_page, move |page| {
                    let reading = page.map(|page| (page, read(page)));
                    async move {
                        let Some((page, reading)) = reading else { return Ok(None) };
                        let jobs = reading.await?;
                        let (shown, next_page) = split(page, &jobs);
                        Ok::<_, StoreError>(Some((rows::<V>(format, shown, false), next_page)))
                    }
                });
                held.in_pieces(first, others)?.into_response()
            }
            Format::Csv | Format::Ndjson => rows::<V>(format, shown, true).into_response(),
        };
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
        Ok(linked(response, uri, next_cursor))
    }
}

/// What a list shows of a job.
pub(super) trait Shown {
    /// That.
    type View<'a>: Serialize;

    /// `None` if the list does not have it.
    fn view(job: &Job) -> Option<Self::View<'_>>;
}

/// The first `most` of what was found, and the cursor behind the last of them if there is more: who reads one more than asked for can tell.
pub(super) fn first<T, C>(mut found: Vec<T>, most: usize, cursor: impl FnOnce(&T) -> C) -> (Vec<T>, Option<C>) {
    let more = found.len() > most;
    found.truncate(most);
    let next_cursor = found.last().filter(|_| more).map(cursor);
    (found, next_cursor)
}

/// The jobs of a page, of those that were read for it, and the page behind it.
fn split(page: Page, jobs: &[Job]) -> (&[Job], Option<Page>) {
    let shown = &jobs[..on_page(page.limit - 1, jobs)];
    let last = shown.last().filter(|_| jobs.len() > shown.len());
    (shown, last.map(|last| Page { after: Some(last.id), ..page }))
}

/// Jobs in a format that has a line a job; the first ones come with what stands above them.
fn rows<V: Shown>(format: Format, jobs: &[Job], first: bool) -> Bytes {
    if format == Format::Csv { table::csv(jobs, first).into() } else { lines(jobs.iter().filter_map(V::view)).into() }
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

/// An answer with a link to the next page, if there is one.
pub(super) fn linked(mut response: Response, uri: &Uri, next_cursor: Option<Cursor>) -> Response {
    if let Some(link) = next_cursor.and_then(|cursor| next(uri, cursor)) {
        response.headers_mut().insert(LINK, link);
    }
    response
}

/// The header `Link` (RFC 8288) to the next page: the same query with another cursor.
fn next(uri: &Uri, cursor: Cursor) -> Option<HeaderValue> {
    let query = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).filter(|(name, _)| name != "cursor");
    let query =
        form_urlencoded::Serializer::new(String::new()).extend_pairs(query).append_pair("cursor", &String::from(cursor)).finish();
    format!("<{}?{query}>; rel=\"next\"", uri.path()).try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::example;
    use crate::api::query::Query;
    use crate::api::view::JobView;
    use crate::store::StateFilter;
    use rstest::rstest;
    use std::io::{Read as _, Seek as _};

    fn parse(query: &str) -> Option<ListQuery> {
        Query::parse(query).ok().map(|Query(query)| query)
    }

    #[tokio::test]
    async fn that_a_list_breaks_off_is_told_in_the_log() {
        let (mut told, log) = tempfile::tempfile().and_then(|file| Ok((file.try_clone()?, file))).unwrap();
        let _log = tracing::subscriber::set_default(tracing_subscriber::fmt().with_writer(log).finish());
        let query = parse("format=ndjson").unwrap();
        let page = Page { order: Order::NewestFirst, after: None, limit: 2 };
        let jobs = [example::accepted(), example::accepted()];
        let read = |_| std::future::ready(Err(StoreError::Unavailable("no room".into())));
        let uri = Uri::from_static("/jobs?format=ndjson");
        let response = query.answer::<JobView<'_>, _>(&Held::default(), Format::Ndjson, &uri, (page, &jobs), read);
        assert!(axum::body::to_bytes(response.unwrap().into_body(), usize::MAX).await.is_err());
        let mut lines = String::new();
        told.rewind().and_then(|()| told.read_to_string(&mut lines)).unwrap();
        assert!(lines.contains("WARN") && lines.contains("broke off") && lines.contains("no room"), "{lines}");
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
        let query = parse(
            "state=failed,queued&bound=io&executor=async&workload=http&tag=a%3Ab%3Ac&tag=d:&since=2026-01-31T12:00:00Z&limit=2",
        )
        .unwrap();
        let filter = query.filter(Caller::default()).unwrap();
        assert_eq!(filter.states, [StateFilter::Ended(crate::job::Ending::Failed), StateFilter::Queued]);
        assert_eq!(
            (filter.bound, filter.executor, filter.workload.as_deref()),
            (Some(Bound::Io), Some(Executor::Async), Some("http"))
        );
        assert_eq!(filter.tags, [("a".into(), "b:c".into()), ("d".into(), String::new())]);
        assert_eq!(filter.since.unwrap().to_string(), "2026-01-31T12:00:00.000000Z");
        let page = |query: &str| parse(query).unwrap().page(Format::Json);
        assert_eq!((query.page(Format::Csv).limit, query.page(Format::Csv).order), (3, Order::NewestFirst));
        assert_eq!((page("order=oldest").order, page("").limit), (Order::OldestFirst, 51));
    }

    #[rstest]
    #[case("limit=0")]
    #[case("limit=1001")]
    #[case("state=done")]
    #[case("state=queued,")]
    #[case("state=queued,done")]
    #[case("tag=team")]
    #[case("tag=team:search&tag=team")]
    #[case("tag=team:search%00team:other")]
    #[case("since=yesterday")]
    #[case("order=random")]
    #[case("cursor=x")]
    #[case("format=xml")]
    #[case("page=2")]
    #[case("owner=me")]
    fn other_queries_are_refused(#[case] query: &str) {
        assert!(parse(query).is_none());
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
