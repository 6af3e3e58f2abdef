//! `/limits`: the limits that jobs share by a key.

use axum::extract::State;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::json::Json;
use super::list::{Limit, List, first};
use super::problem::{Problem, answers};
use super::query::Query;
use super::{ApiState, example};
use crate::clock::Timestamp;
use crate::job::{Concurrency, Rate};
use crate::store::{LimitKey, LimitStatus};

/// A limit, as far as jobs with its key run, wait or have started lately.
#[derive(Serialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[schema(as = Limit)]
pub(super) enum LimitView {
    /// How many run at once.
    Concurrency {
        /// The key.
        key: String,
        /// How many may run: the limit of the next of them.
        limit: u32,
        /// How many run.
        running: u64,
        /// How many are queued; 100,000 stands for more.
        waiting: u64,
    },
    /// How many start within a period.
    Rate {
        /// The key.
        key: String,
        /// How many may start within a period: the limit of the next of them.
        limit: u32,
        /// The period, in milliseconds.
        per_ms: u64,
        /// How many have started within the last period.
        started: u64,
        /// How many are queued; 100,000 stands for more.
        waiting: u64,
        /// When the next one may start; null if it may now.
        #[schema(required, value_type = Option<String>, format = DateTime)]
        opens_at: Option<Timestamp>,
    },
}

impl From<LimitStatus> for LimitView {
    fn from(status: LimitStatus) -> Self {
        match status {
            LimitStatus::Concurrency { limit: Concurrency { key, limit }, running, waiting } => {
                Self::Concurrency { key, limit, running, waiting }
            }
            LimitStatus::Rate { limit: Rate { key, limit, per_ms }, started, waiting, opens_at } => {
                Self::Rate { key, limit, per_ms, started, waiting, opens_at }
            }
        }
    }
}

/// Which page of the limits.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct LimitQuery {
    /// How many on a page.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000, default = 50)]
    limit: Limit,
    /// The `next_cursor` of the page before.
    #[param(value_type = Option<String>)]
    cursor: Option<LimitCursor>,
}

/// The last limit of a page, as text that means nothing to clients.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
struct LimitCursor(LimitKey);

impl From<LimitCursor> for String {
    fn from(LimitCursor(key): LimitCursor) -> Self {
        URL_SAFE_NO_PAD.encode(match key {
            LimitKey::Concurrency(key) => format!("c{key}"),
            LimitKey::Rate(key) => format!("r{key}"),
        })
    }
}

impl TryFrom<String> for LimitCursor {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        let text = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let text = text.filter(|text| !text.contains('\0')).unwrap_or_default();
        if let Some(key) = text.strip_prefix('c') {
            Ok(Self(LimitKey::Concurrency(key.into())))
        } else if let Some(key) = text.strip_prefix('r') {
            Ok(Self(LimitKey::Rate(key.into())))
        } else {
            Err("must be the next_cursor of a page")
        }
    }
}

/// List limits
///
/// The keys of `concurrency` with which jobs run or are queued, and those of `rate` with which jobs are queued or have started lately:
/// first the ones, then the others, each by key.
#[utoipa::path(
    get, path = "/limits", tag = "service", operation_id = "listLimits",
    params(LimitQuery),
    responses(
        (status = 200, description = "A page of limits", body = List<LimitView>, example = example::limits),
        answers::BadQuery, answers::Unavailable,
    ),
)]
pub(super) async fn list(State(api): State<ApiState>, Query(query): Query<LimitQuery>) -> Result<Json<List<LimitView>>, Problem> {
    let Limit(most) = query.limit;
    let after = query.cursor.as_ref().map(|LimitCursor(key)| key);
    let found = api.dispatcher.store().limits(after, most + 1).await?;
    let (limits, next_cursor) = first(found, most, |last| String::from(LimitCursor(last.key())));
    Ok(Json(List { items: limits.into_iter().map(Into::into).collect(), next_cursor }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back() {
        for key in [LimitKey::Concurrency("a/ü".into()), LimitKey::Rate("c".into())] {
            let cursor = LimitCursor(key);
            assert_eq!(LimitCursor::try_from(String::from(cursor.clone())), Ok(cursor));
        }
        assert!(LimitCursor::try_from("x".to_owned()).is_err());
        assert!(LimitCursor::try_from(String::new()).is_err());
    }
}
