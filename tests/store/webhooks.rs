//! Deliveries: made by the transactions that end jobs, due host by host.

use std::sync::Arc;
use std::time::Duration;

use trine::clock::Timestamp;
use trine::job::{Ending, JobId, NewJob, Queue, Secret, State, Webhook};
use trine::store::{DeliveryFilter, Store};
use trine::webhook::{Delivery, DeliveryAttempt, DeliveryState, DueDelivery, Verdict};

use crate::{Place, accept, claim_one, end_one, failed, finish_all, io_job, not_after_a_loss, settle, state, succeeded};

crate::for_every_driver!(
    each_end_of_a_job_with_a_webhook_leaves_a_delivery,
    only_the_endings_that_are_wanted_are_told,
    a_webhook_is_kept_with_its_job,
    a_delivery_is_due_until_it_is_settled,
    a_host_with_many_messages_leaves_room_for_others,
    what_is_gone_is_gone_for_all_of_its_messages,
    a_delivery_can_be_wanted_again,
    what_is_not_sent_any_more_goes_with_its_result,
    lists_have_filters_and_pages,
    deliveries_survive_a_crash,
    a_delivery_is_due_by_a_clock_that_was_set_back,
);

pub(crate) fn webhook(host: &str) -> Webhook {
    Webhook { url: format!("http://{host}/hook"), host: host.into(), secret: None, events: Vec::new() }
}

fn with_webhook(webhook: Webhook) -> NewJob {
    let mut job = io_job();
    job.submission.webhook = Some(Box::new(webhook));
    job
}

/// A job whose end is told there.
pub(crate) fn told(host: &str) -> NewJob {
    with_webhook(webhook(host))
}

async fn all(store: &Arc<dyn Store>) -> Vec<Delivery> {
    store.deliveries(DeliveryFilter::default(), None, 1_000).await.unwrap()
}

async fn of(store: &Arc<dyn Store>, job: JobId) -> Vec<Delivery> {
    store.deliveries(DeliveryFilter { job: Some(job), ..DeliveryFilter::default() }, None, 1_000).await.unwrap()
}

/// The ids of what is due, by host.
async fn due(store: &Arc<dyn Store>, per_host: usize) -> Vec<(String, JobId)> {
    let due = store.due_deliveries(Timestamp::now(), (1_000, per_host), &[]).await.unwrap();
    let mut due: Vec<_> = due.into_iter().map(|due| (due.host, due.delivery.job)).collect();
    due.sort();
    due
}

fn attempt(status: u16) -> DeliveryAttempt {
    DeliveryAttempt { at: Timestamp::from_micros(1), took_us: 2, status: Some(status), error: None }
}

async fn each_end_of_a_job_with_a_webhook_leaves_a_delivery(place: impl Place) {
    let store = place.open().await;
    let plain = io_job();
    let mut tagged = io_job();
    // A label that looks like one is none.
    tagged.submission.tags.insert("webhook".into(), r#"{"webhook":{"url":"http://x"}}"#.into());
    finish_all(&store, &[plain, tagged]).await;
    assert_eq!(all(&store).await, []);

    let [good, bad, cancelled, mut lost] = ["a", "a", "a", "a"].map(told);
    lost.submission.retry = Some(not_after_a_loss());
    for (job, settlement) in [(&good, Some(succeeded())), (&bad, Some(failed("no"))), (&lost, None)] {
        accept(&store, std::slice::from_ref(job)).await;
        let lease = claim_one(&store).await.lease;
        if let Some(settlement) = settlement {
            settle(&store, lease, settlement).await.unwrap();
        }
    }
    accept(&store, std::slice::from_ref(&cancelled)).await;
    store.cancel(cancelled.id, &[]).await.unwrap();
    drop(store);
    let store = place.open().await;
    for (job, ending) in
        [(good.id, Ending::Succeeded), (bad.id, Ending::Failed), (cancelled.id, Ending::Cancelled), (lost.id, Ending::Lost)]
    {
        let [delivery] = &of(&store, job).await[..] else { panic!("one message about {ending}") };
        let State::Finished(finished) = store.job(job).await.unwrap().unwrap().state else { panic!("{ending}") };
        assert_eq!((delivery.ending, delivery.finished_at), (ending, finished.finished_at));
        assert_eq!((delivery.url.as_str(), delivery.state), ("http://a/hook", DeliveryState::Pending));
        assert!(delivery.id.starts_with("msg_") && delivery.attempts.is_empty() && delivery.due_at <= finished.finished_at);
    }
    // One that ends again is told of again, as another message.
    store.requeue(good.id).await.unwrap();
    settle(&store, claim_one(&store).await.lease, failed("later")).await.unwrap();
    let both = of(&store, good.id).await;
    assert_eq!(both.iter().map(|delivery| delivery.ending).collect::<Vec<_>>(), [Ending::Failed, Ending::Succeeded]);
    assert_ne!(both[0].id, both[1].id);
}

async fn only_the_endings_that_are_wanted_are_told(place: impl Place) {
    let store = place.open().await;
    let wanted = |events: &[Ending]| with_webhook(Webhook { events: events.to_vec(), ..webhook("a") });
    let [no, yes] = [wanted(&[Ending::Failed, Ending::Lost]), wanted(&[Ending::Succeeded])];
    finish_all(&store, &[no.clone(), yes.clone()]).await;
    assert_eq!((of(&store, no.id).await.len(), of(&store, yes.id).await.len()), (0, 1));
}

async fn a_webhook_is_kept_with_its_job(place: impl Place) {
    let store = place.open().await;
    let whole = Webhook { secret: Some(Secret::of([7; 32])), events: vec![Ending::Failed, Ending::Succeeded], ..webhook("a:1") };
    let job = with_webhook(whole.clone());
    accept(&store, std::slice::from_ref(&job)).await;
    let kept = async || store.job(job.id).await.unwrap().unwrap().submission.webhook.map(|webhook| *webhook);
    assert_eq!(kept().await.as_ref(), Some(&whole));
    end_one(&store).await;
    assert_eq!(kept().await.as_ref(), Some(&whole));
    let due = store.due_deliveries(Timestamp::now(), (64, 8), &[]).await.unwrap();
    assert!(matches!(&due[..], [due] if due.secret == whole.secret && due.host == "a:1" && due.tries == 0), "{due:?}");
}

async fn a_delivery_is_due_until_it_is_settled(place: impl Place) {
    let store = place.open().await;
    let job = told("a");
    finish_all(&store, std::slice::from_ref(&job)).await;
    let one = async || of(&store, job.id).await.remove(0);
    let later = Timestamp::now().after(Duration::from_secs(60));
    store.note_delivery(&one().await, attempt(500), Verdict::Again(later)).await.unwrap();
    assert_eq!(due(&store, 8).await, []);
    let soon = store.due_deliveries(later, (64, 8), &[]).await.unwrap();
    assert!(soon.len() == 1 && soon[0].tries == 1 && soon[0].delivery.due_at == later);
    let unanswered = DeliveryAttempt { status: None, error: Some("refused".into()), ..attempt(0) };
    store.note_delivery(&one().await, unanswered.clone(), Verdict::Again(Timestamp::now())).await.unwrap();
    assert_eq!(due(&store, 8).await.len(), 1);
    store.note_delivery(&one().await, attempt(204), Verdict::Delivered).await.unwrap();
    assert!(store.due_deliveries(later.after(Duration::from_secs(3_600)), (64, 8), &[]).await.unwrap().is_empty());
    let delivery = one().await;
    assert_eq!((delivery.state, &delivery.attempts), (DeliveryState::Delivered, &vec![attempt(500), unanswered, attempt(204)]));
    for _ in 0..60 {
        store.note_delivery(&delivery, attempt(200), Verdict::Delivered).await.unwrap();
    }
    assert_eq!(one().await.attempts, vec![attempt(200); 50]);
}

async fn a_host_with_many_messages_leaves_room_for_others(place: impl Place) {
    let store = place.open().await;
    let busy: Vec<_> = (0..50).map(|_| told("busy")).collect();
    let (early, late) = (told("early"), told("quiet"));
    finish_all(&store, &busy).await;
    finish_all(&store, &[early.clone(), late.clone()]).await;
    let found = due(&store, 3).await;
    let of_busy = found.iter().filter(|(host, _)| host == "busy").count();
    assert_eq!((found.len(), of_busy), (5, 3));
    assert!(found.contains(&("early".into(), early.id)) && found.contains(&("quiet".into(), late.id)));

    // Hosts take turns, also where there is no room for all, and with what is on its way for them.
    let look = async |most, on_their_way: &[i64]| store.due_deliveries(Timestamp::now(), (most, 3), on_their_way).await.unwrap();
    let hosts = |due: &[DueDelivery]| due.iter().map(|due| due.host.clone()).collect::<Vec<_>>();
    let first = look(4, &[]).await;
    assert_eq!(hosts(&first), ["busy", "early", "quiet", "busy"]);
    let places: Vec<i64> = first.iter().map(|due| due.delivery.place).collect();
    assert_eq!(hosts(&look(4, &places[..2]).await), ["quiet", "busy", "busy"]);
    assert_eq!(hosts(&look(1, &places[..1]).await), ["early"]);
}

async fn what_is_gone_is_gone_for_all_of_its_messages(place: impl Place) {
    let store = place.open().await;
    let (jobs, other) = ([told("a"), told("a"), told("a")], told("b"));
    finish_all(&store, &jobs).await;
    finish_all(&store, std::slice::from_ref(&other)).await;
    let done = of(&store, jobs[0].id).await.remove(0);
    store.note_delivery(&done, attempt(200), Verdict::Delivered).await.unwrap();
    let gone = of(&store, jobs[1].id).await.remove(0);
    store.note_delivery(&gone, attempt(410), Verdict::Gone).await.unwrap();
    let mut states = Vec::new();
    for job in jobs.iter().chain([&other]) {
        states.push(of(&store, job.id).await[0].state);
    }
    assert_eq!(states, [DeliveryState::Delivered, DeliveryState::Gone, DeliveryState::Gone, DeliveryState::Pending]);
    // Of one that was on its way meanwhile, nothing but that it was taken changes that.
    let late = of(&store, jobs[2].id).await.remove(0);
    for (status, verdict, state) in [
        (500, Verdict::Again(Timestamp::now()), DeliveryState::Gone),
        (500, Verdict::GivenUp, DeliveryState::Gone),
        (200, Verdict::Delivered, DeliveryState::Delivered),
        (410, Verdict::Gone, DeliveryState::Delivered),
    ] {
        store.note_delivery(&late, attempt(status), verdict).await.unwrap();
        assert_eq!(of(&store, jobs[2].id).await[0].state, state, "{verdict:?}");
    }
    assert_eq!(of(&store, jobs[2].id).await[0].attempts.len(), 4);
}

async fn a_delivery_can_be_wanted_again(place: impl Place) {
    let store = place.open().await;
    let job = told("a");
    finish_all(&store, std::slice::from_ref(&job)).await;
    let first = of(&store, job.id).await.remove(0);
    store.note_delivery(&first, attempt(500), Verdict::GivenUp).await.unwrap();
    assert_eq!((of(&store, job.id).await[0].state, due(&store, 8).await.len()), (DeliveryState::Failed, 0));
    let again = store.redeliver(&first.id, None).await.unwrap().unwrap();
    assert_eq!((&again.id, again.state, again.attempts.len()), (&first.id, DeliveryState::Pending, 1));
    let due = store.due_deliveries(Timestamp::now(), (64, 8), &[]).await.unwrap();
    assert!(due.len() == 1 && due[0].tries == 0);
    // So does one that waits for its next attempt.
    let in_an_hour = || Verdict::Again(Timestamp::now().after(Duration::from_secs(3_600)));
    store.note_delivery(&due[0].delivery, attempt(500), in_an_hour()).await.unwrap();
    assert!(store.redeliver(&first.id, None).await.unwrap().unwrap().due_at <= Timestamp::now());
    // So does one whose attempt is on its way, and fails then: it was wanted again behind that.
    for verdict in [in_an_hour(), Verdict::GivenUp] {
        let due = store.due_deliveries(Timestamp::now(), (64, 8), &[]).await.unwrap();
        assert!(due.len() == 1 && due[0].tries == 0);
        store.redeliver(&first.id, None).await.unwrap();
        store.note_delivery(&due[0].delivery, attempt(500), verdict).await.unwrap();
    }
    let due = store.due_deliveries(Timestamp::now(), (64, 8), &[]).await.unwrap();
    assert!(due.len() == 1 && due[0].tries == 0 && due[0].delivery.attempts.len() == 4);
    store.note_delivery(&due[0].delivery, attempt(200), Verdict::Delivered).await.unwrap();
    assert_eq!(of(&store, job.id).await[0].state, DeliveryState::Delivered);
    assert_eq!(store.redeliver("msg_nobody", None).await.unwrap(), None);
}

/// Also those that are given up with another one.
async fn what_is_not_sent_any_more_goes_with_its_result(place: impl Place) {
    let store = place.open().await;
    let jobs = [told("a"), told("a")];
    for job in &jobs {
        finish_all(&store, std::slice::from_ref(job)).await;
    }
    store.remove_result(jobs[0].id).await.unwrap();
    let due = store.due_deliveries(Timestamp::now(), (64, 8), &[]).await.unwrap();
    let second = due.iter().find(|due| due.delivery.job == jobs[1].id).unwrap();
    store.note_delivery(&second.delivery, attempt(410), Verdict::Gone).await.unwrap();
    assert_eq!(all(&store).await.iter().map(|delivery| delivery.job).collect::<Vec<_>>(), [jobs[1].id]);
}

async fn lists_have_filters_and_pages(place: impl Place) {
    let store = place.open().await;
    let jobs: Vec<_> = (0..5).map(|_| told("a")).collect();
    for job in &jobs {
        finish_all(&store, std::slice::from_ref(job)).await;
    }
    let delivered = of(&store, jobs[2].id).await.remove(0);
    store.note_delivery(&delivered, attempt(200), Verdict::Delivered).await.unwrap();
    let page = async |state, before, limit| {
        let page = store.deliveries(DeliveryFilter { state, ..DeliveryFilter::default() }, before, limit).await.unwrap();
        let jobs: Vec<_> = page.iter().map(|delivery| jobs.iter().position(|job| job.id == delivery.job).unwrap()).collect();
        (jobs, page.last().map(|last| last.place))
    };
    let (first, last) = page(None, None, 3).await;
    assert_eq!(first, [4, 3, 2]);
    assert_eq!(page(None, last, 3).await.0, [1, 0]);
    assert_eq!(page(Some(DeliveryState::Pending), last, 3).await.0, [1, 0]);
    assert_eq!(page(Some(DeliveryState::Delivered), None, 3).await.0, [2]);
}

async fn deliveries_survive_a_crash(place: impl Place) {
    let store = place.open().await;
    let job = told("a");
    finish_all(&store, std::slice::from_ref(&job)).await;
    let before = all(&store).await;
    drop(store);
    let store = place.open().await;
    assert_eq!(all(&store).await, before);
    assert_eq!(due(&store, 8).await, [("a".to_owned(), job.id)]);
    assert_eq!((state(&store, job.id).await, store.depth(Queue::Async).queued), ("succeeded", 0));
}

/// SQLite's is by the machine's clock, so the test's was ahead of it.
async fn a_delivery_is_due_by_a_clock_that_was_set_back(place: impl Place) {
    const HOUR: Duration = Duration::from_secs(3_600);
    let store = place.open().await;
    place.clock().stop();
    place.clock().advance(24 * HOUR);
    accept(&store, &[io_job()]).await;
    end_one(&store).await;
    place.clock().set_back(23 * HOUR);
    let job = told("a");
    accept(&store, std::slice::from_ref(&job)).await;
    end_one(&store).await;
    let due = store.due_deliveries(store.now(), (10, 10), &[]).await.unwrap();
    assert_eq!(due.iter().map(|due| due.delivery.job).collect::<Vec<_>>(), [job.id]);
}
