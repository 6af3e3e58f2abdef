//! One key never sees or guesses what is another's.

use reqwest::Method;
use reqwest::header::AUTHORIZATION;
use serde_json::{Value, json};

use super::access::with_key;
use super::{Answer, Send as _, Server, primes, sleep, with};

/// How many calls each key makes on what is the other's.
const CALLS: usize = 500;
/// An id that nothing has.
const NOBODYS: &str = "01997d3e-8c00-7000-8000-000000000000";

/// What one key has made.
struct Tenant {
    /// Its key's, by which administrators speak of it.
    id: String,
    key: String,
    finished: Vec<String>,
    running: String,
    comparison: String,
    schedule: String,
}

impl Tenant {
    async fn new(server: &Server, admin: &str, schedule: &str) -> Self {
        let (id, key) = server.key(admin, &["submit", "read", "cancel"]).await;
        let mut tenant =
            Self { id, key, finished: Vec::new(), running: String::new(), comparison: String::new(), schedule: schedule.into() };
        for _ in 0..3 {
            let id = tenant.submit(server, &sleep(0)).await;
            let job = tenant.call(server, Method::GET, &format!("/jobs/{id}?wait=60"), None).await.json();
            assert_eq!(job["state"], "succeeded");
            tenant.finished.push(id);
        }
        tenant.running = tenant.submit(server, &sleep(3_600_000)).await;
        let schedule = json!({ "name": schedule, "cron": "0 0 1 1 *", "job": primes() });
        assert_eq!(tenant.call(server, Method::POST, "/schedules", Some(schedule)).await.status, 201);
        let comparison = json!({
            "bound": "io", "workload": { "type": "sleep", "ms": 1 }, "tasks": 2, "concurrency": [1], "budget_ms": 1_000,
        });
        let answer = tenant.call(server, Method::POST, "/comparisons", Some(comparison)).await;
        assert_eq!(answer.status, 202, "{}", answer.text);
        answer.json()["id"].as_str().unwrap().clone_into(&mut tenant.comparison);
        tenant
    }

    async fn call(&self, server: &Server, method: Method, path: &str, body: Option<Value>) -> Answer {
        let request = server.request(method, path);
        with_key(if let Some(body) = body { request.json(&body) } else { request }, &self.key).answer().await
    }

    async fn submit(&self, server: &Server, job: &Value) -> String {
        let answer = self.call(server, Method::POST, "/jobs", Some(job.clone())).await;
        assert!(answer.status.is_success(), "{}", answer.text);
        answer.json()["id"].as_str().unwrap().to_owned()
    }

    async fn list(&self, server: &Server, path: &str) -> Vec<String> {
        let answer = self.call(server, Method::GET, path, None).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let text = |item: &Value| item["id"].as_str().or(item["name"].as_str()).unwrap().to_owned();
        let mut items: Vec<_> = answer.json()["items"].as_array().unwrap().iter().map(text).collect();
        items.sort();
        items
    }

    fn jobs(&self) -> Vec<String> {
        let mut jobs: Vec<_> = self.finished.iter().chain([&self.running]).cloned().collect();
        jobs.sort();
        jobs
    }
}

/// A call on a job, a comparison or a schedule that is called `id`.
fn job_call(which: usize, id: &str) -> (Method, String, Option<Value>) {
    let after = |parent: &str| with(sleep(0), json!({ "after": [{ "job": parent }] }));
    match which {
        0 => (Method::GET, format!("/jobs/{id}"), None),
        1 => (Method::GET, format!("/jobs/{id}?wait=60"), None),
        2 => (Method::GET, format!("/jobs/{id}/route"), None),
        3 => (Method::GET, format!("/jobs/{id}/events"), None),
        4 => (Method::GET, format!("/jobs/{id}/logs"), None),
        5 => (Method::GET, format!("/jobs/{id}/deliveries"), None),
        6 => (Method::GET, format!("/results/{id}"), None),
        7 => (Method::DELETE, format!("/results/{id}"), None),
        8 => (Method::DELETE, format!("/jobs/{id}"), None),
        9 => (Method::POST, format!("/jobs/{id}/retry"), None),
        10 => (Method::POST, "/jobs".into(), Some(after(id))),
        _ => (Method::POST, "/jobs/batch".into(), Some(json!([sleep(0), after(id)]))),
    }
}

fn comparison_call(which: usize, id: &str) -> (Method, String, Option<Value>) {
    match which {
        0 => (Method::GET, format!("/comparisons/{id}"), None),
        1 => (Method::GET, format!("/comparisons/{id}?wait=60"), None),
        2 => (Method::DELETE, format!("/comparisons/{id}"), None),
        3 => (Method::GET, format!("/comparisons/{id}/report.html"), None),
        4 => (Method::GET, format!("/comparisons/{id}/chart.svg"), None),
        _ => (Method::GET, format!("/comparisons/{id}/chart.png"), None),
    }
}

fn schedule_call(which: usize, name: &str) -> (Method, String, Option<Value>) {
    match which {
        0 => (Method::GET, format!("/schedules/{name}"), None),
        1 => (Method::DELETE, format!("/schedules/{name}"), None),
        2 => (Method::POST, format!("/schedules/{name}/pause"), None),
        3 => (Method::POST, format!("/schedules/{name}/resume"), None),
        _ => (Method::POST, format!("/schedules/{name}/run"), None),
    }
}

#[tokio::test]
async fn what_is_anothers_is_answered_as_if_it_did_not_exist() {
    let server = Server::start().await;
    let (_, admin) = server.key("", &["admin"]).await;
    let tenants = [Tenant::new(&server, &admin, "ones").await, Tenant::new(&server, &admin, "others").await];
    let seed = fastrand::get_seed();
    for (caller, other) in [(&tenants[0], &tenants[1]), (&tenants[1], &tenants[0])] {
        for _ in 0..CALLS {
            let (theirs, none, call, calls): (_, _, fn(usize, &str) -> _, _) = match fastrand::u8(0..10) {
                0..6 => {
                    let of = fastrand::usize(0..=other.finished.len());
                    (other.finished.get(of).unwrap_or(&other.running), NOBODYS, job_call, 12)
                }
                6..8 => (&other.comparison, NOBODYS, comparison_call, 6),
                _ => (&other.schedule, "nobodys", schedule_call, 5),
            };
            let which = fastrand::usize(0..calls);
            let mut answers = Vec::new();
            for id in [theirs.as_str(), none] {
                let (method, path, body) = call(which, id);
                let answer = caller.call(&server, method, &path, body).await;
                answers.push((answer.status.as_u16(), answer.text.replace(id, "…")));
            }
            assert_eq!(answers[0], answers[1], "call {which} on {theirs}, seed {seed}");
            assert!([404, 422].contains(&answers[0].0), "call {which} on {theirs}: {}", answers[0].1);
        }
    }
    // All that was there is there still, for whoever made it, and for administrators.
    for tenant in &tenants {
        assert_eq!(tenant.list(&server, "/jobs?limit=1000").await, tenant.jobs());
        let mut finished = tenant.finished.clone();
        finished.sort();
        assert_eq!(tenant.list(&server, "/results?limit=1000").await, finished);
        assert_eq!(tenant.list(&server, "/comparisons").await, [tenant.comparison.as_str()]);
        assert_eq!(tenant.list(&server, "/schedules").await, [tenant.schedule.as_str()]);
        assert!(tenant.list(&server, "/webhooks/deliveries").await.is_empty());
        let summary = tenant.call(&server, Method::GET, "/results/summary", None).await.json();
        assert_eq!(summary["items"][0]["count"], 3);
    }
    let all = with_key(server.request(Method::GET, "/jobs?limit=1000"), &admin).answer().await;
    assert_eq!(all.ids().len(), 8);
    for id in all.ids() {
        assert_eq!(with_key(server.request(Method::GET, &format!("/jobs/{id}")), &admin).answer().await.status, 200);
    }
    // Administrators see whose they are, and may ask for one owner's.
    for (tenant, other) in [(&tenants[0], &tenants[1]), (&tenants[1], &tenants[0])] {
        let path = |list: &str, of: &Tenant| format!("/{list}?owner={}", of.id);
        let jobs = with_key(server.request(Method::GET, &path("jobs", tenant)), &admin).answer().await.json();
        let owners: Vec<_> = jobs["items"].as_array().unwrap().iter().map(|job| job["owner"].clone()).collect();
        assert_eq!(owners, vec![json!(tenant.id); 4]);
        assert_eq!(tenant.list(&server, &path("results", tenant)).await.len(), 3);
        let refused = tenant.call(&server, Method::GET, &path("jobs", other), None).await;
        assert_eq!(refused.problem(400).0, "bad-query");
    }
    let schedules = with_key(server.request(Method::GET, "/schedules"), &admin).answer().await.json();
    for schedule in schedules["items"].as_array().unwrap() {
        let path = format!("/schedules/{}", schedule["name"].as_str().unwrap());
        assert_eq!(with_key(server.request(Method::GET, &path), &admin).answer().await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn a_job_of_an_administrator_is_not_seen_through_its_parent() {
    let server = Server::start().await;
    let (_, admin) = server.key("", &["admin"]).await;
    let tenant = Tenant::new(&server, &admin, "ones").await;
    let path = format!("/jobs/{}", tenant.running);
    let after = with(sleep(0), json!({ "after": [{ "job": tenant.running }] }));
    let answer = with_key(server.request(Method::POST, "/jobs").json(&after), &admin).answer().await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    assert_eq!(tenant.call(&server, Method::GET, &path, None).await.json()["graph"], Value::Null);
    let all = with_key(server.request(Method::GET, &path), &admin).answer().await.json();
    assert_eq!(all["graph"]["children"][0]["id"], answer.json()["id"]);
    let own = tenant.submit(&server, &after).await;
    let graph = tenant.call(&server, Method::GET, &path, None).await.json()["graph"].clone();
    assert_eq!((&graph["child_count"], &graph["children"]), (&json!(1), &json!([{ "id": own, "state": "blocked" }])));
}

#[tokio::test]
async fn two_keys_may_use_the_same_names() {
    let server = Server::start().await;
    let (_, admin) = server.key("", &["admin"]).await;
    let tenants = [Tenant::new(&server, &admin, "nightly").await, Tenant::new(&server, &admin, "nightly").await];
    let mut made = Vec::new();
    for tenant in &tenants {
        let request = with_key(server.request(Method::POST, "/jobs"), &tenant.key).header("idempotency-key", "order-1");
        made.push(request.json(&sleep(0)).answer().await.json()["id"].clone());
        // Neither is taken for the other's, which runs.
        made.push(tenant.submit(&server, &with(sleep(3_600_001), json!({ "unique": {} }))).await.into());
    }
    assert!(made[0] != made[2] && made[1] != made[3]);
    let run = tenants[1].call(&server, Method::POST, "/schedules/nightly/run", None).await;
    assert_eq!(run.status, 202, "{}", run.text);
    assert!(!tenants[0].list(&server, "/jobs").await.contains(&run.json()["id"].as_str().unwrap().to_owned()));
    let removed = tenants[0].call(&server, Method::DELETE, "/schedules/nightly", None).await;
    assert_eq!(removed.status, 204);
    assert_eq!(tenants[1].list(&server, "/schedules").await, ["nightly"]);
}

#[tokio::test]
async fn many_at_once_are_ones_own() {
    let server = Server::start().await;
    let (_, admin) = server.key("", &["admin"]).await;
    let [one, other] = [Tenant::new(&server, &admin, "a").await, Tenant::new(&server, &admin, "b").await];
    let retried = one.call(&server, Method::POST, "/jobs/retry", Some(json!({ "state": "succeeded" }))).await;
    assert_eq!(retried.json()["retried"], 3);
    let all = Some(json!({ "all": true }));
    one.call(&server, Method::POST, "/jobs/cancel", all).await;
    let running = other.call(&server, Method::GET, &format!("/jobs/{}", other.running), None).await.json();
    assert!(running["finished_at"].is_null() && running["state"] != "cancelled");
    // Its stream tells of its own jobs alone, though the other's were there in between.
    let request = with_key(server.request(Method::GET, "/events?after=0&kinds=accepted"), &other.key);
    let mut events = request.send().await.unwrap();
    let mut text = String::new();
    while text.matches("data: ").count() < 4 || !text.ends_with("\n\n") {
        text.push_str(std::str::from_utf8(&events.chunk().await.unwrap().unwrap()).unwrap());
    }
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    let mut told: Vec<_> =
        data.map(|data| serde_json::from_str::<Value>(data).unwrap()["job"].as_str().unwrap().to_owned()).collect();
    told.sort();
    assert_eq!(told, other.jobs());
}

#[tokio::test]
async fn a_key_that_takes_the_place_of_another_has_what_was_that_ones() {
    let server = Server::start().await;
    let (_, admin) = server.key("", &["admin"]).await;
    let (id, old) = server.key(&admin, &["submit", "read"]).await;
    let job = with_key(server.request(Method::POST, "/jobs").json(&sleep(0)), &old).answer().await.json()["id"].clone();
    let rotate = with_key(server.request(Method::POST, &format!("/keys/{id}/rotate")).json(&json!({})), &admin);
    let new = rotate.answer().await.json()["key"].as_str().unwrap().to_owned();
    let path = format!("/jobs/{}", job.as_str().unwrap());
    let seen = server.request(Method::GET, &path).header(AUTHORIZATION, format!("Bearer {new}")).answer().await;
    assert_eq!(seen.status, 200);
}
