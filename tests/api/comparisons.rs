use reqwest::Method;
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use serde_json::{Value, json};

use super::{Answer, Send as _, Server, with};

/// One that is soon over.
fn short() -> Value {
    json!({
        "bound": "io",
        "workload": { "type": "sleep", "ms": 10 },
        "tasks": 8,
        "concurrency": [1, 8],
        "budget_ms": 1_000,
    })
}

/// The same with time for repetitions also on a busy machine: a verdict needs some.
fn patient() -> Value {
    with(short(), json!({ "budget_ms": 30_000 }))
}

/// One that takes longer than anybody waits.
fn long() -> Value {
    with(short(), json!({ "workload": { "type": "sleep", "ms": 600_000 }, "budget_ms": 3_600_000 }))
}

async fn ask(server: &Server, request: &Value) -> String {
    let answer = server.post("/comparisons", request).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    let asked = answer.json();
    let id = asked["id"].as_str().unwrap().to_owned();
    assert_eq!((&asked["state"], answer.header("location")), (&json!("queued"), format!("/comparisons/{id}").as_str()));
    id
}

async fn ended(server: &Server, id: &str) -> Value {
    server
        .until(|| async {
            let comparison = server.get(&format!("/comparisons/{id}?wait=20")).await.json();
            (!comparison["finished_at"].is_null()).then_some(comparison)
        })
        .await
}

async fn running(server: &Server, id: &str) -> Value {
    server
        .until(|| async {
            let comparison = server.get(&format!("/comparisons/{id}")).await.json();
            (comparison["state"] == "running" && !comparison["progress"].is_null()).then_some(comparison)
        })
        .await
}

async fn accepting(server: &Server, path: &str, media_type: &str) -> (Answer, Vec<u8>) {
    let bytes = server.request(Method::GET, path).header(ACCEPT, media_type).send().await.unwrap().bytes().await.unwrap();
    let answer = server.request(Method::HEAD, path).header(ACCEPT, media_type).answer().await;
    (answer, bytes.to_vec())
}

#[tokio::test]
async fn waiting_is_compared_and_shown_in_every_form() {
    let server = Server::start().await;
    let id = ask(&server, &patient()).await;
    let comparison = ended(&server, &id).await;
    assert_eq!((&comparison["state"], &comparison["error"]), (&json!("finished"), &Value::Null), "{comparison}");

    let matrix = comparison["matrix"].as_array().unwrap();
    assert_eq!(matrix.len(), 6, "three executors at two levels");
    for row in matrix {
        assert_eq!((&row["failures"], row["interpreter"].is_null()), (&json!(0), true), "{row}");
        let (low, high) = (row["spread"]["low"].as_f64().unwrap(), row["spread"]["high"].as_f64().unwrap());
        let speedup = row["speedup"].as_f64().unwrap();
        assert!(low <= speedup && speedup <= high && row["throughput_per_s"].as_f64().unwrap() > 0.0, "{row}");
        let latency = &row["latency_us"];
        assert!(latency["p50"].as_u64().unwrap() >= 10_000 && latency["p50"].as_u64() <= latency["p99"].as_u64(), "{row}");
        // What can't be measured there is absent.
        assert_eq!(row["longest_poll_us"].is_u64(), row["executor"] == "async", "{row}");
        assert_eq!(row["max_rss_bytes"].is_u64(), row["executor"] == "processes", "{row}");
        assert!(row["handover"]["cost_us"].is_u64() && row["handover"]["gained_us"].is_i64(), "{row}");
    }
    let wide = |executor| matrix.iter().find(|row| row["executor"] == executor && row["concurrency"] == 8).unwrap();
    assert_eq!((&wide("processes")["at_once"], &wide("async")["at_once"]), (&json!(1), &json!(8)));
    assert!(wide("async")["speedup"].as_f64().unwrap() > wide("processes")["speedup"].as_f64().unwrap(), "{comparison}");
    for control in ["waiting", "computing"] {
        assert_eq!(comparison["controls"][control]["rows"].as_array().unwrap().len(), 3, "{comparison}");
    }
    let verdict = &comparison["verdict"];
    // On a machine that is too busy to tell, that is the truth, and the verdict.
    assert!(["async", "threads", "inconclusive"].map(Value::from).contains(&verdict["executor"]), "{verdict}");
    let because = verdict["because"].as_str().unwrap();
    assert!(verdict["executor"] == "inconclusive" || because.contains("It waits"), "{verdict}");
    assert!(comparison["inline"][0]["cpu_share"].as_f64().unwrap() < 0.3);

    let path = format!("/comparisons/{id}");
    let (page, html) = accepting(&server, &path, "text/html").await;
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    let html = String::from_utf8(html).unwrap();
    assert!(html.starts_with("<!doctype html>") && html.contains("<h1>"), "{html}");
    let without_icon = html.replace("href=\"data:,\"", "");
    for external in ["src=", "href=", "@import", "<script"] {
        assert!(!without_icon.contains(external), "the page stands alone, but has {external}");
    }
    assert_eq!(server.get(&format!("{path}/report.html")).await.text, html);
    for of in ["", "?of=speedup", "?of=latency", "?of=bystander"] {
        let (svg, text) = accepting(&server, &format!("{path}/chart.svg{of}"), "*/*").await;
        assert_eq!(svg.header("content-type"), "image/svg+xml");
        let text = String::from_utf8(text).unwrap();
        let document = roxmltree::Document::parse(&text).unwrap();
        assert_eq!(document.root_element().tag_name().name(), "svg");
        let (png, bytes) = accepting(&server, &format!("{path}/chart.png{of}"), "*/*").await;
        assert_eq!(png.header("content-type"), "image/png");
        assert_eq!(image::load_from_memory(&bytes).unwrap().width(), 1_920);
    }
    for (media_type, first) in [("image/svg+xml", &b"<svg"[..]), ("image/png", b"\x89PNG")] {
        let (answer, bytes) = accepting(&server, &path, media_type).await;
        assert_eq!(answer.header("content-type"), media_type);
        assert!(bytes.starts_with(first));
    }
    assert_eq!(server.request(Method::GET, &path).header(ACCEPT, "audio/ogg").answer().await.problem(406).0, "not-acceptable");
    assert_eq!(server.get(&format!("{path}/chart.svg?of=luck")).await.problem(400).0, "bad-query");
    assert_eq!(server.delete(&path).await.status, 204);
    assert_eq!(server.delete(&path).await.problem(404).0, "unknown-comparison");
    assert_eq!(server.get(&path).await.problem(404).0, "unknown-comparison");
}

#[tokio::test]
async fn what_is_too_short_or_gains_nothing_is_said_so() {
    let server = Server::start().await;
    // A wait of nothing: all of it is hand-over.
    let id = ask(&server, &with(patient(), json!({ "workload": { "type": "sleep", "ms": 0 }, "tasks": 64 }))).await;
    let verdict = ended(&server, &id).await["verdict"].take();
    assert_eq!(verdict["executor"], "too_short", "{verdict}");
    assert!(verdict["speedup"].is_null() && verdict["because"].as_str().unwrap().contains("handing it over"), "{verdict}");
}

#[tokio::test]
async fn what_fails_has_no_report_but_a_reason() {
    let server = Server::start().await;
    let id = ask(&server, &with(short(), json!({ "workload": { "type": "file", "op": "read", "path": "nowhere" } }))).await;
    let comparison = ended(&server, &id).await;
    assert_eq!((&comparison["state"], comparison.get("matrix")), (&json!("failed"), None));
    assert!(comparison["error"].as_str().unwrap().contains("nowhere"), "{comparison}");
    assert_eq!(server.get(&format!("/comparisons/{id}/report.html")).await.problem(409).0, "no-report");
    assert_eq!(server.get(&format!("/comparisons/{id}/chart.png")).await.problem(409).0, "no-report");
}

#[tokio::test]
async fn one_runs_at_a_time_and_both_can_be_cancelled() {
    let server = Server::start().await;
    let (first, second) = (ask(&server, &long()).await, ask(&server, &long()).await);
    let seen = running(&server, &first).await;
    assert!(seen["progress"]["percent"].is_number() && !seen["progress"]["doing"].as_str().unwrap().is_empty(), "{seen}");
    assert_eq!(server.get(&format!("/comparisons/{second}")).await.json()["state"], "queued");
    let waiting = server.delete(&format!("/comparisons/{second}")).await;
    assert_eq!((waiting.status.as_u16(), &waiting.json()["state"]), (200, &json!("cancelled")));
    assert_eq!(server.delete(&format!("/comparisons/{first}")).await.status, 202);
    assert_eq!(ended(&server, &first).await["state"], "cancelled");
    // What waited behind them runs.
    let third = ask(&server, &short()).await;
    assert_eq!(ended(&server, &third).await["state"], "finished");
    let first_page = server.get("/comparisons?limit=2").await;
    assert_eq!(first_page.ids(), [third.as_str(), &second]);
    assert!(
        first_page.json()["items"][0]["verdict"]["because"].is_string() && first_page.json()["items"][0].get("matrix").is_none()
    );
    let cursor = first_page.json()["next_cursor"].as_str().unwrap().to_owned();
    let last_page = server.get(&format!("/comparisons?limit=2&cursor={cursor}")).await;
    assert_eq!((last_page.ids(), &last_page.json()["next_cursor"]), (vec![first], &Value::Null));
}

#[tokio::test]
async fn what_is_wrong_is_pointed_at() {
    let server = Server::start().await;
    let wrong = [
        (json!({ "workload": { "type": "sleep" } }), "/workload/ms"),
        (json!({ "workload": { "type": "slep", "ms": 1 } }), "/workload/type"),
        (json!({ "workload": { "type": "sleep", "ms": { "$output": "a" } } }), "/workload/ms/$output"),
        (json!({ "workload": 7 }), "/workload"),
        (json!({ "bound": "gpu" }), "/bound"),
        (json!({ "tasks": 0 }), "/tasks"),
        (json!({ "concurrency": [] }), "/concurrency"),
        (json!({ "concurrency": [1, 9] }), "/concurrency/1"),
        (json!({ "executors": [] }), "/executors"),
        (json!({ "executors": ["rayon"] }), "/executors/0"),
        (json!({ "interpreters": ["python3"] }), "/interpreters"),
        (json!({ "budget_ms": 1 }), "/budget_ms"),
        (json!({ "colour": "red" }), "/colour"),
    ];
    for (field, pointer) in wrong {
        let answer = server.post("/comparisons", &with(short(), field.clone())).await;
        assert_eq!(answer.problem(422), ("invalid-comparison".into(), Some(pointer.into())), "{field}");
    }
    // Each task under way has the workload in memory.
    let long = "x".repeat(1 << 20);
    let long = json!({ "workload": { "type": "python", "source": "def main(x): pass", "args": [long] }, "tasks": 512, "concurrency": [1, 512] });
    let answer = server.post("/comparisons", &with(short(), long)).await;
    assert_eq!(answer.problem(422).1.as_deref(), Some("/concurrency/1"));
    let python = json!({ "workload": { "type": "python", "source": "def main(): pass" }, "interpreters": ["python9"] });
    let answer = server.post("/comparisons", &with(short(), python)).await;
    assert_eq!(answer.problem(422).1.as_deref(), Some("/interpreters/0"));
    let text = server.request(Method::POST, "/comparisons").header(CONTENT_TYPE, "application/json").body("{");
    assert_eq!(text.answer().await.problem(400).0, "malformed-json");
    assert_eq!(server.get("/comparisons/1").await.problem(404).0, "unknown-comparison");
    assert_eq!(server.delete("/comparisons/01997d3e-8c00-7000-8000-000000000000").await.problem(404).0, "unknown-comparison");
    assert_eq!(server.get("/comparisons?limit=0").await.problem(400).0, "bad-query");
    assert!(server.get("/comparisons").await.ids().is_empty(), "nothing was kept of all that");
}

#[tokio::test]
async fn work_that_is_longer_than_its_budget_is_said_to_be() {
    let server = Server::start().await;
    let request = with(long(), json!({ "budget_ms": 1_000 }));
    let comparison = ended(&server, &ask(&server, &request).await).await;
    let error = comparison["error"].as_str().unwrap();
    assert_eq!(error, "one task alone takes longer than all of it may, 1 s: give it a larger `budget_ms`");
}

#[tokio::test]
async fn python_is_compared_with_its_lock() {
    let server = Server::start_with(&["--python-processes", "2"]).await;
    let source = "def main(n):\n    total = 0\n    for i in range(n):\n        total += i * i % 7\n    return total\n";
    let workload = json!({ "type": "python", "source": source, "args": [50_000] });
    let request = json!({ "bound": "cpu", "workload": workload, "tasks": 4, "concurrency": [2], "budget_ms": 2_000 });
    let comparison = ended(&server, &ask(&server, &request).await).await;
    assert_eq!((&comparison["state"], &comparison["runtime"]), (&json!("finished"), &json!("python")), "{comparison}");
    assert_eq!(comparison["matrix"].as_array().unwrap().len(), 3);
    let inline = &comparison["inline"][0];
    assert_eq!((&inline["interpreter"], inline["max_rss_bytes"].is_u64()), (&json!("python3"), true), "{inline}");
    let gil = &comparison["gil"][0];
    assert_eq!((&gil["interpreter"], &gil["gil"], &gil["concurrency"].is_u64()), (&json!("python3"), &json!(true), &true));
    assert!(gil["waiting"].is_number() && gil["computing"].is_number(), "{gil}");
    assert_eq!(comparison["controls"]["waiting"]["workload"]["type"], "python");

    // What its limits need a process for runs nowhere else, as no job of it does.
    let limited =
        server.request(Method::PUT, "/functions/limited?executor=processes&cpu_ms=1000").header(CONTENT_TYPE, "text/x-python");
    let limited = limited.body("def main(): pass").answer().await;
    assert_eq!(limited.status, 201, "{}", limited.json());
    let request =
        json!({ "bound": "cpu", "workload": { "type": "function", "name": "limited" }, "tasks": 4, "concurrency": [2] });
    let answer = server.post("/comparisons", &with(request.clone(), json!({ "executors": ["processes", "threads"] }))).await;
    assert_eq!(answer.problem(422), ("invalid-comparison".into(), Some("/executors/1".into())));
    let kept = server.post("/comparisons", &request).await;
    assert_eq!((kept.status.as_u16(), &kept.json()["executors"]), (202, &json!(["processes"])), "{}", kept.json());
}
