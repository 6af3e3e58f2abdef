//! A node that stands still while it has the lock of all.

use std::net::Ipv4Addr;
use std::sync::Arc;

use serde_json::json;
use serde_json::value::to_raw_value;
use trine::job::{NewJob, Queue};
use trine::store::Store as _;
use trine::store::postgres::PostgresStore;

use crate::postgres::options_at;
use crate::proxy::Proxy;
use crate::server::Postgres;
use crate::{io_job, until};

/// An address of this machine that no other test program has.
fn address() -> Ipv4Addr {
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, high | 64, middle, low)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_does_not_take_what_it_claims_holds_up_no_other_for_long() {
    let address = address();
    let server = tokio::task::spawn_blocking(move || Postgres::start_at(&[address], "127.0.0.0/8")).await.unwrap();
    let proxy = Proxy::that_stalls((address, 5432), 2 << 20).await;
    let open = async |node: &str, url: String| Arc::new(PostgresStore::open(options_at(vec![url], node)).await.unwrap());
    let here = open("here", server.url()).await;
    let still = open("still", format!("postgres://trine@127.0.0.1:{}/postgres?sslmode=disable", proxy.port)).await;
    // More than fits what is between them.
    for _ in 0..40 {
        let mut job: NewJob = io_job();
        job.submission.workload.json = to_raw_value(&json!({ "type": "sleep", "ms": 5, "pad": "x".repeat(700_000) })).unwrap();
        here.accept(vec![job]).await.unwrap();
    }
    let claim = tokio::spawn(async move { still.claim(Queue::Async, 40).await });
    proxy.happened().await;
    until("the lock comes free", async || here.accept(vec![io_job()]).await.ok()).await;
    claim.abort();
}
