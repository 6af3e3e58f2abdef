//! `/results/summary`: counts and quantiles of results.

use std::collections::BTreeMap;

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::access::Caller;
use super::json::Json;
use super::list::List;
use super::problem::{Problem, answers};
use super::query::Query;
use super::state::States;
use super::{ApiState, example};
use crate::job::{Bound, Ending, Executor};
use crate::store::{Quantiles, Sketches, StateFilter, SummaryKey};

/// Which results are counted, and by what.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct SummaryQuery {
    /// What to count by: any of `workload`, `bound`, `executor` and `state`, with commas between. Empty for one total.
    #[serde(default)]
    #[param(value_type = Option<String>, default = "workload,bound,executor")]
    by: By,
    /// Only results of this workload.
    workload: Option<String>,
    /// Only results with this tag.
    bound: Option<Bound>,
    /// Only results of this executor.
    executor: Option<Executor>,
    /// Only results that ended like this, or in one of several ways with commas between.
    state: Option<States>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Dimension {
    Workload,
    Bound,
    Executor,
    State,
}

#[derive(Deserialize)]
#[serde(try_from = "String")]
struct By(Vec<Dimension>);

impl Default for By {
    fn default() -> Self {
        Self(vec![Dimension::Workload, Dimension::Bound, Dimension::Executor])
    }
}

impl TryFrom<String> for By {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        let dimension = |name: &str| match name {
            "workload" => Ok(Dimension::Workload),
            "bound" => Ok(Dimension::Bound),
            "executor" => Ok(Dimension::Executor),
            "state" => Ok(Dimension::State),
            _ => Err("must be names of workload, bound, executor and state with commas between"),
        };
        if text.is_empty() { Ok(Self(Vec::new())) } else { text.split(',').map(dimension).collect::<Result<_, _>>().map(Self) }
    }
}

/// What a group of results has in common, and its figures. Durations are in microseconds, each quantile at most 1 % off.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(super) struct SummaryItem {
    /// The workload's `type`, if counted by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    workload: Option<String>,
    /// The client's tag, if counted by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    bound: Option<Bound>,
    /// The executor, if counted by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    executor: Option<Executor>,
    /// How the jobs ended, if counted by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<Ending>,
    /// How many results.
    count: u64,
    /// From accepted (or due) until claimed; null if nothing was measured.
    #[schema(required)]
    queue_us: Option<Quantiles>,
    /// The work itself; null if nothing was measured.
    #[schema(required)]
    wall_us: Option<Quantiles>,
    /// CPU time; null if nothing was measured.
    #[schema(required)]
    cpu_us: Option<Quantiles>,
}

impl SummaryQuery {
    fn wants(&self, key: &SummaryKey) -> bool {
        self.workload.as_ref().is_none_or(|workload| **workload == *key.workload)
            && self.bound.is_none_or(|bound| bound == key.bound)
            && self.executor.is_none_or(|executor| executor == key.executor)
            && self.state.as_ref().is_none_or(|States(states)| states.contains(&StateFilter::Ended(key.ending)))
    }

    /// The results that are wanted, merged into groups.
    fn group(&self, summary: BTreeMap<SummaryKey, Sketches>) -> Vec<SummaryItem> {
        let by = |dimension| self.by.0.contains(&dimension);
        let mut groups = BTreeMap::new();
        if self.by.0.is_empty() {
            // A total is there even of no results.
            groups.insert((None, None, None, None), Sketches::default());
        }
        for (key, sketches) in summary.into_iter().filter(|(key, sketches)| sketches.count() > 0 && self.wants(key)) {
            let group = (
                by(Dimension::Workload).then_some(key.workload.to_string()),
                by(Dimension::Bound).then_some(key.bound),
                by(Dimension::Executor).then_some(key.executor),
                by(Dimension::State).then_some(key.ending),
            );
            groups.entry(group).or_default().merge(&sketches);
        }
        let item = |((workload, bound, executor, state), sketches): (_, Sketches)| SummaryItem {
            workload,
            bound,
            executor,
            state,
            count: sketches.count(),
            queue_us: sketches.queue().quantiles(),
            wall_us: sketches.wall().quantiles(),
            cpu_us: sketches.cpu().quantiles(),
        };
        groups.into_iter().map(item).collect()
    }
}

/// Summarise results
///
/// Counts and quantiles of queue, wall and CPU time. They are kept up to date with each result, so this takes the same time however
/// many results there are.
#[utoipa::path(
    get, path = "/results/summary", tag = "results", operation_id = "summariseResults",
    params(SummaryQuery),
    responses(
        (status = 200, description = "One item a group; the counts add up to the number of results", body = List<SummaryItem>,
            example = example::summary),
        answers::BadQuery, answers::Unavailable,
    ),
)]
pub(super) async fn get(
    State(api): State<ApiState>,
    caller: Caller,
    Query(query): Query<SummaryQuery>,
) -> Result<Json<List<SummaryItem>>, Problem> {
    query.state.iter().try_for_each(States::are_endings)?;
    let mut summary = api.dispatcher.store().summary().await?;
    summary.retain(|key, _| caller.sees(key.owner));
    Ok(Json(List::whole(query.group(summary))))
}

/// The summary of one job in each of two executors, for the example.
pub(super) fn example() -> List<SummaryItem> {
    let item = |executor, wall: u64| SummaryItem {
        workload: Some("primes".into()),
        bound: Some(Bound::Cpu),
        executor: Some(executor),
        state: None,
        count: 64,
        queue_us: Some(Quantiles { p50: 830, p90: 1_450, p99: 1_590 }),
        wall_us: Some(Quantiles { p50: wall, p90: wall + 1_300, p99: wall + 2_100 }),
        cpu_us: Some(Quantiles { p50: wall - 200, p90: wall + 900, p99: wall + 1_400 }),
    };
    List::whole([item(Executor::Threads, 23_040), item(Executor::Processes, 23_300)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Timing;
    use rstest::rstest;
    use serde_json::{Value, json};

    fn summary() -> BTreeMap<SummaryKey, Sketches> {
        let mut summary = BTreeMap::new();
        let mut add = |workload: &str, bound, executor, ending, count| {
            let mut sketches = Sketches::default();
            for _ in 0..count {
                sketches.add(Some(&Timing { wall_us: 100, ..Timing::default() }));
            }
            summary.insert(SummaryKey { workload: workload.into(), bound, executor, ending, owner: None }, sketches);
        };
        add("primes", Bound::Cpu, Executor::Threads, Ending::Succeeded, 3);
        add("primes", Bound::Cpu, Executor::Threads, Ending::Failed, 2);
        add("primes", Bound::Cpu, Executor::Processes, Ending::Succeeded, 1);
        add("sleep", Bound::Io, Executor::Async, Ending::Succeeded, 4);
        summary
    }

    fn items(query: &str, summary: BTreeMap<SummaryKey, Sketches>) -> Value {
        json!(serde_urlencoded::from_str::<SummaryQuery>(query).unwrap().group(summary))
    }

    #[rstest]
    #[case("", &[1, 5, 4])]
    #[case("by=", &[10])]
    #[case("by=bound", &[4, 6])]
    #[case("by=state,bound", &[4, 4, 2])]
    #[case("by=workload,bound,executor,state", &[1, 3, 2, 4])]
    #[case("by=&state=succeeded", &[8])]
    #[case("executor=threads", &[5])]
    #[case("by=state&workload=sleep&bound=io", &[4])]
    #[case("workload=image", &[])]
    fn groups_are_counted(#[case] query: &str, #[case] counts: &[u64]) {
        let items = items(query, summary());
        let mut counted: Vec<_> = items.as_array().unwrap().iter().map(|item| item["count"].as_u64().unwrap()).collect();
        let mut counts = counts.to_vec();
        counted.sort_unstable();
        counts.sort_unstable();
        assert_eq!(counted, counts);
    }

    #[test]
    fn an_item_has_what_it_is_counted_by() {
        let items = items("by=executor&bound=io", summary());
        let quantiles = json!({ "p50": 100, "p90": 100, "p99": 100 });
        let zero = json!({ "p50": 0, "p90": 0, "p99": 0 });
        assert_eq!(items, json!([{ "executor": "async", "count": 4, "queue_us": zero, "wall_us": quantiles, "cpu_us": null }]));
    }

    #[test]
    fn a_total_of_nothing_is_zero() {
        assert_eq!(items("by=", BTreeMap::new()), json!([{ "count": 0, "queue_us": null, "wall_us": null, "cpu_us": null }]));
        assert_eq!(items("", BTreeMap::new()), json!([]));
    }

    #[test]
    fn other_names_are_refused() {
        assert!(serde_urlencoded::from_str::<SummaryQuery>("by=tag").is_err());
        assert!(serde_urlencoded::from_str::<SummaryQuery>("by=bound,").is_err());
        assert!(serde_urlencoded::from_str::<SummaryQuery>("since=2026-01-31T12:00:00Z").is_err());
    }
}
