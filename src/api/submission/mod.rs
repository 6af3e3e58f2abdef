//! The JSON of a submission.

mod after;
mod rules;

use std::borrow::Cow;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa::openapi::{Object, RefOr, Schema};

pub(super) use self::after::{AfterFields, Draft};
pub(super) use self::rules::MAX_TAGS;

use self::rules::{
    check_lane, check_limits, check_priority, check_requires, check_retry, check_tags, check_unique, deadline, start,
};
use super::problem::{Kind, Problem};
use super::{example, webhooks};
use crate::clock::Timestamp;
use crate::dispatch::Catalogue;
use crate::function::Defaults;
use crate::job::{Bound, Choice, Concurrency, Labels, Rate, Retry, Routing, Spec, Submission, Tags, Unique, Webhook};
use crate::workload::{Invalid, depth, distinct, is_function};

/// The longest submission, in bytes. What waits in memory is counted in jobs, so a job may not be of any size.
pub(super) const MAX_BYTES: usize = 12 << 20;

pub(super) const DAY_MS: u64 = 86_400_000;

/// A job to run.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Submission, example = example::submission)]
pub(super) struct Fields<'a> {
    /// What the work does most of the time: wait (`io`) or compute (`cpu`). Only a function that declares it may go without.
    #[serde(default)]
    bound: Option<Bound>,
    /// What to run: its `type`, and the parameters of that type.
    #[serde(borrow)]
    #[schema(value_type = AnyWorkload)]
    workload: &'a RawValue,
    /// The executor to run it on; `auto` lets Trine choose. A function may declare another default than `auto`.
    #[serde(default)]
    #[schema(value_type = Choice, default = "auto")]
    executor: Option<Choice>,
    /// Higher runs first among the jobs that wait for the same executor.
    #[serde(default)]
    #[schema(minimum = -100, maximum = 100, default = 0)]
    priority: i16,
    /// The longest that one attempt may run, in milliseconds. Without it there is no limit, unless a function declares one.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 86_400_000)]
    deadline_ms: Option<u64>,
    /// Whether it must run where its crash hurts nobody else: in a worker process. Refused together with an executor that can't isolate.
    #[serde(default)]
    #[schema(default = false)]
    isolated: bool,
    /// When a failed attempt is followed by another.
    #[serde(default, borrow)]
    #[schema(value_type = Option<Retry>)]
    retry: Option<&'a RawValue>,
    /// Free labels, by which lists are filtered: at most 16, names of up to 64 characters without a colon, values of up to 256.
    #[serde(default, deserialize_with = "distinct")]
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    tags: Tags,
    /// Not to be started before this time (RFC 3339). The job is `scheduled` until then.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    run_at: Option<Timestamp>,
    /// The same as so many milliseconds from now; not together with `run_at`.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 31_536_000_000_u64)]
    delay_ms: Option<u64>,
    /// Not to be started from this time on (RFC 3339): a job that was not by then ends as `failed`, its error of the kind `expired`.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
    /// Not to be accepted while there is another one like it: with the same workload and parameters, and submitted as unique as well.
    /// The answer is then that job.
    #[serde(default, borrow)]
    #[schema(value_type = Option<Unique>)]
    unique: Option<&'a RawValue>,
    /// Whom to tell when the job has ended, by a `WebhookMessage`.
    #[serde(default, borrow)]
    #[schema(value_type = Option<webhooks::Fields>)]
    webhook: Option<&'a RawValue>,
    /// What the choice of the executor goes by: the tag alone (`declared`), the tag with what measurement would have chosen (`advise`),
    /// or what was measured of earlier runs, once there are enough (`measured`). Without it, the server's setting holds.
    #[serde(default)]
    routing: Option<Routing>,
    /// In a batch: what this job is called in `after` and `$output` of the others. Unique in the batch, up to 100 characters, and no NUL.
    #[serde(default, borrow)]
    #[schema(value_type = Option<String>)]
    name: Option<Cow<'a, str>>,
    /// The jobs that this one comes after: it is `blocked` until all of them have ended. Their outputs can be asked for anywhere in the
    /// workload's parameters, as `{"$output": "name or id", "pointer": "/count"}`.
    #[serde(default, borrow)]
    #[schema(value_type = Option<Vec<AfterFields>>)]
    after: Option<&'a RawValue>,
    /// At most so many jobs with the same key run at once.
    #[serde(default, borrow)]
    #[schema(value_type = Option<Concurrency>)]
    concurrency: Option<&'a RawValue>,
    /// At most so many jobs with the same key start within any period of that length.
    #[serde(default, borrow)]
    #[schema(value_type = Option<Rate>)]
    rate: Option<&'a RawValue>,
    /// The labels that a node must have to run the job, as values by name: 4 at most. `GET /cluster` shows those of all nodes. Where there is
    /// one server that does not have them, the job is refused; otherwise it waits for a node that has.
    #[serde(default, borrow)]
    #[schema(value_type = Option<std::collections::BTreeMap<String, String>>, example = json!({ "gpu": "a100" }))]
    requires: Option<&'a RawValue>,
}

/// Any workload that the server can run. The OpenAPI document lists them; this stands for the list until it is known.
pub(super) struct AnyWorkload;

impl utoipa::PartialSchema for AnyWorkload {
    fn schema() -> RefOr<Schema> {
        Object::new().into()
    }
}

impl ToSchema for AnyWorkload {
    fn name() -> Cow<'static, str> {
        "Workload".into()
    }
}

/// The part of a workload that every workload has.
#[derive(Deserialize)]
pub(super) struct Head<'a> {
    #[serde(borrow)]
    pub(super) r#type: Cow<'a, str>,
}

/// What a job requires of a node.
#[derive(Deserialize)]
#[serde(transparent)]
struct Required(#[serde(deserialize_with = "distinct")] Labels);

/// Reads one submission. Its workload's parameters are not looked at, apart from `type`; but a call of a function gets what that declares,
/// and is bound to the version that declares it; and a delay begins `now`.
pub(super) fn parse(text: &[u8], functions: &Catalogue, now: Timestamp) -> Result<Box<Submission>, Problem> {
    draft(text, functions, now)?.alone()
}

/// The same for one of a batch, in which jobs have names.
pub(super) fn draft(text: &[u8], functions: &Catalogue, now: Timestamp) -> Result<Draft, Problem> {
    let fields: Fields<'_> = object(text, "")?;
    let workload = fields.workload;
    // What is handed on as it is has to be fit to be read by others.
    depth::check(workload.get().as_bytes()).map_err(|invalid| invalid.within("/workload"))?;
    let head: Head<'_> = object(workload.get().as_bytes(), "/workload")?;
    let retry = fields.retry.map(|retry| object(retry.get().as_bytes(), "/retry")).transpose()?;
    let unique = fields.unique.map(|unique| object(unique.get().as_bytes(), "/unique")).transpose()?;
    let webhook = fields.webhook.map(webhook).transpose()?;
    check_priority(fields.priority)?;
    retry.as_ref().map_or(Ok(()), check_retry)?;
    check_tags(&fields.tags)?;
    unique.as_ref().map_or(Ok(()), check_unique)?;
    let concurrency = fields.concurrency.map(|limit| object(limit.get().as_bytes(), "/concurrency")).transpose()?;
    let rate = fields.rate.map(|rate| object(rate.get().as_bytes(), "/rate")).transpose()?;
    check_limits(concurrency.as_ref(), rate.as_ref())?;
    let requires = fields.requires.map(|labels| object(labels.get().as_bytes(), "/requires")).transpose()?;
    let requires = requires.map(|Required(labels)| labels).filter(|labels| !labels.is_empty());
    requires.as_ref().map_or(Ok(()), check_requires)?;
    let after = fields.after.map(after::parse).transpose()?.unwrap_or_default();
    fields.name.as_deref().map_or(Ok(()), after::check_name)?;
    let deadline = deadline(fields.deadline_ms)?;
    let run_at = start(fields.run_at, fields.delay_ms, fields.expires_at, now)?;
    let mut workload = Spec { kind: head.r#type.into_owned(), json: workload.to_owned() };
    let defaults = if is_function(&workload) {
        functions.pin(&mut workload).map_err(|invalid| invalid.within("/workload"))?.defaults
    } else {
        Defaults::default()
    };
    let bound = fields.bound.or(defaults.bound).ok_or_else(|| Invalid::new("", "missing field `bound`"))?;
    let submission = Box::new(Submission {
        executor: fields.executor.unwrap_or(defaults.executor),
        isolated: fields.isolated,
        priority: fields.priority,
        deadline: deadline.or(defaults.deadline),
        retry: retry.filter(|retry| *retry != Retry::DEFAULT).map(Arc::new),
        tags: fields.tags,
        run_at,
        expires_at: fields.expires_at,
        unique,
        webhook,
        routing: fields.routing,
        concurrency: concurrency.map(Box::new),
        rate: rate.map(Box::new),
        requires: requires.map(Box::new),
        ..Submission::new(bound, workload)
    });
    check_lane(&submission)?;
    Ok(Draft { submission, name: fields.name.map(Cow::into_owned), after })
}

/// Reads whom to tell.
fn webhook(text: &RawValue) -> Result<Box<Webhook>, Problem> {
    let fields: webhooks::Fields = object(text.get().as_bytes(), "/webhook")?;
    let webhook: Webhook = fields.try_into().map_err(|invalid: Invalid| invalid.within("/webhook"))?;
    Ok(Box::new(webhook))
}

/// Reads an object that is found at `pointer`. The place of an error is looked for only once there is one.
pub(super) fn object<'a, T: Deserialize<'a>>(text: &'a [u8], pointer: &str) -> Result<T, Problem> {
    // Otherwise an array would do for a struct, its elements taken as fields.
    starts_with(text, b'{', || Invalid::new(pointer, "must be an object"))?;
    typed(text, pointer)
}

/// Reads an array that is found at `pointer`.
fn array<'a, T: Deserialize<'a>>(text: &'a [u8], pointer: &str) -> Result<Vec<T>, Problem> {
    starts_with(text, b'[', || Invalid::new(pointer, "must be an array"))?;
    typed(text, pointer)
}

fn typed<'a, T: Deserialize<'a>>(text: &'a [u8], pointer: &str) -> Result<T, Problem> {
    serde_json::from_slice(text).map_err(|error| {
        // It is called no JSON as well if there is a number where a name should be, or one that is too large to be read.
        let is_json = || str::from_utf8(text).is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok());
        if error.is_data() || is_json() { locate::<T>(text, &error).within(pointer).into() } else { malformed(&error) }
    })
}

/// Whether the text is JSON that starts with this byte, its shape wrong otherwise.
pub(super) fn starts_with(text: &[u8], byte: u8, wrong: impl FnOnce() -> Invalid) -> Result<(), Problem> {
    if text.trim_ascii_start().first() == Some(&byte) {
        return Ok(());
    }
    serde_json::from_slice::<IgnoredAny>(text).map_err(|error| malformed(&error))?;
    Err(wrong().into())
}

/// The text is not JSON.
pub(super) fn malformed(error: &serde_json::Error) -> Problem {
    Problem::new(Kind::MalformedJson, error.to_string())
}

/// Where in the text the error is.
fn locate<'a, T: Deserialize<'a>>(text: &'a [u8], error: &serde_json::Error) -> Invalid {
    let mut json = serde_json::Deserializer::from_slice(text);
    match serde_path_to_error::deserialize::<_, T>(&mut json) {
        Err(error) => Invalid::at_path(&error),
        // The same text failed before, so this is not reached; the error is good without its place, too.
        Ok(_) => Invalid::new("", error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::job::FailureKind;
    use axum::response::IntoResponse;
    use rstest::rstest;

    fn refused(text: &str) -> (u16, String) {
        let problem = parse(text.as_bytes(), &Catalogue::default(), Timestamp::now()).unwrap_err();
        let json = serde_json::to_value(problem.body()).unwrap();
        (problem.into_response().status().as_u16(), json["errors"][0]["pointer"].as_str().unwrap_or("-").to_owned())
    }

    #[test]
    fn a_short_one_has_defaults() {
        let submission = parse(
            br#" {"bound": "cpu", "workload": { "type": "primes", "below": 10 }} "#,
            &Catalogue::default(),
            Timestamp::now(),
        )
        .unwrap();
        assert_eq!(submission.bound, Bound::Cpu);
        assert_eq!(submission.workload.kind, "primes");
        assert_eq!(submission.workload.json.get(), r#"{ "type": "primes", "below": 10 }"#);
        assert_eq!((submission.executor, submission.priority, submission.deadline), (Choice::Auto, 0, None));
        assert_eq!(submission.retry, None);
        assert!(submission.tags.is_empty());
    }

    #[test]
    fn everything_can_be_said() {
        let submission = parse(
            br#"{"bound":"io","workload":{"ms":5,"type":"sl\u0065ep"},"executor":"processes","priority":-7,"deadline_ms":1500,
                "retry":{"attempts":3,"on":["timeout"]},"tags":{"team":"search"}}"#,
            &Catalogue::default(),
            Timestamp::now(),
        )
        .unwrap();
        assert_eq!(submission.workload.kind, "sleep");
        assert_eq!((submission.executor, submission.priority), (Choice::Processes, -7));
        assert_eq!(submission.deadline, Some(Duration::from_millis(1500)));
        assert_eq!(submission.retry(), &Retry { attempts: 3, on: vec![FailureKind::Timeout].into(), ..Retry::DEFAULT });
        assert_eq!(submission.tags["team"], "search");
        let now = Timestamp::now();
        let timed = |fields: &str| {
            let text = format!(r#"{{"bound":"io","workload":{{"type":"sleep"}},{fields}}}"#);
            parse(text.as_bytes(), &Catalogue::default(), now).unwrap()
        };
        let timed_at = timed(r#""run_at":"2026-01-31T13:00:00+01:00","expires_at":"2026-02-01T00:00:00Z","unique":{}"#);
        assert_eq!(timed_at.run_at.unwrap().to_string(), "2026-01-31T12:00:00.000000Z");
        assert_eq!(timed_at.expires_at.unwrap().to_string(), "2026-02-01T00:00:00.000000Z");
        assert_eq!(timed_at.unique, Some(Unique { within_ms: None }));
        let delayed = timed(r#""delay_ms":1500,"unique":{"within_ms":60000}"#);
        assert_eq!(delayed.run_at, Some(now.after(Duration::from_millis(1500))));
        assert_eq!(delayed.unique, Some(Unique { within_ms: Some(60_000) }));
    }

    #[rstest]
    #[case("")]
    #[case("{")]
    #[case(r#"{"bound":"io",}"#)]
    #[case(r#"{"bound":"io","workload":{"type":"sleep"}} x"#)]
    #[case("[1,")]
    #[case(r#"{"bound":1"#)]
    #[case(r#"{"bound":1,}"#)]
    fn what_is_not_json_is_malformed(#[case] text: &str) {
        assert_eq!(refused(text), (400, "-".to_owned()));
    }

    #[test]
    fn what_a_job_waits_for_has_room_in_an_index() {
        let labels = |length: usize| (0..4).map(|n| (format!("label-{n}"), "x".repeat(length))).collect::<Labels>();
        let long = |required: usize| {
            let key = "\u{1f980}".repeat(200);
            let limits = format!(r#""concurrency":{{"key":"{key}","limit":1}},"rate":{{"key":"{key}","limit":1,"per_ms":1}}"#);
            let requires = serde_json::to_string(&labels(required)).unwrap();
            format!(r#"{{"bound":"io","workload":{{"type":"x"}},{limits},"requires":{requires}}}"#)
        };
        assert!(parse(long(64).as_bytes(), &Catalogue::default(), Timestamp::from_micros(0)).is_ok());
        let escaped = long(64).replace('\u{1f980}', "\\u0001");
        assert_eq!(refused(&escaped), (422, String::new()));
    }

    #[rstest]
    #[case("[]", "")]
    #[case("7", "")]
    #[case(r"{}", "/workload")]
    #[case(r#"{"workload":{"type":"x"}}"#, "/bound")]
    #[case(r#"{"workload":{"type":"function","name":"f"}}"#, "/workload/name")]
    #[case(r#"{"workload":{"type":"function"}}"#, "/workload/name")]
    #[case(r#"{"bound":"io"}"#, "/workload")]
    #[case(r#"{"bound":"gpu","workload":{"type":"x"}}"#, "/bound")]
    #[case(r#"{"bound":1,"workload":{"type":"x"}}"#, "/bound")]
    #[case(r#"{"bound":["io"],"workload":{"type":"x"}}"#, "/bound")]
    #[case(r#"{"bound":"io","workload":{"type":"x"},"routing":false}"#, "/routing")]
    #[case(r#"{"bound":"io","workload":{"type":"x"},"retry":{"on":["error",1]}}"#, "/retry/on/1")]
    #[case(r#"{"bound":"io","workload":{"type":"x"},"after":[{"name":"a","on_failure":1}]}"#, "/after/0/on_failure")]
    #[case(r#"{"bound":"io","workload":{"type":"x"},"retry":{"factor":1e999}}"#, "/retry/factor")]
    #[case(r#"{"bound":"io","workload":{"type":"\ud800"}}"#, "/workload/type")]
    #[case(r#"{"bound":"io","bound":"io","workload":{"type":"x"}}"#, "/bound")]
    #[case(r#"{"bound":"io","workload":"x"}"#, "/workload")]
    #[case(r#"{"bound":"io","workload":["x"]}"#, "/workload")]
    #[case(r#"{"bound":"io","workload":{}}"#, "/workload/type")]
    #[case(r#"{"bound":"io","workload":{"type":7}}"#, "/workload/type")]
    #[case(r#"{"bound":"io","workload":{"type":"x"},"colour":1}"#, "/colour")]
    #[case(r#"{"bound":"io","workload":{"type":"x"},"executor":"fast"}"#, "/executor")]
    #[case(r#"{"bound":"io","workload":{"type":"x"},"priority":101}"#, "/priority")]
    #[case(r#"{"bound":"io","workload":{"type":"x"},"priority":1.5}"#, "/priority")]
    #[case(r#"{"bound":"io","workload":{"type":"x"},"deadline_ms":0}"#, "/deadline_ms")]
    #[case(r#"{"bound":"io","workload":{"type":"x"},"deadline_ms":86400001}"#, "/deadline_ms")]
    #[case(r#"{"bound":"io","workload":{"type":"x"},"retry":3}"#, "/retry")]
    #[case(r#"{"bound":"io","workload":{"type":"x"},"retry":{"attempts":0}}"#, "/retry/attempts")]
    #[case(r#"{"bound":"io","workload":{"type":"x"},"retry":{"attempts":"3"}}"#, "/retry/attempts")]
    #[case(r#"{"bound":"io","workload":{"type":"x"},"retry":{"factor":0.5}}"#, "/retry/factor")]
    #[case(r#"{"bound":"io","workload":{"type":"x"},"retry":{"backoff_ms":90000000}}"#, "/retry/backoff_ms")]
    #[case(r#"{"bound":"io","workload":{"type":"x"},"retry":{"tries":3}}"#, "/retry/tries")]
    #[case(r#"{"bound":"io","workload":{"type":"x"},"retry":{"on":["error","bored"]}}"#, "/retry/on/1")]
    #[case(r#"{"bound":"io","workload":{"type":"x"},"retry":{"on":["cancelled"]}}"#, "/retry/on/0")]
    #[case(r#"{"bound":"io","workload":{"type":"x"},"retry":{"on":["error","expired"]}}"#, "/retry/on/1")]
    #[case(r#"{"bound":"io","workload":{"type":"x"},"retry":{"on":["error","timeout","error"]}}"#, "/retry/on/2")]
    #[case(r#"{"bound":"io","workload":{"type":"x"},"run_at":"tomorrow"}"#, "/run_at")]
    #[case(r#"{"bound":"io","workload":{"type":"x"},"run_at":1}"#, "/run_at")]
    #[case(r#"{"bound":"io","workload":{"type":"x"},"delay_ms":-1}"#, "/delay_ms")]
    #[case(r#"{"bound":"io","workload":{"type":"x"},"delay_ms":31536000001}"#, "/delay_ms")]
    #[case(r#"{"bound":"io","workload":{"type":"x"},"delay_ms":1,"run_at":"2026-01-31T12:00:00Z"}"#, "/delay_ms")]
    #[case(r#"{"bound":"io","workload":{"type":"x"},"expires_at":"soon"}"#, "/expires_at")]
    #[case(
        r#"{"bound":"io","workload":{"type":"x"},"run_at":"2026-01-31T12:00:00Z","expires_at":"2026-01-31T12:00:00Z"}"#,
        "/expires_at"
    )]
    #[case(r#"{"bound":"io","workload":{"type":"x"},"delay_ms":1000,"expires_at":"2026-01-31T12:00:00Z"}"#, "/expires_at")]
    #[case(r#"{"bound":"io","workload":{"type":"x"},"unique":true}"#, "/unique")]
    #[case(r#"{"bound":"io","workload":{"type":"x"},"unique":{"within_ms":0}}"#, "/unique/within_ms")]
    #[case(r#"{"bound":"io","workload":{"type":"x"},"unique":{"within":5}}"#, "/unique/within")]
    #[case(r#"{"bound":"io","workload":{"type":"x"},"tags":{"a":1}}"#, "/tags/a")]
    #[case(r#"{"bound":"io","workload":{"type":"x"},"tags":{"a:b":"c"}}"#, "/tags/a:b")]
    #[case(r#"{"bound":"io","workload":{"type":"x"},"tags":{"":"c"}}"#, "/tags/")]
    #[case(r#"{"bound":"io","workload":{"type":"x"},"tags":{"a":"b","a":"b"}}"#, "/tags/a")]
    #[case(r#"{"bound":"io","workload":{"type":"x"},"requires":{"a/b":"c","a/b":"d"}}"#, "/requires/a~1b")]
    fn what_is_wrong_is_pointed_at(#[case] text: &str, #[case] pointer: &str) {
        assert_eq!(refused(text), (422, pointer.to_owned()));
    }

    #[test]
    fn tags_have_limits() {
        let tagged = |tags: Tags| {
            let tags = serde_json::to_string(&tags).unwrap();
            refused(&format!(r#"{{"bound":"io","workload":{{"type":"x"}},"tags":{tags}}}"#))
        };
        let many = (0..17).map(|n| (n.to_string(), String::new())).collect();
        assert_eq!(tagged(many), (422, "/tags".to_owned()));
        assert_eq!(tagged(Tags::from([("a/b".into(), "x".repeat(257))])), (422, "/tags/a~1b".to_owned()));
        let long = "n".repeat(65);
        assert_eq!(tagged(Tags::from([(long.clone(), String::new())])), (422, format!("/tags/{long}")));
    }
}
