//! The header `Prefer` (RFC 7240), of which `wait` and `return=minimal` are understood; and `wait` as the queries of a `GET` have it.

use std::time::Duration;

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, Method};
use serde::Deserialize;
use utoipa::IntoParams;

use super::problem::Problem;

/// The longest that a request waits, in seconds.
const MAX_WAIT_SECONDS: u64 = 60;

/// Names what was preferred.
pub(super) const PREFER: HeaderName = HeaderName::from_static("prefer");
/// Says which preference was followed.
pub(super) const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// How long to wait for what is looked at.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct WaitQuery {
    /// Wait up to this many seconds for it to end; parts of a second count.
    #[param(minimum = 0, maximum = 60)]
    wait: Option<f64>,
}

impl WaitQuery {
    /// How long to wait at the most, if at all.
    pub(super) fn limit(self) -> Result<Option<Duration>, Problem> {
        let limit =
            |seconds| Duration::try_from_secs_f64(seconds).ok().filter(|limit| *limit <= Duration::from_secs(MAX_WAIT_SECONDS));
        let refused = || Problem::bad_query("wait", format!("must be 0 to {MAX_WAIT_SECONDS}"));
        self.wait.map(|seconds| limit(seconds).ok_or_else(refused)).transpose()
    }
}

/// Whether a request may be one that looks at something, and waits for that: its query says so, or what it prefers.
pub(super) fn looks_and_may_wait(request: &Request) -> bool {
    request.method() == Method::GET && (request.uri().query().is_some() || request.headers().contains_key(PREFER))
}

/// What a client prefers. What can't be understood is not preferred.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Preferences {
    /// How many seconds to wait for the result, at most [`MAX_WAIT_SECONDS`].
    pub(super) wait: Option<u64>,
    /// No more of a job than has to be known of it.
    pub(super) minimal: bool,
}

/// The preferences of a request. Of one that is there twice, the first counts.
pub(super) fn of(headers: &HeaderMap) -> Preferences {
    let mut preferences = Preferences::default();
    let (mut waits, mut returns) = (false, false);
    let values = headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
    let named = values.flat_map(|value| value.split(',')).filter_map(|preference| preference.split(';').next()?.split_once('='));
    for (name, value) in named {
        let (name, value) = (name.trim(), value.trim().trim_matches('"'));
        if name.eq_ignore_ascii_case("wait") && !std::mem::replace(&mut waits, true) {
            preferences.wait = value.parse().ok().map(|seconds: u64| seconds.min(MAX_WAIT_SECONDS));
        } else if name.eq_ignore_ascii_case("return") && !std::mem::replace(&mut returns, true) {
            preferences.minimal = value.eq_ignore_ascii_case("minimal");
        }
    }
    preferences
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;
    use rstest::rstest;

    #[rstest]
    #[case(&["wait=10"], Some(10), false)]
    #[case(&["respond-async, Wait = \"5\"; x=1"], Some(5), false)]
    #[case(&["return=minimal", "wait=7", "wait=9"], Some(7), true)]
    #[case(&["wait=3600"], Some(60), false)]
    #[case(&["wait=0"], Some(0), false)]
    #[case(&["wait"], None, false)]
    #[case(&["wait=soon"], None, false)]
    #[case(&["wait=-1"], None, false)]
    #[case(&["respond-async"], None, false)]
    #[case(&[], None, false)]
    #[case(&["Return = \"minimal\", return=representation"], None, true)]
    #[case(&["return=representation, return=minimal"], None, false)]
    fn the_first_of_each_counts(#[case] values: &[&'static str], #[case] wait: Option<u64>, #[case] minimal: bool) {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(PREFER, HeaderValue::from_static(value));
        }
        assert_eq!(of(&headers), Preferences { wait, minimal });
    }
}
