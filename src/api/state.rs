//! Where jobs are and how they ended, as clients name it.

use serde::de::IntoDeserializer as _;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::problem::Problem;
use crate::job::{Ending, State};
use crate::store::StateFilter;

/// Where a job is or, once it has ended, how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = State)]
pub(super) enum StateName {
    /// It waits for its time.
    Scheduled,
    /// It waits for other jobs to end.
    Blocked,
    /// It waits for its executor.
    Queued,
    /// An attempt runs.
    Running,
    /// It returned an output.
    Succeeded,
    /// It failed, and its retry rule allows no further attempt.
    Failed,
    /// A client cancelled it.
    Cancelled,
    /// What ran it died too often.
    Lost,
}

impl From<&State> for StateName {
    fn from(state: &State) -> Self {
        StateFilter::of(state).into()
    }
}

impl From<Ending> for StateName {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::Succeeded => Self::Succeeded,
            Ending::Failed => Self::Failed,
            Ending::Cancelled => Self::Cancelled,
            Ending::Lost => Self::Lost,
        }
    }
}

impl From<StateFilter> for StateName {
    fn from(state: StateFilter) -> Self {
        match state {
            StateFilter::Scheduled => Self::Scheduled,
            StateFilter::Blocked => Self::Blocked,
            StateFilter::Queued => Self::Queued,
            StateFilter::Running => Self::Running,
            StateFilter::Ended(ending) => ending.into(),
        }
    }
}

impl From<StateName> for StateFilter {
    fn from(state: StateName) -> Self {
        match state {
            StateName::Scheduled => Self::Scheduled,
            StateName::Blocked => Self::Blocked,
            StateName::Queued => Self::Queued,
            StateName::Running => Self::Running,
            StateName::Succeeded => Self::Ended(Ending::Succeeded),
            StateName::Failed => Self::Ended(Ending::Failed),
            StateName::Cancelled => Self::Ended(Ending::Cancelled),
            StateName::Lost => Self::Ended(Ending::Lost),
        }
    }
}

/// Where jobs are or how they ended: a state, or several with commas between, any of which will do.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(try_from = "String")]
#[schema(
    value_type = String,
    pattern = "^(scheduled|blocked|queued|running|succeeded|failed|cancelled|lost)(,(scheduled|blocked|queued|running|succeeded|failed|cancelled|lost))*$"
)]
pub(super) struct States(pub(super) Vec<StateFilter>);

impl TryFrom<String> for States {
    type Error = serde::de::value::Error;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let state = |name: &str| StateName::deserialize(name.into_deserializer()).map(StateFilter::from);
        text.split(',').map(state).collect::<Result<_, _>>().map(Self)
    }
}

impl States {
    /// Those of a query that may have none.
    pub(super) fn of(states: Option<&Self>) -> Vec<StateFilter> {
        states.map(|Self(states)| states.clone()).unwrap_or_default()
    }

    /// That results can be in all of them.
    pub(super) fn are_endings(&self) -> Result<(), Problem> {
        let ended = self.0.iter().all(|state| matches!(state, StateFilter::Ended(_)));
        ended.then_some(()).ok_or_else(|| Problem::bad_query("state", "a result is succeeded, failed, cancelled or lost"))
    }

    /// That events can leave a job in each of them.
    pub(super) fn are_told(&self) -> Result<(), Problem> {
        let told = !self.0.contains(&StateFilter::Blocked);
        told.then_some(()).ok_or_else(|| Problem::bad_query("state", "no event leaves a job blocked: accepted counts as queued"))
    }
}
