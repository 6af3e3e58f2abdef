use serde_json::{Value, json};

use super::{Server, primes, sleep, with};

/// The ids of a batch that must be accepted.
async fn submit(server: &Server, jobs: Value) -> Vec<String> {
    let answer = server.post("/jobs/batch", &jobs).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    answer.ids()
}

/// A job that fails.
fn failing() -> Value {
    json!({ "bound": "io", "workload": { "type": "file", "op": "digest", "path": "nowhere" } })
}

#[tokio::test]
async fn jobs_of_a_batch_come_after_each_other_and_use_what_the_others_gave() {
    let server = Server::start().await;
    let counted =
        json!({ "bound": "cpu", "workload": { "type": "primes", "below": { "$output": "count", "pointer": "/count" } } });
    let jobs = json!([
        with(counted, json!({ "name": "again", "after": [{ "name": "count" }] })),
        with(primes(), json!({ "name": "count", "after": [{ "name": "wait" }] })),
        with(sleep(100), json!({ "name": "wait" })),
    ]);
    let ids = submit(&server, jobs).await;
    // What goes by ids, as running many again does, comes to parents first.
    assert!(ids[2] < ids[1] && ids[1] < ids[0], "{ids:?}");
    let job = server.get(&format!("/jobs/{}", ids[0])).await.json();
    assert_eq!(job["graph"]["parent_count"], 1, "{job}");
    let parent = &job["graph"]["parents"][0];
    assert_eq!((&parent["id"], &parent["name"], &parent["on_failure"]), (&json!(ids[1]), &json!("count"), &json!("cancel")));
    let job = server.ended(&ids[0]).await;
    // There are 168 primes below 1000, and 39 below 168.
    assert_eq!((&job["state"], &job["output"]["count"]), (&json!("succeeded"), &json!(39)));
    assert_eq!(job["workload"]["below"]["$output"], "count");
    assert_eq!((&job["graph"]["waits_for"], &job["graph"]["parents"][0]["state"]), (&json!(0), &json!("succeeded")));
    let first = server.get(&format!("/jobs/{}", ids[2])).await.json();
    assert_eq!(first["graph"]["children"], json!([{ "id": ids[1], "state": "succeeded" }]));
    assert!(server.get(&format!("/jobs/{}", server.submit(&sleep(0)).await)).await.json().get("graph").is_none());
}

#[tokio::test]
async fn a_job_comes_after_jobs_by_their_ids() {
    let server = Server::start().await;
    let parent = server.submit(&sleep(60_000)).await;
    let child = with(
        json!({ "bound": "io", "workload": { "type": "sleep", "ms": { "$output": parent, "pointer": "/slept_ms", "default": 1 } } }),
        json!({ "after": [{ "job": parent, "on_failure": "run" }] }),
    );
    let child = server.submit(&child).await;
    assert_eq!(server.in_state(&child, "blocked").await["started_at"], Value::Null);
    assert_eq!(server.get("/jobs?state=blocked").await.ids(), [child.as_str()]);
    server.in_state(&parent, "running").await;
    assert_eq!(server.delete(&format!("/jobs/{parent}")).await.status, 202);
    assert_eq!(server.ended(&child).await["output"]["slept_ms"], 1);
}

#[tokio::test]
async fn what_becomes_of_the_children_of_a_job_that_fails() {
    let server = Server::start().await;
    let after = |rule: &str| with(sleep(0), json!({ "after": [{ "name": "a", "on_failure": rule }] }));
    let jobs = json!([with(failing(), json!({ "name": "a" })), after("cancel"), after("fail"), after("run")]);
    let ids = submit(&server, jobs).await;
    for (id, state) in ids.iter().zip(["failed", "cancelled", "failed", "succeeded"]) {
        assert_eq!(server.ended(id).await["state"], state);
    }
    let cancelled = server.get(&format!("/jobs/{}", ids[1])).await.json();
    assert_eq!(cancelled["error"]["kind"], "dependency");
    assert!(cancelled["error"]["message"].as_str().unwrap().contains("\"a\""), "{cancelled}");
    // Submitted when it is known already: whoever waits does not wait for nothing.
    let request = server.request(reqwest::Method::POST, "/jobs").header("Prefer", "wait=30");
    let late = with(sleep(0), json!({ "after": [{ "job": ids[0] }] }));
    let late: Value = request.json(&late).send().await.unwrap().json().await.unwrap();
    assert_eq!(late["state"], "cancelled");
}

#[tokio::test]
async fn an_output_that_does_not_fit_ends_the_job_and_says_why() {
    let server = Server::start().await;
    let asking = |output: Value| {
        with(json!({ "bound": "cpu", "workload": { "type": "primes", "below": output } }), json!({ "after": [{ "name": "a" }] }))
    };
    let jobs = json!([
        with(primes(), json!({ "name": "a" })),
        asking(json!({ "$output": "a" })),
        asking(json!({ "$output": "a", "pointer": "/colour" })),
        asking(json!({ "$output": "a", "pointer": "/colour", "default": 10 })),
    ]);
    let ids = submit(&server, jobs).await;
    let told = |job: &Value| job["error"]["message"].as_str().unwrap_or_default().to_owned();
    let whole = server.ended(&ids[1]).await;
    assert_eq!((&whole["state"], &whole["error"]["kind"]), (&json!("failed"), &json!("dependency")));
    assert!(told(&whole).contains("/below"), "{whole}");
    assert!(told(&server.ended(&ids[2]).await).contains("has no /colour"));
    assert_eq!(server.ended(&ids[3]).await["output"]["count"], 4);
}

#[tokio::test]
async fn each_place_has_its_own_default() {
    let server = Server::start().await;
    let headers = json!({ "$output": "a", "pointer": "/colour", "default": { "x": "1" } });
    let other = json!({ "$output": "a", "pointer": "/colour", "default": "BREW" });
    let workload = json!({ "type": "http", "url": "https://example.org", "headers": headers, "method": other });
    let asking = json!({ "bound": "io", "workload": workload, "after": [{ "name": "a" }] });
    let ids = submit(&server, json!([with(primes(), json!({ "name": "a" })), asking])).await;
    let ended = server.ended(&ids[1]).await;
    assert!(ended["error"]["message"].as_str().unwrap().contains(" /method: "), "{ended}");
}

#[tokio::test]
async fn jobs_that_stand_for_others_of_their_batch_are_waited_for_like_them() {
    let server = Server::start().await;
    let unique = |name: &str, after: Value| with(sleep(1), json!({ "name": name, "unique": {}, "after": after }));
    // Two names for one job are one dependency, by the stricter rule; and its outputs are asked for by both.
    let asking = json!({
        "bound": "io", "executor": "async", "unique": { "within_ms": 600_000 },
        "workload": { "type": "python", "source": "def main(one, two): return one == two", "args": [{ "$output": "a" }, { "$output": "b" }] },
        "after": [{ "name": "a", "on_failure": "run" }, { "name": "b", "on_failure": "fail" }],
    });
    let jobs = json!([unique("a", json!([])), unique("b", json!([])), asking]);
    let ids = submit(&server, jobs.clone()).await;
    assert_eq!(ids[0], ids[1]);
    let job = server.ended(&ids[2]).await;
    assert_eq!((&job["state"], &job["output"]), (&json!("succeeded"), &json!(true)), "{job}");
    assert_eq!((&job["graph"]["parent_count"], &job["graph"]["parents"][0]["on_failure"]), (&json!(1), &json!("fail")), "{job}");
    // With outputs of other jobs it is another one.
    let again = submit(&server, jobs).await;
    assert_ne!(again[2], ids[2]);

    // One that would come after itself that way is refused.
    let other = |name: &str, after: Value| with(unique(name, after), json!({ "workload": { "type": "sleep", "ms": 2 } }));
    let between = with(sleep(0), json!({ "name": "d", "after": [{ "name": "e" }] }));
    let around = json!([other("c", json!([{ "name": "d" }])), between, other("e", json!([]))]);
    let (_, pointer) = server.post("/jobs/batch", &around).await.problem(422);
    assert_eq!(pointer.unwrap(), "/0/after");
}

#[tokio::test]
async fn graphs_that_can_not_be_are_refused() {
    let server = Server::start().await;
    let named = |name: &str, after: Value| with(sleep(0), json!({ "name": name, "after": after }));
    let refused = async |jobs: Value| server.post("/jobs/batch", &jobs).await.problem(422).1.unwrap();
    let cycle = json!([named("a", json!([{ "name": "b" }])), named("b", json!([{ "name": "a" }]))]);
    let answer = server.post("/jobs/batch", &cycle).await;
    assert!(answer.json()["detail"].as_str().unwrap().contains("a after b after a"), "{}", answer.text);
    assert_eq!(refused(cycle).await, "/0/after");
    assert_eq!(refused(json!([named("a", json!([])), named("a", json!([]))])).await, "/1/name");
    assert_eq!(refused(json!([named("a", json!([{ "name": "b" }]))])).await, "/0/after/0/name");
    let nobody = "01997d3e-8c00-7000-8000-000000000000";
    assert_eq!(refused(json!([sleep(0), with(sleep(0), json!({ "after": [{ "job": nobody }] }))])).await, "/1/after/0/job");
    let asking = json!({ "bound": "io", "workload": { "type": "sleep", "ms": { "$output": "a" } } });
    assert_eq!(refused(json!([named("a", json!([])), asking.clone()])).await, "/1/workload/ms/$output");
    assert_eq!(server.post("/jobs", &asking).await.problem(422).1.unwrap(), "/workload/ms/$output");
    assert_eq!(server.post("/jobs", &named("a", json!([]))).await.problem(422).1.unwrap(), "/name");
    assert_eq!(
        server.post("/jobs", &with(sleep(0), json!({ "after": [{ "job": nobody }] }))).await.problem(422).1.unwrap(),
        "/after/0/job"
    );
    // What can be known of a workload before it has the output, is known.
    let wrong = json!({ "bound": "io", "workload": { "type": "sleep", "ms": { "$output": "a" }, "colour": 1 }, "after": [{ "name": "a" }] });
    assert_eq!(refused(json!([named("a", json!([])), wrong])).await, "/1/workload/colour");
    assert!(server.get("/jobs").await.ids().is_empty());
}

/// However their parents and they have ended.
#[tokio::test]
async fn jobs_that_run_again_wait_for_those_of_their_parents_that_do() {
    let server = Server::start().await;
    let long = |name: &str, after: Value| with(sleep(60_000), json!({ "name": name, "after": after, "tags": { "run": "7" } }));
    let after = |name: &str, rule: &str| json!([{ "name": name, "on_failure": rule }]);
    let jobs = json!([long("a", json!([])), long("b", after("a", "fail")), long("c", after("b", "cancel"))]);
    let ids = submit(&server, jobs).await;
    for _ in 0..2 {
        server.in_state(&ids[0], "running").await;
        assert_eq!(server.delete(&format!("/jobs/{}", ids[0])).await.status, 202);
        for (id, state) in ids.iter().zip(["cancelled", "failed", "cancelled"]) {
            assert_eq!(server.ended(id).await["state"], state);
        }
        let retried = server.post("/jobs/retry", &json!({ "state": "failed,cancelled,lost", "tag": "run:7" })).await;
        assert_eq!(retried.json(), json!({ "retried": 3, "more": false }));
        for id in &ids[1..] {
            assert_eq!(server.get(&format!("/jobs/{id}")).await.json()["state"], "blocked");
        }
    }
}

#[tokio::test]
async fn a_job_whose_parent_is_run_again_waits_for_its_output() {
    let server = Server::start().await;
    let one_by_one = |ms: u64| with(sleep(ms), json!({ "concurrency": { "key": "k", "limit": 1 } }));
    let asking = json!({
        "name": "c", "bound": "io", "workload": { "type": "sleep", "ms": { "$output": "a", "pointer": "/slept_ms", "default": 60_000 } },
        "after": [{ "name": "a" }, { "name": "b", "on_failure": "run" }],
    });
    let jobs = json!([with(one_by_one(7), json!({ "name": "a" })), with(sleep(60_000), json!({ "name": "b" })), asking]);
    let ids = submit(&server, jobs).await;
    server.ended(&ids[0]).await;
    // What it comes after has ended, and runs again behind another job, when it is its turn.
    let ahead = server.submit(&one_by_one(60_000)).await;
    server.in_state(&ahead, "running").await;
    assert_eq!(server.post(&format!("/jobs/{}/retry", ids[0]), &json!(null)).await.status, 202);
    assert_eq!(server.delete(&format!("/jobs/{}", ids[1])).await.status, 202);
    let waits = server.in_state(&ids[2], "scheduled").await;
    assert_eq!((&waits["attempt"], &waits["waiting"]["reason"]), (&json!(0), &json!("time")), "{waits}");
    assert_eq!(server.delete(&format!("/jobs/{ahead}")).await.status, 202);
    let ended = server.ended(&ids[2]).await;
    assert_eq!((&ended["attempt"], &ended["output"]["slept_ms"]), (&json!(1), &json!(7)), "{ended}");
}

#[tokio::test]
async fn an_attempt_that_did_not_begin_since_a_parent_runs_again_is_none() {
    let server = Server::start().await;
    let one_by_one = |key: &str, ms: u64| with(sleep(ms), json!({ "concurrency": { "key": key, "limit": 1 } }));
    let ahead_of = async |key: &str| {
        let ahead = server.submit(&one_by_one(key, 60_000)).await;
        server.in_state(&ahead, "running").await;
        ahead
    };
    let retry = async |id: &str| assert_eq!(server.post(&format!("/jobs/{id}/retry"), &json!(null)).await.status, 202);
    let cancel = async |id: &str| server.delete(&format!("/jobs/{id}")).await.status;
    let asking = json!({
        "bound": "io", "workload": { "type": "file", "op": "read", "path": "nowhere", "max_bytes": { "$output": "a", "pointer": "/slept_ms" } },
        "after": [{ "name": "a" }], "concurrency": { "key": "child", "limit": 1 },
    });
    let ids = submit(&server, json!([with(one_by_one("parent", 7), json!({ "name": "a" })), asking])).await;
    assert_eq!(server.ended(&ids[1]).await["state"], "failed");
    // It is free to run again while its parent is not, and it is its turn first.
    let ahead = ahead_of("child").await;
    ahead_of("parent").await;
    retry(&ids[1]).await;
    retry(&ids[0]).await;
    assert_eq!(cancel(&ahead).await, 202);
    let attempts =
        |job: &Value| job["attempts"].as_array().unwrap().iter().map(|tried| tried["state"].clone()).collect::<Vec<_>>();
    let waits = server.in_state(&ids[1], "scheduled").await;
    assert_eq!((&waits["attempt"], attempts(&waits)), (&json!(1), vec![json!("failed")]), "{waits}");
    assert_eq!(cancel(&ids[1]).await, 200);
    let ended = server.ended(&ids[1]).await;
    assert_eq!((&ended["state"], attempts(&ended)), (&json!("cancelled"), vec![json!("failed")]), "{ended}");
}
