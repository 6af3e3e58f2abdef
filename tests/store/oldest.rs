//! How long jobs have been waiting for a slot.

use std::time::Duration;

use trine::job::Queue;

use crate::limits::limited;
use crate::{Place, accept, apart, claim_one, io_job, settle, succeeded, with_priority};

crate::for_every_driver!(what_waits_for_a_slot_grows_older);

async fn what_waits_for_a_slot_grows_older(place: impl Place) {
    place.clock().stop();
    let store = place.open().await;
    let ages = async || {
        let oldest = store.oldest().await.unwrap();
        // Moments are some microseconds apart though the clock stands still.
        let seconds = |queue: Queue| (oldest[queue as usize] + Duration::from_millis(500)).as_secs();
        (seconds(Queue::Async), seconds(Queue::Processes))
    };
    assert_eq!(ages().await, (0, 0));
    // What does not wait for a slot: a time, and a limit that is used up.
    let mut later = io_job();
    later.submission.run_at = Some(trine::clock::Clock::now(place.clock()).after(Duration::from_secs(3_600)));
    accept(&store, &[later, apart(limited("k", 1)), apart(limited("k", 1))]).await;
    let holds = store.claim(Queue::Processes, 1).await.unwrap();
    accept(&store, &[io_job()]).await;
    place.clock().advance(Duration::from_secs(10));
    assert_eq!(ages().await, (10, 0));
    accept(&store, &[io_job(), apart(io_job())]).await;
    place.clock().advance(Duration::from_secs(7));
    assert_eq!(ages().await, (17, 7));
    // The next one is what counts.
    accept(&store, &[with_priority(5)]).await;
    place.clock().advance(Duration::from_secs(1));
    assert_eq!(ages().await, (1, 8));
    for left in [18, 8, 0] {
        let claimed = claim_one(&store).await;
        settle(&store, claimed.lease, succeeded()).await.unwrap();
        assert_eq!(ages().await.0, left);
    }
    settle(&store, holds[0].lease, succeeded()).await.unwrap();
}
