use reqwest::Method;
use reqwest::header::ACCEPT;
use rstest::rstest;
use serde_json::{Value, json};

use super::{Answer, Send as _, Server, primes, sleep, with};

async fn accepting(server: &Server, path: &str, media_type: &str) -> Answer {
    server.request(Method::GET, path).header(ACCEPT, media_type).answer().await
}

/// A server with results of three kinds: the ids, the earliest first.
async fn with_results() -> (Server, [String; 3]) {
    let server = Server::start().await;
    let ids = [
        server.submit(&sleep(0)).await,
        server.submit(&primes()).await,
        server.submit(&with(sleep(60_000), json!({ "deadline_ms": 1, "executor": "threads" }))).await,
    ];
    for id in &ids {
        server.ended(id).await;
    }
    (server, ids)
}

#[tokio::test]
async fn results_come_in_three_formats() {
    let (server, ids) = with_results().await;
    let page = server.get("/results?order=oldest").await;
    assert_eq!(page.ids(), ids);
    let items = page.json()["items"].as_array().unwrap().clone();

    let lines = accepting(&server, "/results?order=oldest", "application/x-ndjson").await;
    assert_eq!(lines.header("content-type"), "application/x-ndjson");
    let parsed: Vec<Value> = lines.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(parsed, items);

    let table = accepting(&server, "/results?order=oldest", "text/csv").await;
    assert_eq!(table.header("content-type"), "text/csv");
    let mut reader = csv::Reader::from_reader(table.text.as_bytes());
    let names = reader.headers().unwrap().clone();
    let rows: Vec<_> = reader.records().map(Result::unwrap).collect();
    let cell = |row: usize, name: &str| rows[row][names.iter().position(|column| column == name).unwrap()].to_owned();
    assert_eq!((0..3).map(|row| cell(row, "id")).collect::<Vec<_>>(), ids);
    assert_eq!((cell(1, "state"), cell(1, "output")), ("succeeded".into(), "{\"count\":168}".into()));
    assert_eq!(cell(1, "wall_us"), items[1]["timing"]["wall_us"].to_string());
    assert_eq!((cell(2, "state"), cell(2, "error_kind")), ("failed".into(), "timeout".into()));
}

#[rstest]
#[case("csv", "text/csv")]
#[case("ndjson", "application/x-ndjson")]
#[tokio::test]
async fn lines_carry_the_next_page_in_a_header(#[case] format: &str, #[case] media_type: &str) {
    let (server, ids) = with_results().await;
    let page = server.get(&format!("/results?order=oldest&limit=2&format={format}")).await;
    assert_eq!(page.header("content-type"), media_type);
    let next = page.header("link").split(['<', '>']).nth(1).unwrap().to_owned();
    let last = server.get(&next).await;
    assert!(page.text.contains(&ids[0]) && page.text.contains(&ids[1]) && !page.text.contains(&ids[2]));
    assert!(last.text.contains(&ids[2]) && last.headers.get("link").is_none());
}

#[tokio::test]
async fn lines_without_a_limit_are_all_there_are() {
    const JOBS: usize = 2_001;
    let server = Server::start().await;
    let batch = vec![with(sleep(0), json!({ "delay_ms": 3_600_000 })); JOBS];
    let accepted = server.request(Method::POST, "/jobs/batch").json(&batch).answer().await;
    assert_eq!(accepted.status, 202, "{}", accepted.text);
    let ids = accepted.ids();
    let lines = server.get("/jobs?order=oldest&format=ndjson").await;
    let id = |line: &str| serde_json::from_str::<Value>(line).unwrap()["id"].as_str().unwrap().to_owned();
    assert!(lines.text.lines().map(id).eq(ids.iter().cloned()) && lines.headers.get("link").is_none());
    let table = server.get("/jobs?order=oldest&format=csv").await;
    let mut reader = csv::Reader::from_reader(table.text.as_bytes());
    assert!(reader.records().map(|row| row.unwrap()[0].to_owned()).eq(ids));
    assert_eq!(server.get("/jobs").await.ids().len(), 50);
}

#[tokio::test]
async fn a_format_that_nobody_makes_is_not_acceptable() {
    let server = Server::start().await;
    assert_eq!(accepting(&server, "/results", "image/png").await.problem(406).0, "not-acceptable");
    assert_eq!(accepting(&server, "/results?format=json", "image/png").await.status, 200);
}

#[tokio::test]
async fn a_pretty_workload_stays_on_its_line() {
    let server = Server::start().await;
    let job = "{\"bound\": \"io\",\n \"workload\": {\n  \"type\": \"sleep\",\n  \"ms\": 0\n }\n}";
    let request = server.request(Method::POST, "/jobs").header("content-type", "application/json").body(job);
    let id = request.answer().await.json()["id"].as_str().unwrap().to_owned();
    server.ended(&id).await;
    let lines = server.get("/results?format=ndjson").await.text;
    assert_eq!(lines.lines().count(), 1);
    assert_eq!(serde_json::from_str::<Value>(&lines).unwrap()["workload"], json!({ "type": "sleep", "ms": 0 }));
}

#[rstest]
#[case("", &[("sleep io async", 1), ("primes cpu threads", 1), ("sleep io threads", 1)])]
#[case("by=", &[("", 3)])]
#[case("by=state&state=lost,failed", &[("failed", 1)])]
#[case("by=state", &[("succeeded", 2), ("failed", 1)])]
#[case("by=executor&workload=sleep", &[("async", 1), ("threads", 1)])]
#[case("by=bound&state=succeeded", &[("io", 1), ("cpu", 1)])]
#[tokio::test]
async fn a_summary_counts_every_result(#[case] query: &str, #[case] expected: &[(&str, u64)]) {
    let (server, _) = with_results().await;
    let summary = server.get(&format!("/results/summary?{query}")).await.json();
    let group = |item: &Value| {
        let names = ["workload", "bound", "executor", "state"].into_iter().filter_map(|name| item[name].as_str());
        (names.collect::<Vec<_>>().join(" "), item["count"].as_u64().unwrap())
    };
    let mut groups: Vec<_> = summary["items"].as_array().unwrap().iter().map(group).collect();
    let mut expected: Vec<_> = expected.iter().map(|&(name, count)| (name.to_owned(), count)).collect();
    groups.sort();
    expected.sort();
    assert_eq!(groups, expected);
    assert!(summary["items"][0]["wall_us"]["p50"].is_u64(), "{summary}");
}
