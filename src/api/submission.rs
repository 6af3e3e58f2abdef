//! The JSON of a submission.

use std::borrow::Cow;
use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::error::Category;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa::openapi::{Object, RefOr, Schema};

use super::example;
use super::problem::{Kind, Problem};
use crate::dispatch::Catalogue;
use crate::function::Defaults;
use crate::job::{Bound, Choice, FailureKind, Retry, Spec, Submission, Tags};
use crate::workload::{Invalid, is_function};

/// The longest submission, in bytes. What waits in memory is counted in jobs, so a job may not be of any size.
pub(super) const MAX_BYTES: usize = 12 << 20;

const PRIORITIES: std::ops::RangeInclusive<i16> = -100..=100;
pub(super) const DAY_MS: u64 = 86_400_000;
const MAX_TAGS: usize = 16;
const MAX_TAG_NAME: usize = 64;
const MAX_TAG_VALUE: usize = 256;

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
    #[serde(default)]
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    tags: Tags,
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
struct Head<'a> {
    #[serde(borrow)]
    r#type: Cow<'a, str>,
}

/// Reads one submission. Its workload's parameters are not looked at, apart from `type`; but a call of a function gets what that declares,
/// and is bound to the version that declares it.
pub(super) fn parse(text: &[u8], functions: &Catalogue) -> Result<Submission, Problem> {
    let Fields { bound, workload, executor, priority, deadline_ms, isolated, retry, tags } = object(text, "")?;
    let head: Head<'_> = object(workload.get().as_bytes(), "/workload")?;
    let retry = retry.map_or_else(|| Ok(Retry::default()), |retry| object(retry.get().as_bytes(), "/retry"))?;
    if !PRIORITIES.contains(&priority) {
        return Err(Invalid::new("/priority", "must be -100 to 100").into());
    }
    if deadline_ms.is_some_and(|ms| !(1..=DAY_MS).contains(&ms)) {
        return Err(Invalid::new("/deadline_ms", format!("must be 1 to {DAY_MS}")).into());
    }
    check_retry(&retry)?;
    check_tags(&tags)?;
    let mut workload = Spec { kind: head.r#type.into_owned(), json: workload.to_owned() };
    let defaults = if is_function(&workload) {
        functions.pin(&mut workload).map_err(|invalid| invalid.within("/workload"))?.defaults
    } else {
        Defaults::default()
    };
    let bound = bound.or(defaults.bound).ok_or_else(|| Invalid::new("", "missing field `bound`"))?;
    Ok(Submission {
        bound,
        workload,
        executor: executor.unwrap_or(defaults.executor),
        priority,
        deadline: deadline_ms.map(Duration::from_millis).or(defaults.deadline),
        isolated,
        retry,
        tags,
    })
}

/// Reads an object that is found at `pointer`. The place of an error is looked for only once there is one.
fn object<'a, T: Deserialize<'a>>(text: &'a [u8], pointer: &str) -> Result<T, Problem> {
    // Otherwise an array would do for a struct, its elements taken as fields.
    starts_with(text, b'{', || Invalid::new(pointer, "must be an object"))?;
    serde_json::from_slice(text).map_err(|error| match error.classify() {
        Category::Data => locate::<T>(text, &error).within(pointer).into(),
        Category::Io | Category::Syntax | Category::Eof => malformed(&error),
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

fn check_retry(retry: &Retry) -> Result<(), Invalid> {
    if !(1..=100).contains(&retry.attempts) {
        return Err(Invalid::new("/retry/attempts", "must be 1 to 100"));
    }
    if !(1.0..=100.0).contains(&retry.factor) {
        return Err(Invalid::new("/retry/factor", "must be 1 to 100"));
    }
    for (name, ms) in [("backoff_ms", retry.backoff_ms), ("max_backoff_ms", retry.max_backoff_ms)] {
        if ms > DAY_MS {
            return Err(Invalid::new(format!("/retry/{name}"), format!("must be 0 to {DAY_MS}")));
        }
    }
    match retry.on.iter().position(|&kind| kind == FailureKind::Cancelled) {
        Some(index) => Err(Invalid::new(format!("/retry/on/{index}"), "a cancelled job is not tried again")),
        None => Ok(()),
    }
}

fn check_tags(tags: &Tags) -> Result<(), Invalid> {
    if tags.len() > MAX_TAGS {
        return Err(Invalid::new("/tags", format!("there may be {MAX_TAGS} at most")));
    }
    for (name, value) in tags {
        let at = || format!("/tags/{}", name.replace('~', "~0").replace('/', "~1"));
        if name.is_empty() || name.chars().count() > MAX_TAG_NAME || name.contains(':') {
            return Err(Invalid::new(at(), format!("a tag's name has 1 to {MAX_TAG_NAME} characters and no colon")));
        }
        if value.chars().count() > MAX_TAG_VALUE {
            return Err(Invalid::new(at(), format!("a tag's value has {MAX_TAG_VALUE} characters at most")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::response::IntoResponse;
    use rstest::rstest;

    fn refused(text: &str) -> (u16, String) {
        let problem = parse(text.as_bytes(), &Catalogue::default()).unwrap_err();
        let json = serde_json::to_value(problem.body()).unwrap();
        (problem.into_response().status().as_u16(), json["errors"][0]["pointer"].as_str().unwrap_or("-").to_owned())
    }

    #[test]
    fn a_short_one_has_defaults() {
        let submission =
            parse(br#" {"bound": "cpu", "workload": { "type": "primes", "below": 10 }} "#, &Catalogue::default()).unwrap();
        assert_eq!(submission.bound, Bound::Cpu);
        assert_eq!(submission.workload.kind, "primes");
        assert_eq!(submission.workload.json.get(), r#"{ "type": "primes", "below": 10 }"#);
        assert_eq!((submission.executor, submission.priority, submission.deadline), (Choice::Auto, 0, None));
        assert_eq!(submission.retry, Retry::default());
        assert!(submission.tags.is_empty());
    }

    #[test]
    fn everything_can_be_said() {
        let submission = parse(
            br#"{"bound":"io","workload":{"ms":5,"type":"sl\u0065ep"},"executor":"processes","priority":-7,"deadline_ms":1500,
                "retry":{"attempts":3,"on":["timeout"]},"tags":{"team":"search"}}"#,
            &Catalogue::default(),
        )
        .unwrap();
        assert_eq!(submission.workload.kind, "sleep");
        assert_eq!((submission.executor, submission.priority), (Choice::Processes, -7));
        assert_eq!(submission.deadline, Some(Duration::from_millis(1500)));
        assert_eq!(submission.retry, Retry { attempts: 3, on: vec![FailureKind::Timeout], ..Retry::default() });
        assert_eq!(submission.tags["team"], "search");
    }

    #[rstest]
    #[case("")]
    #[case("{")]
    #[case(r#"{"bound":"io",}"#)]
    #[case(r#"{"bound":"io","workload":{"type":"sleep"}} x"#)]
    #[case("[1,")]
    fn what_is_not_json_is_malformed(#[case] text: &str) {
        assert_eq!(refused(text), (400, "-".to_owned()));
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
    #[case(r#"{"bound":"io","workload":{"type":"x"},"tags":{"a":1}}"#, "/tags/a")]
    #[case(r#"{"bound":"io","workload":{"type":"x"},"tags":{"a:b":"c"}}"#, "/tags/a:b")]
    #[case(r#"{"bound":"io","workload":{"type":"x"},"tags":{"":"c"}}"#, "/tags/")]
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
