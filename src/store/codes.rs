//! The integers that stand for small enumerations in the database. They are there to stay: only append.

use crate::function::Kind;
use crate::job::{Bound, Choice, Ending, Executor, Form, OnFailure, Queue, Rule};
use crate::schedule::{CatchUp, Overlap, Skip};
use crate::store::{ComparisonState, StoreError};
use crate::webhook::DeliveryState;

/// A value that is stored as a small integer: its place in a fixed list.
pub(super) trait Code: Copy + PartialEq + 'static {
    const NAME: &'static str;
    const CODES: &'static [Self];

    fn code(self) -> i64 {
        // Every value is in its list, as the test below shows.
        Self::CODES.iter().position(|value| *value == self).map_or(-1, |at| i64::try_from(at).unwrap_or(-1))
    }

    fn from_code(code: i64) -> Result<Self, StoreError> {
        usize::try_from(code)
            .ok()
            .and_then(|at| Self::CODES.get(at).copied())
            .ok_or_else(|| StoreError::Corrupt(format!("{code} is no {}", Self::NAME)))
    }
}

impl Code for Bound {
    const NAME: &'static str = "bound";
    const CODES: &'static [Self] = &[Self::Io, Self::Cpu];
}

impl Code for Executor {
    const NAME: &'static str = "executor";
    const CODES: &'static [Self] = &[Self::Async, Self::Threads, Self::Processes];
}

impl Code for ComparisonState {
    const NAME: &'static str = "state of a comparison";
    const CODES: &'static [Self] = &[Self::Queued, Self::Running, Self::Finished, Self::Failed, Self::Cancelled];
}

impl Code for Choice {
    const NAME: &'static str = "choice";
    const CODES: &'static [Self] = &[Self::Auto, Self::Async, Self::Threads, Self::Processes];
}

impl Code for Queue {
    const NAME: &'static str = "queue";
    const CODES: &'static [Self] = &[
        Self::Async,
        Self::ThreadsIo,
        Self::ThreadsCpu,
        Self::Processes,
        Self::PythonAsync,
        Self::PythonThreads,
        Self::PythonProcesses,
        Self::Commands,
    ];
}

impl Code for Rule {
    const NAME: &'static str = "rule";
    const CODES: &'static [Self] = &[
        Self::Insisted,
        Self::IoAsync,
        Self::IoBlocking,
        Self::CpuThreads,
        Self::Isolated,
        Self::CpuProcesses,
        Self::Command,
        Self::MeasuredCpu,
        Self::MeasuredIo,
        Self::MeasuredHold,
        Self::Trial,
    ];
}

impl Code for Ending {
    const NAME: &'static str = "ending";
    const CODES: &'static [Self] = &[Self::Succeeded, Self::Failed, Self::Cancelled, Self::Lost];
}

impl Code for OnFailure {
    const NAME: &'static str = "rule for failed parents";
    const CODES: &'static [Self] = &Self::ALL;
}

impl Code for Form {
    const NAME: &'static str = "form";
    const CODES: &'static [Self] = &[Self::Async, Self::Blocking];
}

impl Code for Kind {
    const NAME: &'static str = "kind of content";
    const CODES: &'static [Self] = &[Self::Source, Self::Zip];
}

impl Code for CatchUp {
    const NAME: &'static str = "way to catch up";
    const CODES: &'static [Self] = &[Self::Skip, Self::Once, Self::All];
}

impl Code for Overlap {
    const NAME: &'static str = "rule of overlaps";
    const CODES: &'static [Self] = &[Self::Allow, Self::Skip, Self::Queue];
}

impl Code for Skip {
    const NAME: &'static str = "reason to skip";
    const CODES: &'static [Self] = &[Self::Overlap, Self::Full, Self::Missed];
}

impl Code for DeliveryState {
    const NAME: &'static str = "state of a delivery";
    const CODES: &'static [Self] = &[Self::Pending, Self::Delivered, Self::Failed, Self::Gone];
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_come_back<T: Code + std::fmt::Debug>(values: &[T]) {
        for value in values {
            assert_eq!(T::from_code(value.code()).unwrap(), *value);
        }
        assert!(T::from_code(99).is_err() && T::from_code(-1).is_err());
    }

    #[test]
    fn every_value_has_a_code() {
        all_come_back(&Bound::ALL);
        all_come_back(&Executor::ALL);
        all_come_back(&Queue::ALL);
        all_come_back(&Rule::ALL);
        all_come_back(&Ending::ALL);
        all_come_back(&OnFailure::ALL);
        all_come_back(&[Form::Async, Form::Blocking]);
        all_come_back(&Kind::ALL);
        all_come_back(&[CatchUp::Skip, CatchUp::Once, CatchUp::All]);
        all_come_back(&[Overlap::Allow, Overlap::Skip, Overlap::Queue]);
        all_come_back(&Skip::ALL);
        all_come_back(&[DeliveryState::Pending, DeliveryState::Delivered, DeliveryState::Failed, DeliveryState::Gone]);
        all_come_back(&[Choice::Auto, Choice::Async, Choice::Threads, Choice::Processes]);
    }
}
