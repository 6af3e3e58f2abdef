//! Looks at what a store has now: one for all who ask before it is begun, and so often at the most.

use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};
use tokio::time::Instant;

use super::StoreError;

/// The looks so far.
pub struct Looks {
    every: Duration,
    /// Held while somebody looks.
    latest: Mutex<Latest>,
}

/// The latest looks.
#[derive(Default)]
pub struct Latest {
    /// When the latest one was begun.
    begun: Option<Instant>,
    /// When the latest one was begun that has told what there is: one may be given up with the request that it is for.
    told: Option<Instant>,
    /// When the latest one failed that may do better later, and why.
    failed: Option<(Instant, String)>,
}

impl Looks {
    /// None is begun so soon after another one.
    pub fn new(every: Duration) -> Self {
        Self { every, latest: Mutex::default() }
    }

    /// Looks, unless somebody else has begun to since this was asked, and has been told. A store that is away says so after seconds: whoever
    /// waits that long hears of it with those who look, and does not wait for a look of its own.
    pub async fn look(&self, looking: impl Future<Output = Result<(), StoreError>>) -> Result<(), StoreError> {
        let asked_at = Instant::now();
        let mut latest = self.latest.lock().await;
        if latest.told.is_some_and(|begun| begun >= asked_at) {
            return Ok(());
        }
        if let Some((_, why)) = latest.failed.as_ref().filter(|(at, _)| *at > asked_at) {
            return Err(StoreError::Unavailable(why.clone()));
        }
        if let Some(due) = latest.begun.map(|begun| begun + self.every).filter(|due| *due > asked_at) {
            tokio::time::sleep_until(due).await;
        }
        let now = Instant::now();
        latest.begun = Some(now);
        let looked = looking.await;
        match &looked {
            Ok(()) => latest.told = Some(now),
            Err(error) if error.may_pass() => latest.failed = Some((Instant::now(), error.cause())),
            Err(_) => {}
        }
        looked
    }

    /// Nobody looks while this is held.
    pub async fn turn(&self) -> MutexGuard<'_, Latest> {
        self.latest.lock().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::poll;
    use std::future::{pending, ready};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::Notify;

    /// With one look behind it: the next one waits for its time.
    async fn looks() -> Looks {
        let looks = Looks::new(Duration::from_millis(200));
        looks.look(ready(Ok(()))).await.unwrap();
        looks
    }

    fn broken<T>(what: &str) -> Result<T, StoreError> {
        Err(StoreError::Corrupt(what.into()))
    }

    fn said(result: Result<(), StoreError>) -> String {
        result.unwrap_err().cause()
    }

    #[tokio::test]
    async fn one_looks_for_all_who_ask_meanwhile() {
        let looks = looks().await;
        let other = async { panic!("somebody has looked") };
        let (first, second) = tokio::join!(looks.look(ready(Ok(()))), looks.look(other));
        assert!(first.is_ok() && second.is_ok());
    }

    #[tokio::test]
    async fn one_that_fails_because_the_store_is_away_fails_for_all_who_wait() {
        let (looks, away, looked) = (Looks::new(Duration::ZERO), Notify::new(), AtomicUsize::new(0));
        let look = || {
            looks.look(async {
                looked.fetch_add(1, Ordering::SeqCst);
                away.notified().await;
                Err(StoreError::Unavailable("it is away".into()))
            })
        };
        let (mut first, mut second, mut third) = (Box::pin(look()), Box::pin(look()), Box::pin(look()));
        // The others ask when it is begun already.
        assert!(poll!(&mut first).is_pending() && poll!(&mut second).is_pending() && poll!(&mut third).is_pending());
        away.notify_one();
        let told = tokio::join!(first, second, third);
        assert_eq!([told.0, told.1, told.2].map(said), ["it is away"; 3]);
        assert_eq!(looked.load(Ordering::SeqCst), 1);
        // Who asks later looks anew.
        looks.look(ready(Ok(()))).await.unwrap();
    }

    #[tokio::test]
    async fn one_that_fails_for_good_tells_nobody_else() {
        let looks = looks().await;
        let told = tokio::join!(looks.look(ready(broken("first"))), looks.look(ready(broken("second"))));
        assert!(said(told.0).ends_with("first") && said(told.1).ends_with("second"));
    }

    #[tokio::test]
    async fn one_that_is_given_up_tells_nobody_else() {
        let (looks, begun) = (looks().await, Notify::new());
        let endless = async {
            begun.notify_one();
            pending::<Result<(), StoreError>>().await
        };
        let (mut first, mut second) = (Box::pin(looks.look(endless)), Box::pin(looks.look(ready(broken("second")))));
        assert!(poll!(&mut first).is_pending() && poll!(&mut second).is_pending());
        tokio::select! {
            _ = &mut first => panic!("it has no end"),
            () = begun.notified() => {}
        }
        drop(first);
        assert!(said(second.await).ends_with("second"));
    }
}
