//! What is learned, what is found, and where measured routing sends jobs.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::patience::until;
use crate::{PATIENCE, Server, primes, sleep, with};

/// A job of one likeness that computes for well over ten milliseconds, tagged as if it waited.
fn mistagged() -> Value {
    with(primes(), json!({ "bound": "io", "workload": { "type": "primes", "below": 1_000_000 } }))
}

const KEY: &str = "/profiles/primes:below~2^20";

/// Runs so many jobs, one after the other.
async fn run(server: &Server, job: &Value, times: usize) -> Value {
    let mut last = Value::Null;
    for _ in 0..times {
        last = server.ended(&server.submit(job).await).await;
        assert_eq!(last["state"], "succeeded");
    }
    last
}

/// Runs such jobs until it was said of five that their tag is wrong: on a busy machine, it is not seen of each run. How many it took.
async fn run_until_advised(server: &Server, job: &Value) -> usize {
    let (mut runs, mut advised) = (0, 0);
    let running = async {
        while advised < 5 {
            let ended = run(server, job, 1).await;
            runs += 1;
            advised += usize::from(ended["timing"]["advice"].as_str().is_some_and(|advice| advice.contains("tag it cpu")));
        }
    };
    tokio::time::timeout(PATIENCE, running).await.expect("it is said of five runs");
    runs
}

#[tokio::test]
async fn runs_make_a_profile_and_findings() {
    let server = Server::start().await;
    assert_eq!(server.get(KEY).await.problem(404).0, "unknown-profile");
    let runs = run_until_advised(&server, &mistagged()).await;
    run(&server, &sleep(1), 1).await;
    let profile = server.get(KEY).await.json();
    assert_eq!((&profile["workload"], &profile["runs"], &profile["runtime"]), (&json!("primes"), &json!(runs), &json!("native")));
    let threads = &profile["executors"][0];
    assert_eq!((&threads["executor"], &threads["observed"]["cpu"]), (&json!("threads"), &json!(5)));
    assert!(threads["cpu_percent"]["p50"].is_u64() && threads["longest_poll_us"].is_null(), "{threads}");
    let list = server.get("/profiles").await.json();
    let keys: Vec<_> = list["items"].as_array().unwrap().iter().map(|profile| &profile["key"]).collect();
    assert_eq!(keys, ["primes:below~2^20", "sleep:ms~2^0"]);
    let page = server.get("/profiles?limit=1").await.json();
    let rest = server.get(&format!("/profiles?limit=1&cursor={}", page["next_cursor"].as_str().unwrap())).await.json();
    assert_eq!((&rest["items"][0]["key"], &rest["next_cursor"]), (&json!("sleep:ms~2^0"), &Value::Null));
    assert_eq!(server.get("/profiles?workload=sleep&executor=async").await.json()["items"].as_array().unwrap().len(), 1);
    assert_eq!(server.get("/profiles?executor=processes").await.json()["items"], json!([]));

    let findings = server.get("/findings").await.json();
    let finding = &findings["items"][0];
    assert_eq!(findings["items"].as_array().unwrap().len(), 1, "{findings}");
    assert_eq!(
        (&finding["kind"], &finding["key"], &finding["jobs"], &finding["of"]),
        (&json!("computes"), &json!("primes:below~2^20"), &json!(5), &json!(runs))
    );
    let evidence = finding["evidence"].as_str().unwrap();
    assert!(evidence.starts_with(&format!("5 of {runs} jobs")), "{finding}");
    assert!(evidence.contains("; the latest tagged io, but used"), "{finding}");
    assert_eq!(server.get("/findings?kind=held_loop").await.json()["items"], json!([]));
    let advised = server.get("/results?advice=any").await;
    assert_eq!(advised.ids().len(), 5);
    assert_eq!(server.get("/results?advice=computes&limit=2").await.ids().len(), 2);
    assert!(server.get("/results?advice=waits").await.ids().is_empty());
    assert_eq!(server.get("/jobs?advice=any").await.ids().len(), 5);
    assert_eq!(server.get("/results?advice=none").await.status, 400);
    assert_eq!(server.get("/metrics").await.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    shows(
        &server,
        &[
            &format!(r#"trine_jobs_finished_total{{workload="primes",bound="io",executor="threads",state="succeeded"}} {runs}"#),
            r#"trine_attempts_retried_total{executor="threads"} 0"#,
            &format!(r#"trine_job_wall_seconds_count{{executor="threads"}} {runs}"#),
            &format!(r#"trine_job_wall_seconds_bucket{{executor="threads",le="+Inf"}} {runs}"#),
            r#"trine_results_advised_total{kind="computes"} 5"#,
            r#"trine_findings{kind="computes"} 1.0"#,
            r#"trine_queue_slots{queue="threads-cpu"} 1.0"#,
            r#"trine_queue_oldest_seconds{queue="threads-cpu"} 0.0"#,
            r#"trine_queue_jobs{queue="threads-cpu",state="blocked"} 0.0"#,
            "trine_webhooks_pending 0.0",
            r#"trine_webhook_attempts_total{outcome="failed"} 0"#,
            "trine_profiles 2.0",
            r#"trine_http_request_seconds_count{operation="listResults",status="400"} 1"#,
            r#"trine_http_request_seconds_bucket{operation="listResults",status="400",le="+Inf"} 1"#,
        ],
    )
    .await;
    let fails = json!({
        "bound": "io",
        "executor": "threads",
        "workload": { "type": "file", "op": "read", "path": "nowhere" },
        "retry": { "attempts": 2, "backoff_ms": 1 },
    });
    assert_eq!(server.ended(&server.submit(&fails).await).await["attempt"], 2);
    shows(
        &server,
        &[
            r#"trine_jobs_finished_total{workload="file",bound="io",executor="threads",state="failed"} 1"#,
            r#"trine_attempts_retried_total{executor="threads"} 1"#,
        ],
    )
    .await;
}

/// Waits until the metrics have each of these lines once: an end is counted a moment after it can be read.
async fn shows(server: &Server, lines: &[&str]) {
    let begun = Instant::now();
    loop {
        let metrics = server.get("/metrics").await.text;
        let Some(line) = lines.iter().find(|line| metrics.lines().filter(|is| is == *line).count() != 1) else { return };
        assert!(begun.elapsed() < PATIENCE, "{line} is not once in\n{metrics}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What counters and histograms show.
async fn totals(server: &Server) -> BTreeMap<String, f64> {
    let text = server.get("/metrics").await.text;
    let lines = text.lines().filter_map(|line| line.rsplit_once(' ').filter(|_| line.starts_with("trine_")));
    let is_total = |name: &str| ["_total", "_count", "_sum", "_bucket"].iter().any(|end| name.ends_with(end));
    let totals = lines.filter(|(figure, _)| figure.split('{').next().is_some_and(is_total));
    totals.map(|(figure, value)| (figure.to_owned(), value.parse().unwrap())).collect()
}

#[tokio::test]
async fn what_is_counted_does_not_fall_when_a_job_is_run_again() {
    let server = Server::start().await;
    let id = server.submit(&sleep(3_600_000)).await;
    server.in_state(&id, "running").await;
    server.delete(&format!("/jobs/{id}")).await;
    assert_eq!(server.ended(&id).await["state"], "cancelled");
    let counted = |totals: &BTreeMap<String, f64>| totals[r#"trine_job_wall_seconds_count{executor="async"}"#] > 0.0;
    let before = server.until(|| async { Some(totals(&server).await).filter(counted) }).await;
    assert_eq!(server.post(&format!("/jobs/{id}/retry"), &Value::Null).await.status, 202);
    server.in_state(&id, "running").await;
    let after = totals(&server).await;
    let fallen: Vec<_> = before.iter().filter(|(figure, value)| after[*figure] < **value).collect();
    assert!(fallen.is_empty(), "{fallen:?}");
}

/// Runs such jobs until it is known what they do: on a busy machine, not each run tells.
async fn learn(server: &Server, job: &Value) -> Value {
    let learned = async || {
        run(server, job, 1).await;
        let profile = server.get(KEY).await.json();
        Some(profile["learned"].clone()).filter(|learned| learned["observed"] == "cpu")
    };
    until("it is known what the jobs do", learned).await
}

#[tokio::test]
async fn a_route_goes_by_what_was_measured_if_it_is_to() {
    let server = Server::start().await;
    let before = run(&server, &mistagged(), 19).await;
    assert_eq!((&before["route"]["rule"], &before["route"]["evidence"]), (&json!("io_blocking"), &Value::Null));
    let learned = learn(&server, &mistagged()).await;
    assert!(learned["runs"].as_u64().unwrap() >= 20, "{learned}");
    let advised = run(&server, &mistagged(), 1).await;
    let route = &advised["route"];
    assert_eq!(
        (&route["rule"], &route["evidence"]["executor"], &advised["routing"]),
        (&json!("io_blocking"), &json!("threads"), &Value::Null)
    );
    let reason = route["reason"].as_str().unwrap();
    let found = format!("measured to compute ({} runs of ", learned["runs"]);
    assert!(reason.contains(&found) && reason.ends_with("would choose threads"), "{reason}");
    let measured = run(&server, &with(mistagged(), json!({ "routing": "measured" })), 1).await;
    assert_eq!((&measured["route"]["rule"], &measured["routing"]), (&json!("measured_cpu"), &json!("measured")));
    assert!(measured["route"]["reason"].as_str().unwrap().starts_with("measured to compute: "), "{measured}");
    let explained = server.get(&format!("/jobs/{}/route", measured["id"].as_str().unwrap())).await.json();
    assert_eq!((&explained["reason"], &explained["evidence"]), (&measured["route"]["reason"], &measured["route"]["evidence"]));
    let threads = &explained["considered"][1];
    let speaks_for_it = threads["because"].as_str().unwrap().starts_with("threads compute on all cores");
    assert!(threads["chosen"] == true && speaks_for_it, "{threads}");
    let declared = run(&server, &with(mistagged(), json!({ "routing": "declared" })), 1).await;
    assert_eq!((&declared["route"]["rule"], &declared["route"]["evidence"]), (&json!("io_blocking"), &Value::Null));
    let insisted = with(mistagged(), json!({ "routing": "measured", "isolated": true }));
    assert_eq!(run(&server, &insisted, 1).await["route"]["rule"], "isolated");
    let (problem, pointer) = server.post("/jobs", &with(sleep(1), json!({ "routing": "best" }))).await.problem(422);
    assert_eq!((problem.as_str(), pointer.as_deref()), ("invalid-job", Some("/routing")));
}

#[tokio::test]
async fn the_setting_holds_where_a_job_does_not_say() {
    let server = Server::start_with(&["--routing", "measured"]).await;
    run(&server, &mistagged(), 19).await;
    learn(&server, &mistagged()).await;
    assert_eq!(run(&server, &mistagged(), 1).await["route"]["rule"], "measured_cpu");
    assert_eq!(run(&server, &with(mistagged(), json!({ "routing": "declared" })), 1).await["route"]["rule"], "io_blocking");
}

#[tokio::test]
async fn history_says_what_would_have_changed() {
    let server = Server::start().await;
    let on_loop = with(mistagged(), json!({ "executor": "async" }));
    run(&server, &on_loop, 19).await;
    learn(&server, &on_loop).await;
    let is_told = |job: &Value| job["timing"]["observed"] == "cpu";
    let job = server.until(|| async { Some(run(&server, &on_loop, 1).await).filter(is_told) }).await;
    let held = job["timing"]["advice"].as_str().unwrap();
    assert!(held.contains("and held the event loop for"), "{held}");
    let runs = server.get(KEY).await.json()["runs"].clone();
    // What was learned is written once a second.
    let found = server
        .until(|| async {
            let found = server.get("/profiles/what-if").await.json();
            (found["items"][0]["runs"] == runs).then_some(found)
        })
        .await;
    let item = &found["items"][0];
    assert_eq!((&item["key"], &item["executor"], &item["bound"]), (&json!("primes:below~2^20"), &json!("async"), &json!("io")));
    assert_eq!((&item["would"], &item["rule"], &item["observed"]), (&json!("threads"), &json!("measured_cpu"), &json!("cpu")));
    assert!(item["gain_loop_us"].as_u64().unwrap() > 0 && item["gain_loop_us"] == item["held_us"], "{item}");
    assert_eq!(found["held_runs"], item["held_runs"]);
    let earlier = server.get("/profiles/what-if?until=2026-01-01T00:00:00Z").await.json();
    assert_eq!((&earlier["items"], &earlier["held_us"]), (&json!([]), &json!(0)));
    assert_eq!(server.get("/profiles/what-if?since=2026-01-02T00:00:00Z&until=2026-01-01T00:00:00Z").await.status, 400);
    // What is answered is RFC 3339 as well, which has no years before 0.
    let first = server.get("/profiles/what-if?until=0000-01-02T12:00:00Z").await.json();
    assert_eq!(first["since"], "0000-01-01T00:00:00.000000Z");
    assert_eq!(server.get("/profiles/what-if?since=-009999-01-02T01:59:59Z").await.problem(400).0, "bad-query");
}
