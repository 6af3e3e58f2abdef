//! Small changes that go along in the writer's transactions: whatever is kept besides jobs changes this way, each kind with SQL of its own. They
//! change nothing of jobs, so whatever is next in a queue stays so.

use std::sync::{Mutex, PoisonError};

use futures_util::future::BoxFuture;
use sqlx::SqliteConnection;

use super::writer::Reply;
use crate::store::StoreError;

/// A step of the writer's transaction, with somebody who waits for what it gives.
pub(super) trait Edit: Send + Sync {
    /// Carries it out inside the transaction; perhaps more than once, if the transaction has to be tried again.
    fn carry_out<'a>(&'a self, connection: &'a mut SqliteConnection) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Tells what it gave, after the commit; or why it was not carried out.
    fn answer(self: Box<Self>, result: Result<(), StoreError>);
}

/// What a step does with what it is given.
pub(super) type Step<V, T> = for<'a> fn(&'a V, &'a mut SqliteConnection) -> BoxFuture<'a, Result<T, StoreError>>;

/// An edit that is one step.
pub(super) struct OneStep<V, T> {
    given: V,
    step: Step<V, T>,
    gave: Mutex<Option<T>>,
    reply: Reply<T>,
}

impl<V, T> OneStep<V, T> {
    pub(super) const fn new(given: V, step: Step<V, T>, reply: Reply<T>) -> Self {
        Self { given, step, gave: Mutex::new(None), reply }
    }
}

impl<V: Send + Sync, T: Send> Edit for OneStep<V, T> {
    fn carry_out<'a>(&'a self, connection: &'a mut SqliteConnection) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let gave = (self.step)(&self.given, connection).await?;
            *self.gave.lock().unwrap_or_else(PoisonError::into_inner) = Some(gave);
            Ok(())
        })
    }

    fn answer(self: Box<Self>, result: Result<(), StoreError>) {
        let gave = self.gave.into_inner().unwrap_or_else(PoisonError::into_inner);
        // What was carried out gave something.
        let answer = result.and_then(|()| gave.ok_or(StoreError::Closed));
        // Nobody may be waiting for an answer any more.
        let _ = self.reply.send(answer);
    }
}
