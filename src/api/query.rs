//! The query of a request and the id in its path, with problems where the framework has its own answers.

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use url::form_urlencoded;

use super::ApiState;
use super::access::Caller;
use super::problem::{Kind, Problem};
use crate::clock::Timestamp;
use crate::job::JobId;

/// What stands between the values of the parameter that may be repeated, once they are one.
pub(super) const REPEATED: char = '\0';

/// The query, as the struct that lists its parameters. Only `tag` may be repeated.
pub(super) struct Query<T>(pub(super) T);

impl<T: DeserializeOwned> Query<T> {
    pub(super) fn parse(query: &str) -> Result<Self, Problem> {
        // Nothing has NUL in it that can be asked for, and not every store can look for it.
        if let Some((name, _)) = form_urlencoded::parse(query.as_bytes()).find(|(_, value)| value.contains('\0')) {
            return Err(Problem::bad_query(name, "has NUL in it"));
        }
        let (tags, others): (Vec<_>, Vec<_>) = form_urlencoded::parse(query.as_bytes()).partition(|(name, _)| name == "tag");
        let tags: Vec<_> = tags.iter().map(|(_, value)| &**value).collect();
        let mut once = form_urlencoded::Serializer::new(String::new());
        if !tags.is_empty() {
            once.append_pair("tag", &tags.join(&REPEATED.to_string()));
        }
        let once = once.extend_pairs(others).finish();
        let parameters = serde_urlencoded::Deserializer::new(form_urlencoded::parse(once.as_bytes()));
        serde_path_to_error::deserialize(parameters).map(Self).map_err(|error| {
            let message = error.inner().to_string();
            // The standard library speaks of how it reads a number, not of what one is.
            let message = match message.as_str() {
                "invalid digit found in string" | "cannot parse integer from empty string" => "must be a whole number".to_owned(),
                "number too large to fit in target type" => "is too large".to_owned(),
                "invalid float literal" | "cannot parse float from empty string" => "must be a number".to_owned(),
                _ => message,
            };
            // A parameter that is unknown or repeated is named in the message only.
            let named = ["unknown field `", "duplicate field `"]
                .into_iter()
                .find_map(|start| message.strip_prefix(start)?.split_once('`').map(|(name, _)| name.to_owned()));
            let parameter = named.unwrap_or_else(|| error.path().to_string());
            let hint = if is_time_with_a_space(query, &parameter) { "; a `+` is written as `%2B` in a URL" } else { "" };
            Problem::bad_query(parameter, message.replace(" field ", " parameter ") + hint)
        })
    }
}

/// Whether a parameter would be a time if it had a plus where it has a space: of a plus, a query makes one.
fn is_time_with_a_space(query: &str, parameter: &str) -> bool {
    let is_one = |value: &str| value.contains(' ') && value.replace(' ', "+").parse::<Timestamp>().is_ok();
    form_urlencoded::parse(query.as_bytes()).any(|(name, value)| name == parameter && is_one(&value))
}

/// Refuses a query where none is looked at.
pub(super) fn refuse(query: &str) -> Result<(), Problem> {
    match form_urlencoded::parse(query.as_bytes()).next() {
        Some((name, _)) => Err(Problem::bad_query(&*name, format!("unknown parameter `{name}`, there are none here"))),
        None => Ok(()),
    }
}

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Self::parse(parts.uri.query().unwrap_or_default())
    }
}

/// The id in the path, of a job that the caller may see. What is no id is the id of no job, and so is that of somebody else's.
pub(super) struct Id(pub(super) JobId);

impl FromRequestParts<ApiState> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &ApiState) -> Result<Self, Problem> {
        let path = RawPathParams::from_request_parts(parts, api).await.map_err(|_| Problem::unknown_job("in the path"))?;
        let text = path.iter().find_map(|(name, value)| (name == "id").then_some(value)).unwrap_or_default();
        let id = text.parse().map_err(|_| Problem::unknown_job(text))?;
        // A job never changes hands, so it is enough to look before anything is done.
        if let Caller(Some(owner)) = Caller::of(&parts.extensions)
            && api.dispatcher.store().owned(owner, &[id]).await?.is_empty()
        {
            return Err(Problem::unknown_job(id));
        }
        Ok(Self(id))
    }
}

/// The name in the path, of what belongs to the job whose id is there as well.
pub(super) struct Named(pub(super) String);

impl FromRequestParts<ApiState> for Named {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &ApiState) -> Result<Self, Problem> {
        let path = RawPathParams::from_request_parts(parts, api)
            .await
            .map_err(|_| Problem::new(Kind::NotFound, "the path is not UTF-8"))?;
        let name = path.iter().find_map(|(name, value)| (name == "name").then_some(value)).unwrap_or_default();
        Ok(Self(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde::Deserialize;
    use serde_json::json;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Parameters {
        limit: Option<u8>,
        #[expect(dead_code, reason = "that it is read is enough")]
        wait: Option<f64>,
        #[expect(dead_code, reason = "that it is read is enough")]
        name: Option<String>,
        since: Option<Timestamp>,
    }

    #[test]
    fn a_query_is_read() {
        assert_eq!(Query::<Parameters>::parse("limit=%37").ok().unwrap().0.limit, Some(7));
        assert_eq!(Query::<Parameters>::parse("").ok().unwrap().0.limit, None);
    }

    #[rstest]
    #[case("limit=many", "limit")]
    #[case("limit=", "limit")]
    #[case("limit=256", "limit")]
    #[case("wait=10s", "wait")]
    #[case("wait=", "wait")]
    #[case("limit=1&limit=2", "limit")]
    #[case("limits=1", "limits")]
    #[case("name=a%00b", "name")]
    fn the_parameter_at_fault_is_named(#[case] query: &str, #[case] parameter: &str) {
        let problem = Query::<Parameters>::parse(query).err().unwrap();
        let body = serde_json::to_value(problem.body()).unwrap();
        assert_eq!((&body["status"], &body["errors"][0]["parameter"]), (&json!(400), &json!(parameter)));
        let expected = match query {
            "limit=many" | "limit=" => "must be a whole number",
            "limit=256" => "is too large",
            "wait=10s" | "wait=" => "must be a number",
            _ => return,
        };
        assert_eq!(body["errors"][0]["detail"], expected);
    }

    #[test]
    fn a_time_whose_plus_became_a_space_says_how_to_write_it() {
        let told = |query: &str| {
            Query::<Parameters>::parse(query).map(|Query(read)| read.since).map_err(|problem| problem.detail().to_owned())
        };
        assert_eq!(told("since=2026-01-01T00:00:00%2B01:00"), Ok("2025-12-31T23:00:00Z".parse().ok()));
        let hint = "since: not an RFC 3339 time, such as 2026-01-31T12:00:00Z; a `+` is written as `%2B` in a URL";
        assert_eq!(told("since=2026-01-01T00:00:00+01:00"), Err(hint.into()));
        for other in ["since=yesterday", "since=two%20days", "since=2026-01-01T00:00:00Z&limit=1+0"] {
            assert!(!told(other).unwrap_err().contains("%2B"), "{other}");
        }
    }
}
