//! Looks for what is not known here: a few times a second, and once for all who ask meanwhile.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

/// How often it is looked: a guess must not make the database work.
const EVERY: Duration = Duration::from_millis(200);

/// The looks so far. Held while somebody looks.
#[derive(Default)]
pub(super) struct Looks(Mutex<Latest>);

#[derive(Default)]
struct Latest {
    /// When the latest look was begun.
    begun: Option<Instant>,
    /// When the latest one was begun that has told what there is: one may fail, or be given up with the request that it is for.
    told: Option<Instant>,
}

impl Looks {
    /// Looks, unless somebody else has begun to since this was asked, and has been told.
    pub(super) async fn look<E>(&self, looking: impl Future<Output = Result<(), E>>) -> Result<(), E> {
        let asked_at = Instant::now();
        let mut latest = self.0.lock().await;
        if latest.told.is_none_or(|begun| begun < asked_at) {
            if let Some(begun) = latest.begun {
                tokio::time::sleep_until(begun + EVERY).await;
            }
            let now = Instant::now();
            latest.begun = Some(now);
            looking.await?;
            latest.told = Some(now);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::poll;
    use std::future::{pending, ready};
    use tokio::sync::Notify;

    /// With one look behind it: the next one waits for its time.
    async fn looks() -> Looks {
        let looks = Looks::default();
        looks.look(ready(Ok::<_, ()>(()))).await.unwrap();
        looks
    }

    #[tokio::test]
    async fn one_looks_for_all_who_ask_meanwhile() {
        let looks = looks().await;
        let other = async { panic!("somebody has looked") };
        let told = tokio::join!(looks.look(ready(Ok::<_, ()>(()))), looks.look::<()>(other));
        assert_eq!(told, (Ok(()), Ok(())));
    }

    #[tokio::test]
    async fn one_that_fails_tells_nobody_else() {
        let looks = looks().await;
        let told = tokio::join!(looks.look(ready(Err("first"))), looks.look(ready(Err("second"))));
        assert_eq!(told, (Err("first"), Err("second")));
    }

    #[tokio::test]
    async fn one_that_is_given_up_tells_nobody_else() {
        let (looks, begun) = (looks().await, Notify::new());
        let endless = async {
            begun.notify_one();
            pending::<Result<(), &str>>().await
        };
        let (mut first, mut second) = (Box::pin(looks.look(endless)), Box::pin(looks.look(ready(Err("second")))));
        assert!(poll!(&mut first).is_pending() && poll!(&mut second).is_pending());
        tokio::select! {
            _ = &mut first => panic!("it has no end"),
            () = begun.notified() => {}
        }
        drop(first);
        assert_eq!(second.await, Err("second"));
    }
}
