//! What one of several servers is asked for, another does; and each tells of it as if it had done it itself.

use std::time::Duration;

use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::comparisons::{ask as compare, asks, until_state};
use crate::events::{kinds, open};
use crate::functions::{SOURCE, ask, call, deploy, output};
use crate::server::{PATIENCE, Server, folder, sleep, until, until_said, with};
use crate::webhooks::{Receiver, SECRET, delivery};

/// Does it both ways round.
async fn both_ways(servers: &[Server; 2], work: impl AsyncFn(&Server, &Server)) {
    let [one, other] = servers;
    work(one, other).await;
    work(other, one).await;
}

async fn cluster(settings: &[(&str, &str)]) -> (Cluster, [Server; 2]) {
    let cluster = Cluster::of(2).await;
    let servers = [cluster.start_with(0, settings).await, cluster.start_with(1, settings).await];
    (cluster, servers)
}

/// A Python job that says how far it is, and what it does.
fn talks() -> Value {
    let source = "
import trine

def main():
    for n in range(5):
        print('line', n)
        trine.progress({'step': n})
";
    json!({ "bound": "io", "executor": "threads", "workload": { "type": "python", "source": source } })
}

async fn status(server: &Server, method: Method, path: &str, key: Option<&str>) -> StatusCode {
    let request = server.client.request(method, format!("{}{path}", server.url));
    key.into_iter().fold(request, RequestBuilder::bearer_auth).send().await.unwrap().status()
}

async fn until_status(server: &Server, path: &str, key: Option<&str>, wanted: StatusCode) {
    let seen = async || (status(server, Method::GET, path, key).await == wanted).then_some(());
    until(&format!("{path} is {wanted}"), seen).await;
}

/// Ends of jobs reach whoever waits, wherever they run, long before the wait is over.
async fn is_waited_for(here: &Server, there: &Server) {
    for _ in 0..4 {
        let id = here.submit(&sleep(20)).await;
        let path = format!("/jobs/{id}?wait=60");
        let waited = futures_util::future::join(here.get(&path), there.get(&path));
        let (here, there) = tokio::time::timeout(Duration::from_secs(45), waited).await.expect("the end is heard of");
        assert_eq!((&here["state"], &there["state"]), (&json!("succeeded"), &json!("succeeded")));
    }
}

async fn events_are_the_same_everywhere(here: &Server, there: &Server) {
    let (mut all_here, mut all_there) = (open(here, "/events", None).await, open(there, "/events", None).await);
    let mut ids = Vec::new();
    for n in 0..4 {
        let id = here.submit(&talks()).await;
        let path = format!("/jobs/{id}/events");
        let (one, other) = futures_util::future::join(async { open(here, &path, None).await.rest().await }, async {
            open(there, &path, None).await.rest().await
        })
        .await;
        assert_eq!(one, other, "job {n}");
        for kind in ["accepted", "running", "log", "progress", "finished"] {
            assert!(kinds(&one).contains(&kind), "no {kind} in {one:?}");
        }
        ids.push(id);
    }
    // Those of all jobs, too, in the same order; up to the last one's end.
    let last = ids.last().unwrap();
    let (mut seen_here, mut seen_there) = (Vec::new(), Vec::new());
    for (stream, seen) in [(&mut all_here, &mut seen_here), (&mut all_there, &mut seen_there)] {
        loop {
            let sent = stream.next().await.expect("it goes on");
            if sent.data["job"].is_null() {
                continue;
            }
            seen.push(sent.clone());
            if sent.kind == "finished" && sent.data["job"] == **last {
                break;
            }
        }
    }
    // Which of them was opened first is not said.
    seen_here.retain(|sent| ids.iter().any(|id| sent.data["job"] == **id));
    seen_there.retain(|sent| ids.iter().any(|id| sent.data["job"] == **id));
    assert_eq!(seen_here, seen_there);
}

async fn what_comes_once_is_there_once(here: &Server, there: &Server) {
    let body = sleep(1);
    let key = here.submit(&sleep(0)).await;
    let send = async |server: &Server| {
        let request = server.client.post(format!("{}/jobs", server.url)).header("Idempotency-Key", &key).json(&body);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 202);
        answer.json::<Value>().await.unwrap()["id"].clone()
    };
    let (one, other) = futures_util::future::join(send(here), send(there)).await;
    assert_eq!(one, other);
    // As long as it has not ended.
    let unique = with(sleep(600_000), json!({ "unique": {} }));
    let send = async |server: &Server| {
        let answer = server.client.post(format!("{}/jobs", server.url)).json(&unique).send().await.unwrap();
        answer.json::<Value>().await.unwrap()["id"].clone()
    };
    let (one, other) = futures_util::future::join(send(here), send(there)).await;
    assert_eq!(one, other);
    let id = one.as_str().unwrap();
    assert!(status(there, Method::DELETE, &format!("/jobs/{id}"), None).await.is_success());
    here.until_state(id, "cancelled").await;
}

async fn jobs_come_after_jobs_of_others_and_run_again(here: &Server, there: &Server) {
    let parent = here.submit(&sleep(50)).await;
    let child = there.submit(&with(sleep(1), json!({ "after": [{ "job": parent }] }))).await;
    let grandchild = here.submit(&with(sleep(1), json!({ "after": [{ "job": child }] }))).await;
    here.until_state(&grandchild, "succeeded").await;
    assert_eq!(there.get(&format!("/jobs/{parent}")).await["state"], "succeeded");
    assert_eq!(status(there, Method::POST, &format!("/jobs/{child}/retry"), None).await, 202);
    let again = here.until(&child, |job| job["state"] == "succeeded" && job["attempt"] == 2).await;
    assert_eq!(again["id"], *child);
    let long = here.submit(&sleep(600_000)).await;
    here.until_state(&long, "running").await;
    assert_eq!(status(there, Method::DELETE, &format!("/jobs/{long}"), None).await, 202);
    here.until_state(&long, "cancelled").await;
}

async fn functions_are_everywhere(here: &Server, there: &Server) {
    let name = format!("f{}", here.submit(&sleep(0)).await.replace('-', ""));
    let source = |n: u64| format!("def main(): return {n}");
    let path = format!("{name}?bound=io");
    // One that is new is known at once, and so is each version by its name.
    deploy(here, &path, SOURCE, source(0)).await;
    assert_eq!(output(there, &call(&name, &json!([]))).await, 0);
    for n in 1..4 {
        let version = deploy(here, &path, SOURCE, source(n)).await;
        let mut job = call(&name, &json!([]));
        job["workload"]["version"] = json!(version);
        assert_eq!(output(there, &job).await, n);
        assert_eq!(there.get(&format!("/functions/{name}")).await["items"][0]["version"], version);
    }
    // Also where it is compared, or due, at once.
    for n in 0..4 {
        let fresh = format!("{name}_{n}");
        deploy(here, &format!("{fresh}?bound=io"), SOURCE, source(n)).await;
        let workload = json!({ "type": "function", "name": fresh });
        if n % 2 == 0 {
            let id = compare(there, &json!({ "workload": workload })).await;
            status(there, Method::DELETE, &format!("/comparisons/{id}"), None).await;
        } else {
            let schedule = json!({ "cron": "0 0 1 1 *", "job": { "workload": workload } });
            let (path, body) = (format!("/schedules/{fresh}"), serde_json::to_vec(&schedule).unwrap());
            assert_eq!(ask(here, Method::PUT, &path, Some(("application/json", body))).await.0, 201);
            assert_eq!(status(there, Method::POST, &format!("{path}/run"), None).await, 202);
        }
    }
    assert_eq!(ask(here, Method::DELETE, &format!("/functions/{name}"), None).await.0, 204);
    let body = serde_json::to_vec(&call(&name, &json!([]))).unwrap();
    let gone =
        async || (ask(there, Method::POST, "/jobs", Some(("application/json", body.clone()))).await.0 == 422).then_some(());
    until("it is gone", gone).await;
}

async fn comparisons_are_everywhere(here: &Server, there: &Server) {
    let id = compare(here, &asks(1)).await;
    let finished = until_state(there, &id, "finished").await;
    assert!(finished["verdict"]["because"].is_string(), "{finished}");
    assert_eq!(there.get("/comparisons").await["items"][0]["id"], *id);
    // One that is asked to stop elsewhere makes way for the next.
    let long = compare(here, &asks(600_000)).await;
    until_state(there, &long, "running").await;
    status(there, Method::DELETE, &format!("/comparisons/{long}"), None).await;
    until_state(here, &long, "cancelled").await;
    let next = [compare(here, &asks(1)).await, compare(here, &asks(1)).await];
    for id in next {
        until_state(there, &id, "finished").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_server_answers_for_all() {
    let (receiver, hook) = Receiver::start(&[]).await;
    let settings = [("TRINE_HTTP_ALLOW", "127.0.0.1"), ("TRINE_WEBHOOK_SECRETS", SECRET)];
    let (_cluster, servers) = cluster(&settings).await;
    both_ways(&servers, is_waited_for).await;
    both_ways(&servers, what_comes_once_is_there_once).await;
    both_ways(&servers, jobs_come_after_jobs_of_others_and_run_again).await;
    both_ways(&servers, events_are_the_same_everywhere).await;
    both_ways(&servers, functions_are_everywhere).await;
    comparisons_are_everywhere(&servers[0], &servers[1]).await;
    // Each end is told once, by whichever of them.
    let mut jobs = Vec::new();
    for n in 0..20 {
        jobs.push(servers[n % 2].submit(&with(sleep(1), json!({ "webhook": { "url": hook } }))).await);
    }
    for job in &jobs {
        delivery(&servers[0], job, "delivered").await;
    }
    let mut told: Vec<String> = receiver.messages(jobs.len()).await.iter().map(|message| message.id().to_owned()).collect();
    told.sort_unstable();
    told.dedup();
    assert_eq!((told.len(), receiver.messages(0).await.len()), (20, 20));
}

/// What one has just sent, another one may not have heard of yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_goes_on_elsewhere_behind_an_event_is_not_refused() {
    let (cluster, servers) = cluster(&[]).await;
    let id = servers[0].submit(&sleep(0)).await;
    servers[0].until_state(&id, "succeeded").await;
    let text = "INSERT INTO events (at, job, attempt, kind) \
                VALUES ((extract(epoch FROM clock_timestamp()) * 1000000)::BIGINT + 3600000000, $1::UUID, 1, 6) RETURNING at";
    let unheard: i64 = sqlx::query_scalar(text).bind(&id).fetch_one(&mut cluster.raw().await).await.unwrap();
    for server in &servers {
        for path in ["/events".to_owned(), format!("/jobs/{id}/events")] {
            let behind = async |id: i64| status(server, Method::GET, &format!("{path}?after={id}"), None).await;
            assert!(behind(unheard).await.is_success(), "{path}");
            assert_eq!(behind(unheard + 1).await, StatusCode::BAD_REQUEST, "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_good_or_for_nothing_everywhere() {
    let (_cluster, [here, there]) = cluster(&[]).await;
    let make = async |name: &str, scopes: &[&str], by: Option<&str>| {
        let request = here.client.post(format!("{}/keys", here.url)).json(&json!({ "name": name, "scopes": scopes }));
        let answer = by.into_iter().fold(request, RequestBuilder::bearer_auth).send().await.unwrap();
        assert_eq!(answer.status(), 201);
        let key = answer.json::<Value>().await.unwrap();
        (key["id"].as_str().unwrap().to_owned(), key["key"].as_str().unwrap().to_owned())
    };
    assert_eq!(status(&there, Method::GET, "/jobs", None).await, 200);
    let (_, admin) = make("admin", &["admin"], None).await;
    // The first key shuts all of them.
    until_status(&there, "/jobs", None, StatusCode::UNAUTHORIZED).await;
    let (id, key) = make("ci", &["read"], Some(&admin)).await;
    // One that is new is known at once.
    assert_eq!(status(&there, Method::GET, "/jobs", Some(&key)).await, 200);
    for name in ["a", "b", "c", "d"] {
        let (_, key) = make(name, &["read"], Some(&admin)).await;
        assert_eq!(status(&there, Method::GET, "/jobs", Some(&key)).await, 200);
    }
    let request = there.client.get(format!("{}/events", there.url)).bearer_auth(&key);
    let mut stream = tokio::time::timeout(PATIENCE, request.send()).await.expect("an answer").unwrap();
    assert_eq!(stream.status(), 200);
    assert_eq!(status(&here, Method::DELETE, &format!("/keys/{id}"), Some(&admin)).await, 200);
    // The stream ends, and nothing more is answered.
    let ended = async { while let Ok(Some(_)) = stream.chunk().await {} };
    tokio::time::timeout(PATIENCE, ended).await.expect("the stream ends");
    until_status(&there, "/jobs", Some(&key), StatusCode::UNAUTHORIZED).await;
    assert_eq!(status(&there, Method::GET, "/jobs", Some(&admin)).await, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_goes_by_what_others_do_not_have_says_so() {
    let cluster = Cluster::of(2).await;
    let said = |server: usize| {
        let log = cluster.log(server);
        ["webhook_secrets", "artifacts"].map(|setting| log.matches(&format!("`{setting}` is not set")).count())
    };
    cluster.start(0).await.stop();
    assert_eq!(said(0), [0, 0], "it is alone");
    let _other = cluster.start(0).await;
    cluster.start(1).await.stop();
    assert_eq!(said(1), [1, 1]);
    let place = folder();
    let shared = [("TRINE_WEBHOOK_SECRETS", SECRET), ("TRINE_ARTIFACTS", place.path().to_str().unwrap())];
    cluster.start_with(1, &shared).await.stop();
    assert_eq!(said(1), [1, 1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_open_more_connections_than_there_is_room_for_says_so() {
    let cluster = Cluster::of(2).await;
    let said = |server: usize| cluster.log(server).matches("room for fewer connections").count();
    let _servers = [cluster.start(0).await, cluster.start_with(1, &[("TRINE_DATABASE_CONNECTIONS", "200")]).await];
    assert_eq!((said(0), said(1)), (0, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_says_that_it_is_drained() {
    let (cluster, [one, other]) = cluster(&[]).await;
    let name =
        one.get("/cluster").await["items"].as_array().unwrap().iter().find(|node| node["self"] == true).unwrap()["name"].clone();
    for (order, said, ready) in [("drain", "drained: this server", false), ("resume", "resumed: this server", true)] {
        let path = format!("/cluster/nodes/{}/{order}", name.as_str().unwrap());
        assert_eq!(status(&other, Method::POST, &path, None).await, 200);
        one.until_ready(ready).await;
        until_said(cluster.folder(0), said).await;
        assert!(!cluster.log(1).contains(said), "{}", cluster.log(1));
    }
}
