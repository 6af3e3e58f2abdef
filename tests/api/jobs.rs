use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};

use super::{Send as _, Server, primes, sleep, with};

#[rstest]
#[case("auto", "threads", "cpu_threads")]
#[case("async", "async", "insisted")]
#[case("threads", "threads", "insisted")]
#[case("processes", "processes", "insisted")]
#[tokio::test]
async fn a_job_runs_on_every_executor(#[case] asked: &str, #[case] executor: &str, #[case] rule: &str) {
    let server = Server::start().await;
    let answer = server.post("/jobs", &with(primes(), json!({ "executor": asked, "tags": { "team": "search" } }))).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    let job = answer.json();
    assert_eq!(answer.header("location"), format!("/jobs/{}", job["id"].as_str().unwrap()));
    assert_eq!((&job["state"], &job["executor"], &job["attempt"]), (&json!("queued"), &json!(asked), &json!(0)));
    assert_eq!((&job["route"]["executor"], &job["route"]["rule"]), (&json!(executor), &json!(rule)));

    let job = server.ended(job["id"].as_str().unwrap()).await;
    assert_eq!((&job["state"], &job["output"], &job["error"]), (&json!("succeeded"), &json!({ "count": 168 }), &Value::Null));
    assert_eq!((&job["attempt"], &job["tags"]), (&json!(1), &json!({ "team": "search" })));
    assert!(job["timing"]["cpu_user_us"].is_u64(), "{job}");

    let result = server.get(&format!("/results/{}", job["id"].as_str().unwrap())).await.json();
    for field in ["id", "state", "output", "timing", "route", "accepted_at", "started_at", "finished_at", "tags"] {
        assert_eq!(result[field], job[field], "{field}");
    }
}

#[tokio::test]
async fn a_client_may_prefer_to_wait() {
    let server = Server::start().await;
    let prefer = async |seconds: &str, job: &Value| {
        server.request(Method::POST, "/jobs").header("Prefer", format!("wait={seconds}")).json(job).answer().await
    };
    let more =
        json!({ "priority": 7, "deadline_ms": 60_000, "retry": { "attempts": 4 }, "concurrency": { "key": "k", "limit": 1 } });
    let answer = prefer("30", &with(sleep(1), more)).await;
    assert_eq!((answer.status.as_u16(), answer.header("preference-applied")), (200, "wait=30"));
    let job = answer.json();
    assert_eq!((&job["state"], &job["output"]), (&json!("succeeded"), &json!({ "slept_ms": 1 })));
    // All of it, as whoever asks for it later is told.
    assert_eq!(job, server.get(answer.header("location")).await.json());
    assert_eq!((&job["priority"], &job["attempts"][0]["state"]), (&json!(7), &json!("succeeded")));

    let answer = prefer("0", &sleep(60_000)).await;
    assert_eq!((answer.status.as_u16(), answer.header("preference-applied")), (202, "wait=0"));
    let answer = prefer("soon", &sleep(1)).await;
    assert_eq!((answer.status.as_u16(), answer.headers.get("preference-applied")), (202, None));
}

#[tokio::test]
async fn a_client_may_prefer_a_short_answer() {
    let server = Server::start().await;
    let prefer = async |preference: &str, job: &Value| {
        server.request(Method::POST, "/jobs").header("Prefer", preference).json(job).answer().await
    };
    let answer = prefer("return=minimal", &sleep(60_000)).await;
    assert_eq!((answer.status.as_u16(), answer.header("preference-applied")), (202, "return=minimal"));
    let fields = answer.json().as_object().unwrap().clone();
    assert_eq!(fields.keys().collect::<Vec<_>>(), ["id", "state"]);
    assert_eq!(answer.header("location"), format!("/jobs/{}", fields["id"].as_str().unwrap()));
    // A result that was waited for is what the client wants to know.
    let answer = prefer("return=minimal, wait=30", &sleep(1)).await;
    assert_eq!((answer.status.as_u16(), answer.header("preference-applied")), (200, "wait=30"));
    assert_eq!(answer.json()["output"], json!({ "slept_ms": 1 }));
    assert!(prefer("return=representation", &sleep(1)).await.json()["route"].is_object());
}

#[tokio::test]
async fn a_wait_ends_with_the_job_or_with_the_time() {
    let server = Server::start().await;
    let id = server.submit(&sleep(60_000)).await;
    for wait in ["0", "0.05"] {
        let job = server.get(&format!("/jobs/{id}?wait={wait}")).await.json();
        assert!(job["finished_at"].is_null());
    }
    let path = format!("/jobs/{id}?wait=60");
    let (waited, cancelled) = tokio::join!(server.get(&path), async {
        server.in_state(&id, "running").await;
        server.delete(&format!("/jobs/{id}")).await
    });
    assert_eq!(cancelled.status, 202, "{}", cancelled.text);
    assert_eq!(waited.json()["state"], "cancelled");
    for wait in ["60.1", "-1", "nan", "inf", "long"] {
        assert_eq!(server.get(&format!("/jobs/{id}?wait={wait}")).await.problem(400).0, "bad-query", "{wait}");
    }
}

#[tokio::test]
async fn a_route_is_explained() {
    let server = Server::start().await;
    let id = server.submit(&primes()).await;
    let route = server.get(&format!("/jobs/{id}/route")).await.json();
    assert_eq!((&route["executor"], &route["rule"], &route["bound"]), (&json!("threads"), &json!("cpu_threads"), &json!("cpu")));
    assert_eq!((&route["asked"], &route["form"]), (&json!("auto"), &json!("blocking")));
    let considered = route["considered"].as_array().unwrap();
    assert_eq!(considered.len(), 3);
    for executor in considered {
        assert_eq!(executor["chosen"], executor["executor"] == "threads");
        assert!(executor["because"].is_string() && executor["capabilities"]["cancel"].is_string());
    }
}

#[tokio::test]
async fn a_job_is_cancelled_while_it_waits_and_while_it_runs() {
    let server = Server::start_with(&["--async-slots", "1"]).await;
    let runs = server.submit(&sleep(60_000)).await;
    server.in_state(&runs, "running").await;
    let waits = server.submit(&sleep(60_000)).await;

    let waiting = "state=scheduled,blocked,queued";
    let answer = server.delete(&format!("/jobs/{runs}?{waiting}")).await;
    assert_eq!(answer.problem(412).0, "in-another-state");
    assert_eq!(server.delete(&format!("/jobs/{waits}?state=running")).await.problem(412).0, "in-another-state");
    assert_eq!(server.delete(&format!("/jobs/{waits}?state=stopped")).await.problem(400).0, "bad-query");
    let answer = server.delete(&format!("/jobs/{waits}?{waiting}")).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["state"]), (200, &json!("cancelled")));
    assert_eq!(answer.json()["error"]["kind"], "cancelled");
    assert_eq!(server.get(&format!("/results/{waits}")).await.json()["timing"], Value::Null);

    assert_eq!(server.delete(&format!("/jobs/{runs}?state=running")).await.status, 202);
    assert_eq!(server.ended(&runs).await["state"], "cancelled");
    assert_eq!(server.delete(&format!("/jobs/{runs}")).await.problem(409).0, "already-finished");
}

#[tokio::test]
async fn a_job_that_takes_too_long_fails_and_can_be_run_again() {
    let server = Server::start().await;
    let id = server.submit(&with(sleep(60_000), json!({ "deadline_ms": 20 }))).await;
    let job = server.ended(&id).await;
    assert_eq!((&job["state"], &job["error"]["kind"], &job["attempt"]), (&json!("failed"), &json!("timeout"), &json!(1)));

    let answer = server.request(Method::POST, &format!("/jobs/{id}/retry")).answer().await;
    assert_eq!((answer.status.as_u16(), answer.header("location")), (202, format!("/jobs/{id}").as_str()));
    let job = server.until(|| async { Some(server.ended(&id).await).filter(|job| job["attempt"] == 2) }).await;
    assert_eq!(job["error"]["kind"], "timeout");
}

#[tokio::test]
async fn only_a_job_that_has_ended_is_run_again() {
    let server = Server::start().await;
    let id = server.submit(&sleep(60_000)).await;
    assert_eq!(server.request(Method::POST, &format!("/jobs/{id}/retry")).answer().await.problem(409).0, "not-finished");
    assert_eq!(server.get(&format!("/results/{id}")).await.problem(409).0, "not-finished");
}

#[tokio::test]
async fn failed_attempts_are_tried_again() {
    let server = Server::start().await;
    let retry = json!({ "deadline_ms": 10, "retry": { "attempts": 3, "backoff_ms": 1 } });
    let id = server.submit(&with(sleep(60_000), retry)).await;
    assert_eq!(server.ended(&id).await["attempt"], 3);
}

#[tokio::test]
async fn pages_hold_every_job_once() {
    let server = Server::start().await;
    let mut ids = Vec::new();
    for _ in 0..7 {
        ids.push(server.submit(&sleep(0)).await);
    }
    for (order, expected) in [("oldest", ids.clone()), ("newest", ids.iter().rev().cloned().collect())] {
        let mut path = format!("/jobs?order={order}&limit=3");
        let mut seen = Vec::new();
        loop {
            let page = server.get(&path).await;
            seen.extend(page.ids());
            let Some(cursor) = page.json()["next_cursor"].as_str().map(str::to_owned) else {
                assert!(page.headers.get("link").is_none());
                break;
            };
            assert!(page.header("link").contains(&cursor) && page.header("link").ends_with("rel=\"next\""));
            path = page.header("link").split(['<', '>']).nth(1).unwrap().to_owned();
        }
        assert_eq!(seen, expected);
    }
}

#[tokio::test]
async fn lists_are_filtered() {
    let server = Server::start().await;
    let slept = server.submit(&with(sleep(0), json!({ "tags": { "team": "a:b" } }))).await;
    server.ended(&slept).await;
    let waits = server.submit(&sleep(60_000)).await;
    let counted = server.submit(&with(primes(), json!({ "executor": "processes" }))).await;
    let counted_at = server.ended(&counted).await["accepted_at"].as_str().unwrap().to_owned();
    server.in_state(&waits, "running").await;

    for (query, expected) in [
        ("state=running", vec![&waits]),
        ("state=succeeded", vec![&counted, &slept]),
        ("state=queued", vec![]),
        ("bound=cpu", vec![&counted]),
        ("executor=async", vec![&waits, &slept]),
        ("workload=sleep&state=succeeded", vec![&slept]),
        ("tag=team:a:b", vec![&slept]),
        ("tag=team:x", vec![]),
        (&format!("since={counted_at}"), vec![&counted]),
        (&format!("until={counted_at}"), vec![&waits, &slept]),
        ("", vec![&counted, &waits, &slept]),
    ] {
        let ids = server.get(&format!("/jobs?{query}")).await.ids();
        assert_eq!(ids.iter().collect::<Vec<_>>(), expected, "{query}");
    }
    assert_eq!(server.get("/results?bound=io").await.ids(), [slept]);
}
