//! What the database does to a node: it has no room, refuses what nobody asked for, and has to be cleaned up.

use std::sync::Arc;
use std::time::Duration;

use trine::clock::Clock as _;
use trine::job::{JobId, NewJob, Outcome, State, Webhook};
use trine::store::postgres::PostgresStore;
use trine::store::{BloatStore, DeliveryFilter, Settled, Settlement, Store, StoreError, WebhookStore};

use crate::limits::limited;
use crate::postgres::Schema;
use crate::{Place as _, claim_one, end_one, io_job, settle, succeeded, until};

/// What is counted has to be read for every summary, so it must not wait for a pause; and whoever is busy must not keep all others from it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_counted_is_rolled_up_though_there_is_always_more_to_write() {
    let place = Schema::new();
    let nodes = [place.node("a").await, place.node("b").await, place.node("c").await];
    let mut raw = place.raw().await;
    let busy = (0..24).map(|at| {
        let store = Arc::clone(&nodes[at % nodes.len()]);
        tokio::spawn(async move {
            loop {
                store.accept(vec![io_job()]).await.unwrap();
                end_one(&store).await;
            }
        })
    });
    let busy: Vec<_> = busy.collect();
    // Several times what one turn takes in has been counted, and most of it is in the rollups.
    let text = "SELECT coalesce(max(n), 0) > 1500 AND count(*) < 500 FROM counted";
    let rolled_up = async || sqlx::query_scalar::<_, bool>(text).fetch_one(&mut raw).await.unwrap().then_some(());
    until("there are rollups", rolled_up).await;
    busy.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_there_is_no_room_for_a_job_nothing_can_be_written_though_who_looks_finds_room() {
    let place = Schema::new();
    let store = place.node("full").await;
    let mut raw = place.raw().await;
    let full = "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'full' USING ERRCODE = '53100'; END $$; \
                CREATE TRIGGER full_disk BEFORE INSERT ON jobs FOR EACH ROW EXECUTE FUNCTION full_disk()";
    sqlx::raw_sql(full).execute(&mut raw).await.unwrap();
    store.check().await.unwrap();
    assert!(matches!(store.accept(vec![io_job()]).await, Err(StoreError::Unavailable(_))));
    assert!(matches!(store.check().await, Err(StoreError::Unavailable(_))));
    sqlx::raw_sql("DROP FUNCTION full_disk CASCADE").execute(&mut raw).await.unwrap();
    store.accept(vec![io_job()]).await.unwrap();
    store.check().await.unwrap();
}

/// Has the database refuse what nobody asks for, as an index does with what is too long for it.
const REFUSE: &str = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no' USING ERRCODE = '54000'; END $$; \
    CREATE TRIGGER promote BEFORE UPDATE ON work FOR EACH ROW WHEN (OLD.state = 0 AND NEW.state = 4) EXECUTE FUNCTION refuse(); \
    CREATE TRIGGER expire BEFORE INSERT ON results FOR EACH ROW WHEN (NEW.error LIKE '%before its time%') EXECUTE FUNCTION refuse()";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_asked_for_costs_no_command_its_answer() {
    let place = Schema::new();
    place.clock().stop();
    let store = Arc::new(PostgresStore::open(place.options()).await.unwrap());
    let webhook = |url: String| Some(Box::new(Webhook { url, host: "a".into(), secret: None, events: Vec::new() }));
    let [again, limited, mut untold, mut told, mut late] = [io_job(), limited("k", 1), io_job(), io_job(), io_job()];
    // Longer than an index takes, as an older version took it.
    untold.submission.webhook = webhook((0..400).map(|_| JobId::new().to_string()).collect());
    told.submission.webhook = webhook("http://a/".into());
    late.submission.expires_at = Some(place.clock().now().after(Duration::from_secs(60)));
    let mut leases = Vec::new();
    for job in [&untold, &told, &again, &limited] {
        store.accept(vec![job.clone()]).await.unwrap();
        leases.push(claim_one(&store).await.lease);
    }
    store.accept(vec![late.clone()]).await.unwrap();
    for lease in &leases[2..] {
        settle(&store, *lease, Settlement::Later { due_at: place.clock().now().after(Duration::from_secs(60)) }).await.unwrap();
    }
    let mut raw = place.raw().await;
    sqlx::raw_sql(REFUSE).execute(&mut raw).await.unwrap();
    place.clock().advance(Duration::from_secs(60));
    let (one, other) = tokio::join!(settle(&store, leases[0], succeeded()), settle(&store, leases[1], succeeded()));
    assert!(matches!((&one, &other), (Ok(Settled::Ended { .. }), Ok(Settled::Ended { .. }))), "{one:?}, {other:?}");
    let deliveries = store.deliveries(DeliveryFilter::default(), None, 10).await.unwrap();
    assert_eq!(deliveries.iter().map(|delivery| delivery.job).collect::<Vec<_>>(), [told.id]);
    // All else goes on.
    assert_eq!(claim_one(&store).await.lease.id, again.id);
    let State::Finished(ended) = store.job(limited.id).await.unwrap().unwrap().state else { panic!("not ended") };
    assert!(
        matches!(&ended.outcome, Outcome::Error(failure) if failure.message.starts_with("it can't be queued: ")),
        "{ended:?}"
    );
    store.close().await;

    // A node that starts does so all the same, and does what was left as soon as that can be done.
    let store = Arc::new(PostgresStore::open(place.options()).await.unwrap());
    sqlx::raw_sql("DROP FUNCTION refuse CASCADE").execute(&mut raw).await.unwrap();
    let expired = async || {
        store.check().await.unwrap();
        matches!(store.job(late.id).await.unwrap().unwrap().state, State::Finished(_)).then_some(())
    };
    until("its time is over", expired).await;
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_cleaned_up_and_a_transaction_that_is_left_open_are_seen() {
    let place = Schema::new();
    let store = place.node("one").await;
    let jobs: Vec<NewJob> = (0..100).map(|_| io_job()).collect();
    store.accept(jobs).await.unwrap();
    let mut left_open = place.raw().await;
    sqlx::query("BEGIN").execute(&mut left_open).await.unwrap();
    sqlx::query("SELECT count(*) FROM work").execute(&mut left_open).await.unwrap();
    let seen = async || {
        // Sessions tell what they did now and then.
        store.check().await.unwrap();
        let bloat = store.bloat().await.unwrap().unwrap();
        let counted = bloat.tables.iter().any(|table| table.name == "work" && table.live >= 100);
        (counted && bloat.oldest_transaction.is_some_and(|age| age >= Duration::from_millis(100))).then_some(bloat)
    };
    let bloat = until("the database tells", seen).await;
    let names: Vec<_> = bloat.tables.iter().map(|table| table.name.as_str()).collect();
    assert_eq!(names, ["events", "jobs", "results", "shared", "work"]);
}
