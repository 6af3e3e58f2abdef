//! `/schedules`: made, looked at, paused, run and removed.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{Server, primes, sleep, with};

/// Due once a year.
fn yearly(name: &str) -> Value {
    json!({ "name": name, "cron": "0 0 1 1 *", "timezone": "Europe/Paris", "job": primes() })
}

async fn create(server: &Server, schedule: &Value) -> Value {
    let answer = server.post("/schedules", schedule).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    answer.json()
}

#[tokio::test]
async fn a_schedule_is_made_and_shows_when_it_is_due() {
    let server = Server::start().await;
    let answer = server.post("/schedules", &yearly("new-year")).await;
    assert_eq!((answer.status.as_u16(), answer.header("location")), (201, "/schedules/new-year"));
    let schedule = answer.json();
    assert_eq!((&schedule["cron"], &schedule["timezone"]), (&json!("0 0 1 1 *"), &json!("Europe/Paris")));
    assert_eq!(
        (&schedule["catch_up"], &schedule["overlap"], &schedule["paused"]),
        (&json!("skip"), &json!("allow"), &json!(false))
    );
    assert_eq!(schedule["job"], primes());
    let next = schedule["next_runs"].as_array().unwrap();
    assert!(next.len() == 5 && next.iter().all(|at| at.as_str().unwrap().ends_with("-12-31T23:00:00.000000Z")), "{next:?}");
    let seen = server.get("/schedules/new-year").await.json();
    assert_eq!((&seen["next_runs"], &seen["last_runs"]), (&schedule["next_runs"], &json!([])));
    let again = server.post("/schedules", &yearly("new-year")).await;
    assert_eq!(again.problem(409).0, "schedule-exists");
    let unnamed = json!({ "cron": "@daily", "job": primes() });
    assert_eq!(create(&server, &with(unnamed, json!({ "name": "d" }))).await["timezone"], "UTC");
}

#[tokio::test]
async fn what_is_due_runs() {
    let server = Server::start().await;
    create(&server, &json!({ "name": "pulse", "cron": "* * * * * *", "overlap": "skip", "job": sleep(1) })).await;
    let runs = server
        .until(|| async {
            let runs = server.get("/schedules/pulse").await.json()["last_runs"].clone();
            (runs.as_array().unwrap().len() >= 2).then_some(runs)
        })
        .await;
    for run in runs.as_array().unwrap().iter().filter(|run| run["outcome"] == "submitted") {
        assert_eq!((&run["by_hand"], &run["reason"]), (&json!(false), &Value::Null));
        assert_eq!(server.ended(run["job"].as_str().unwrap()).await["state"], "succeeded");
    }
    assert_ne!(runs[0]["due_at"], runs[1]["due_at"]);
}

#[tokio::test]
async fn a_schedule_is_replaced_paused_run_and_removed() {
    let server = Server::start().await;
    let put = async |name: &str, schedule: &Value| {
        use crate::Send as _;
        server.request(reqwest::Method::PUT, &format!("/schedules/{name}")).json(schedule).answer().await
    };
    let order = async |what: &str| {
        use crate::Send as _;
        server.request(reqwest::Method::POST, &format!("/schedules/{what}")).answer().await
    };
    let unnamed = json!({ "cron": "0 0 1 1 *", "job": primes() });
    assert_eq!(put("a", &unnamed).await.status, 201);
    let replaced = put("a", &with(yearly("a"), json!({ "overlap": "queue" }))).await;
    assert_eq!((replaced.status.as_u16(), &replaced.json()["overlap"]), (200, &json!("queue")));
    assert_eq!(put("a", &yearly("b")).await.problem(422), ("invalid-schedule".into(), Some("/name".into())));

    let paused = order("a/pause").await;
    assert_eq!((paused.status.as_u16(), &paused.json()["next_runs"]), (200, &json!([])));
    assert_eq!(put("a", &unnamed).await.json()["paused"], true);
    let run = order("a/run").await;
    let job = run.json();
    let id = job["id"].as_str().unwrap();
    assert_eq!(server.get("/jobs?tag=trine-schedule:a").await.ids(), [id]);
    assert_eq!((run.status.as_u16(), run.header("location")), (202, format!("/jobs/{id}").as_str()));
    assert_eq!(server.ended(id).await["output"]["count"], 168);
    let runs = server.get("/schedules/a").await.json()["last_runs"].clone();
    assert_eq!((&runs[0]["job"], &runs[0]["by_hand"], &runs[0]["outcome"]), (&json!(id), &json!(true), &json!("submitted")));
    let metrics = server.get("/metrics").await.text;
    for line in [
        r#"trine_schedules{state="active"} 0.0"#,
        r#"trine_schedules{state="paused"} 1.0"#,
        r#"trine_schedule_times_total{outcome="submitted"} 1"#,
        r#"trine_schedule_times_total{outcome="missed"} 0"#,
    ] {
        assert!(metrics.lines().any(|is| is == line), "{line} is not in\n{metrics}");
    }
    assert_eq!(runs[0]["state"], "succeeded");
    // A list has the latest run of each.
    create(&server, &yearly("b")).await;
    let listed = server.get("/schedules").await.json()["items"].clone();
    assert_eq!((&listed[0]["last_runs"], &listed[1]["last_runs"]), (&json!([runs[0]]), &json!([])));
    assert_eq!(put("a", &unnamed).await.json()["last_runs"], json!([runs[0]]));
    let resumed = order("a/resume").await.json();
    assert_eq!((resumed["next_runs"].as_array().unwrap().len(), &resumed["last_runs"]), (5, &json!([runs[0]])));

    assert_eq!(server.delete("/schedules/a").await.status, 204);
    for answer in [
        server.get("/schedules/a").await,
        server.delete("/schedules/a").await,
        order("a/pause").await,
        order("a/resume").await,
        order("a/run").await,
    ] {
        assert_eq!(answer.problem(404).0, "unknown-schedule");
    }
}

#[tokio::test]
async fn the_secret_of_a_webhook_is_not_shown() {
    let server = Server::start().await;
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let job = |webhook: Value| with(primes(), json!({ "priority": 3, "webhook": webhook }));
    let shown = job(json!({ "url": "https://nobody.invalid/hook", "events": ["failed"] }));
    let given = job(with(shown["webhook"].clone(), json!({ "secret": secret })));
    let schedule = with(yearly("a"), json!({ "job": given }));
    let order = async |method, path: &str| {
        use crate::Send as _;
        server.request(method, path).json(&schedule).answer().await
    };
    for answer in [
        order(Method::POST, "/schedules").await,
        order(Method::PUT, "/schedules/a").await,
        order(Method::POST, "/schedules/a/pause").await,
        order(Method::POST, "/schedules/a/resume").await,
        server.get("/schedules/a").await,
    ] {
        assert_eq!(answer.json()["job"], shown, "{}", answer.text);
    }
    assert!(!server.get("/schedules").await.text.contains("whsec_"));
}

#[tokio::test]
async fn lists_have_pages() {
    let server = Server::start().await;
    for name in ["c", "a", "b"] {
        create(&server, &yearly(name)).await;
    }
    let page = |answer: Value| {
        let names: Vec<_> = answer["items"].as_array().unwrap().iter().map(|item| item["name"].clone()).collect();
        (names, answer["next_cursor"].as_str().map(str::to_owned))
    };
    let (names, cursor) = page(server.get("/schedules?limit=2").await.json());
    assert_eq!(names, ["a", "b"]);
    let (names, cursor) = page(server.get(&format!("/schedules?limit=2&cursor={}", cursor.unwrap())).await.json());
    assert_eq!((names, cursor), (vec![json!("c")], None));
    assert_eq!(server.get("/schedules?limit=0").await.problem(400).0, "bad-query");
}

#[tokio::test]
async fn what_is_wrong_is_pointed_at() {
    let server = Server::start().await;
    let wrong = [
        (json!({ "name": null }), "/name"),
        (json!({ "name": "A b" }), "/name"),
        (json!({ "cron": "often" }), "/cron"),
        (json!({ "cron": "* * * *" }), "/cron"),
        (json!({ "cron": "0 0 30 2 *" }), "/cron"),
        (json!({ "cron": "*/61 * * * *" }), "/cron"),
        (json!({ "cron": 5 }), "/cron"),
        (json!({ "timezone": "Europe/Lutetia" }), "/timezone"),
        (json!({ "catch_up": "maybe" }), "/catch_up"),
        (json!({ "overlap": "maybe" }), "/overlap"),
        (json!({ "colour": 1 }), "/colour"),
        (json!({ "job": 7 }), "/job"),
        (json!({ "job": {} }), "/job/workload"),
        (json!({ "job": { "bound": "cpu", "workload": { "type": "primes", "below": "x" } } }), "/job/workload/below"),
        (json!({ "job": { "bound": "cpu", "workload": { "type": "nothing" } } }), "/job/workload/type"),
        (json!({ "job": { "bound": "cpu", "workload": { "type": "function", "name": "f" } } }), "/job/workload/name"),
        (json!({ "job": { "bound": "io", "workload": { "type": "http", "url": "http://127.0.0.1/" } } }), "/job/workload/url"),
        (json!({ "job": with(primes(), json!({ "run_at": "2030-01-01T00:00:00Z" })) }), "/job/run_at"),
        (json!({ "job": with(primes(), json!({ "unique": {} })) }), "/job/unique"),
    ];
    for (wrong, pointer) in wrong {
        let answer = server.post("/schedules", &with(yearly("a"), wrong)).await;
        assert_eq!(answer.problem(422), ("invalid-schedule".into(), Some(pointer.into())), "{}", answer.text);
    }
}
