//! `/jobs/batch`: many submissions at once.

use std::fmt;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::access::Caller;
use super::json::Json;
use super::list::List;
use super::problem::{Kind, Problem, answers};
use super::state::StateName;
use super::submission::Draft;
use super::view::RouteView;
use super::{ApiState, body, example, idempotency, submission};
use crate::clock::Timestamp;
use crate::dispatch::{Catalogue, Receipt, SubmitError, Submitted, Wrong, take_long};
use crate::job::{Job, JobId, Submission};
use crate::workload::Invalid;

/// The most jobs in one batch.
const MAX_JOBS: usize = 10_000;

/// How the submissions stand in the body.
#[derive(Clone, Copy)]
enum Layout {
    Array,
    Lines,
}

/// A job of a batch, right after it was accepted.
#[derive(Serialize, ToSchema)]
pub(super) struct BatchItem {
    /// Its name for ever, a UUID of version 7.
    #[schema(value_type = String, format = "uuid")]
    id: JobId,
    /// Where it is.
    state: StateName,
    /// The executor that runs it, and why.
    route: RouteView,
    /// The submission is unique, and this job was there before it. Only if it is so.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    existing: bool,
}

impl From<&Job> for BatchItem {
    fn from(job: &Job) -> Self {
        Self { id: job.id, state: (&job.state).into(), route: job.route.into(), existing: false }
    }
}

impl From<&Submitted> for BatchItem {
    fn from(Submitted { job, existing }: &Submitted) -> Self {
        Self { existing: *existing, ..job.into() }
    }
}

/// Submit many jobs
///
/// Up to 10,000 jobs and 32 MiB, as JSON array or one submission a line. All of them are accepted, or none; `errors` of a problem then has
/// what is wrong with each, of a hundred at most, its pointers starting with the place in the batch, from 0. Of a line that is not JSON it says
/// which line of the body that is. Whether other jobs are there, by their ids in `after`, is looked at once all else is right. An
/// `Idempotency-Key` and `unique` jobs work as for a single job.
#[utoipa::path(
    post, path = "/jobs/batch", tag = "jobs", operation_id = "submitBatch",
    params(("Idempotency-Key" = Option<String>, Header, description = "A name for this request, unlike all others, such as `order-4711`", pattern = "^[!-~]{1,255}$")),
    request_body(content(
        (Vec<submission::Fields> = "application/json", example = example::batch),
        (String = "application/x-ndjson", example = example::batch_lines),
    )),
    responses(
        (status = 202, description = "All are accepted, in the order of the batch", body = List<BatchItem>, example = example::batch_items),
        answers::MalformedJson, answers::BodyTimeout, answers::TooLarge, answers::UnsupportedMediaType, answers::InvalidJob,
        answers::UnknownJob, answers::QueueFull, answers::Unavailable,
    ),
)]
pub(super) async fn submit(State(api): State<ApiState>, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let layouts = [("application/json", Layout::Array), ("application/x-ndjson", Layout::Lines)];
    let layout = body::media_type(&parts.headers, &layouts)?;
    let body = body::read(&parts.headers, body, api.bodies.clone()).await?;
    let dispatcher = api.dispatcher.clone();
    let caller = Caller::of(&parts.extensions);
    let key = idempotency::key(caller, &parts.headers, "/jobs/batch", &body)?;
    if let Some(key) = &key
        && let Some(receipt) = dispatcher.answered(key).await?
    {
        return Ok(answer(&receipt));
    }
    // A long body is not looked through twice.
    let is_long = take_long(0, body.len()) || take_long(texts(&body, layout)?.len(), 0);
    let reading = async move {
        let (now, check) = (dispatcher.store().now(), |submission| dispatcher.check(submission));
        dispatcher.functions().read(|functions| parse(&body, layout, functions, now, check)).await
    };
    let mut submissions = if is_long {
        let runtime = tokio::runtime::Handle::current();
        tokio::task::spawn_blocking(move || runtime.block_on(reading)).await.map_err(Problem::internal)??
    } else {
        reading.await?
    };
    for submission in &mut submissions {
        submission.owner = caller.0;
    }
    let receipt = api.dispatcher.submit_once(submissions, key).await.map_err(|error| match error {
        SubmitError::Invalid(wrong) => {
            Problem::all(wrong.into_iter().map(|Wrong { index, invalid }| Problem::from(invalid).within(index)))
        }
        error => error.into(),
    })?;
    Ok(answer(&receipt))
}

fn answer(receipt: &Receipt) -> Response {
    let items = List::whole(receipt.jobs.iter().map(BatchItem::from));
    idempotency::told((StatusCode::ACCEPTED, Json(items)).into_response(), receipt.replayed)
}

/// The submissions of a body, or all that is wrong with them; `check` looks at what is told of one only as it is accepted.
fn parse(
    body: &Bytes,
    layout: Layout,
    functions: &Catalogue,
    now: Timestamp,
    check: impl Fn(Box<Submission>) -> Result<(), Invalid>,
) -> Result<Vec<Box<Submission>>, Problem> {
    let texts = texts(body, layout)?;
    if texts.is_empty() {
        return Err(Invalid::new("", "a batch has at least one job").into());
    }
    if texts.len() > MAX_JOBS {
        return Err(Problem::new(Kind::TooLarge, format!("a batch has at most {MAX_JOBS} jobs")));
    }
    let draft = |Text { text, line }: Text<'_>| {
        if text.len() > submission::MAX_BYTES {
            return Err(Problem::new(Kind::TooLarge, format!("a job may have at most {} bytes", submission::MAX_BYTES)));
        }
        submission::draft(text, functions, now).map_err(|problem| match line {
            Some(line) => problem.in_body_line(line),
            None => problem,
        })
    };
    Draft::batch(texts.into_iter().map(draft).collect(), check)
}

/// The text of a submission.
struct Text<'a> {
    text: &'a [u8],
    /// Which line of the body that is, from 1, if it is one.
    line: Option<usize>,
}

/// Those of a body.
fn texts(body: &[u8], layout: Layout) -> Result<Vec<Text<'_>>, Problem> {
    match layout {
        Layout::Array => elements(body),
        Layout::Lines => Ok(lines(body)),
    }
}

/// The lines with something in them: one more than a batch may have, at the most.
fn lines(body: &[u8]) -> Vec<Text<'_>> {
    let lines = (1..).zip(body.split(|&byte| byte == b'\n'));
    let filled = lines.filter(|(_, text)| !text.trim_ascii().is_empty());
    filled.map(|(line, text)| Text { text, line: Some(line) }).take(MAX_JOBS + 1).collect()
}

/// The texts of an array's elements: one more than a batch may have, at the most.
fn elements(body: &[u8]) -> Result<Vec<Text<'_>>, Problem> {
    submission::starts_with(body, b'[', || Invalid::new("", "must be an array of jobs"))?;
    serde_json::from_slice(body).map(|Elements(texts)| texts).map_err(|error| submission::malformed(&error))
}

struct Elements<'a>(Vec<Text<'a>>);

impl<'a> Deserialize<'a> for Elements<'a> {
    fn deserialize<D: Deserializer<'a>>(deserializer: D) -> Result<Self, D::Error> {
        struct Array;

        impl<'a> Visitor<'a> for Array {
            type Value = Elements<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of jobs")
            }

            fn visit_seq<A: SeqAccess<'a>>(self, mut array: A) -> Result<Elements<'a>, A::Error> {
                let mut texts = Vec::new();
                while let Some(text) = array.next_element::<&RawValue>()? {
                    if texts.len() <= MAX_JOBS {
                        texts.push(Text { text: text.get().as_bytes(), line: None });
                    }
                }
                Ok(Elements(texts))
            }
        }

        deserializer.deserialize_seq(Array)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    const JOB: &str = r#"{"bound":"io","workload":{"type":"sleep","ms":1}}"#;

    /// What is read of a body; a workload that sleeps for -1 ms is none.
    fn read(body: &str, layout: Layout) -> Result<Vec<Box<Submission>>, Problem> {
        let check = |submission: Box<Submission>| {
            let wrong = submission.workload.json.get().contains("\"ms\":-1");
            if wrong { Err(Invalid::new("/workload/ms", "must not be less than nothing")) } else { Ok(()) }
        };
        parse(&Bytes::copy_from_slice(body.as_bytes()), layout, &Catalogue::default(), Timestamp::now(), check)
    }

    fn refused(body: &str, layout: Layout) -> Value {
        json!(read(body, layout).unwrap_err().body())
    }

    fn pointers(problem: &Value) -> Vec<&str> {
        problem["errors"].as_array().unwrap().iter().map(|fault| fault["pointer"].as_str().unwrap()).collect()
    }

    #[test]
    fn arrays_and_lines_hold_the_same() {
        let array = read(&format!(" [{JOB}, {JOB}] "), Layout::Array).unwrap();
        let lines = read(&format!("{JOB}\r\n\n{JOB}"), Layout::Lines).unwrap();
        assert_eq!((array.len(), lines.len()), (2, 2));
        assert_eq!(array[1].workload.json.get(), lines[1].workload.json.get());
    }

    #[rstest]
    #[case(Layout::Array, format!("[{JOB},{{\"bound\":\"io\"}}]"), 422, "/1/workload")]
    #[case(Layout::Array, format!("[{JOB},7]"), 422, "/1")]
    #[case(Layout::Array, "[]".into(), 422, "")]
    #[case(Layout::Array, JOB.into(), 422, "")]
    #[case(Layout::Lines, format!("{JOB}\n{{\"bound\":\"io\"}}"), 422, "/1/workload")]
    #[case(Layout::Lines, format!("{JOB}\n{{"), 400, "/1")]
    #[case(Layout::Lines, " \n".into(), 422, "")]
    #[case(Layout::Array, format!("[{{\"bound\":\"{}\"}}]", "x".repeat(submission::MAX_BYTES)), 413, "/0")]
    fn the_job_at_fault_is_pointed_at(#[case] layout: Layout, #[case] body: String, #[case] status: u16, #[case] pointer: &str) {
        let problem = refused(&body, layout);
        assert_eq!((&problem["status"], &problem["errors"][0]["pointer"]), (&json!(status), &json!(pointer)));
    }

    #[test]
    fn all_jobs_at_fault_are_pointed_at_up_to_a_hundred() {
        let wrong = JOB.replace("\"ms\":1", "\"ms\":-1");
        let few = refused(&format!("[{JOB},7,{wrong},{{}}]"), Layout::Array);
        assert_eq!(pointers(&few), ["/1", "/2/workload/ms", "/3/workload"]);
        assert_eq!(few["detail"], "/1: must be an object - and 2 more are at fault, see `errors`");
        let many = refused(&"7\n".repeat(300), Layout::Lines);
        assert_eq!((many["errors"].as_array().map(Vec::len), &many["errors"][99]["pointer"]), (Some(100), &json!("/99")));
        assert!(many["detail"].as_str().unwrap().contains("and 299 more"), "{many}");
    }

    #[rstest]
    #[case(Layout::Array)]
    #[case(Layout::Lines)]
    fn there_is_a_most(#[case] layout: Layout) {
        let body = |jobs: usize| match layout {
            Layout::Array => format!("[{}]", vec![JOB; jobs].join(",")),
            Layout::Lines => vec![JOB; jobs].join("\n"),
        };
        assert_eq!(read(&body(MAX_JOBS), layout).unwrap().len(), MAX_JOBS);
        assert_eq!(refused(&body(MAX_JOBS + 1), layout)["status"], 413);
    }

    #[test]
    fn what_is_not_json_is_malformed() {
        assert_eq!(refused(&format!("[{JOB},]"), Layout::Array)["status"], 400);
    }

    #[test]
    fn of_a_line_that_is_not_json_the_line_of_the_body_is_told() {
        let problem = refused(&format!("{JOB}\n\n{{\"bound\"\n{JOB}"), Layout::Lines);
        assert_eq!((&problem["status"], pointers(&problem)), (&json!(400), vec!["/1"]));
        assert_eq!(problem["detail"], "/1: EOF while parsing an object at line 3 column 8");
    }
}
