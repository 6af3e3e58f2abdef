use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Method, StatusCode};
use serde_json::json;

use super::{Send as _, Server, sleep};

#[tokio::test]
async fn every_workload_is_described_by_what_it_takes() {
    // The example of a command names one that the operator offers.
    let offer = "[word-count]\npath = '/bin/sh'\narguments = ['{what}']\nparameters.what = { type = 'text' }";
    let server = Server::start_with(&["--commands", offer]).await;
    // And that of a function one that is registered.
    let source = "def main(width, height): pass";
    let deployed = server.request(Method::PUT, "/functions/resize").header(CONTENT_TYPE, "text/x-python").body(source);
    assert_eq!(deployed.answer().await.status, StatusCode::CREATED);
    let workloads = server.get("/workloads").await.json();
    let workloads = workloads["items"].as_array().unwrap();
    let names: Vec<_> = workloads.iter().map(|workload| workload["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["command", "file", "function", "http", "image", "primes", "python", "sleep"]);
    for workload in workloads {
        let name = &workload["name"];
        assert_eq!((&workload["example"]["type"], &workload["schema"]["properties"]["type"]["enum"]), (name, &json!([name])));
        assert!(workload["about"].is_string() && workload["form"].is_string(), "{workload}");
        assert!(workload["schema"]["required"].as_array().unwrap().contains(&json!("type")), "{workload}");
        let job = server.submit(&json!({ "bound": workload["bound"], "workload": workload["example"] })).await;
        // Others need a file, a network or a program that is there.
        if ["image", "primes", "sleep"].contains(&name.as_str().unwrap()) {
            let ended = server.ended(&job).await;
            assert_eq!(ended["state"], "succeeded", "{ended}");
        }
    }
}

#[tokio::test]
async fn executors_say_what_they_can_do_and_how_busy_they_are() {
    let server = Server::start_with(&["--async-slots", "2"]).await;
    for _ in 0..5 {
        server.submit(&sleep(60_000)).await;
    }
    let executors = server
        .until(|| async {
            let executors = server.get("/executors").await.json();
            // Worker processes are started while the first requests are answered.
            let is_there = executors["items"][2]["queues"][0]["workers"][0]["pid"].is_u64();
            (is_there && executors["items"][0]["queues"][0]["running"] == 2).then_some(executors)
        })
        .await;
    let [waits, computes, isolates] = executors["items"].as_array().unwrap().as_slice() else { panic!("three: {executors}") };
    assert_eq!([&waits["name"], &computes["name"], &isolates["name"]], ["async", "threads", "processes"]);
    let expected = json!({ "name": "async", "slots": 2, "queued": 3, "scheduled": 0, "blocked": 0, "running": 2, "workers": [] });
    assert_eq!(waits["queues"][0], expected);
    assert_eq!(computes["queues"].as_array().unwrap().len(), 3);
    assert_eq!((&isolates["capabilities"]["cancel"], &isolates["capabilities"]["isolation"]), (&json!("always"), &json!(true)));
    assert!(waits["loop_lag_us"].is_u64() && computes["loop_lag_us"].is_null());
}

#[tokio::test]
async fn executors_say_how_programs_are_confined() {
    let server = Server::start_with(&["--sandbox", "off"]).await;
    let sandbox = server.get("/executors").await.json()["sandbox"].take();
    assert_eq!(sandbox["mode"], "off");
    // One sentence for each protection that this kernel lacks.
    let kernel = &sandbox["kernel"];
    let there = [kernel["landlock_abi"] != 0, kernel["seccomp"] == true, kernel["no_new_privs"] == true];
    assert_eq!(kernel["missing"].as_array().unwrap().len(), there.iter().filter(|there| !**there).count(), "{kernel}");
}

#[tokio::test]
async fn the_documentation_comes_from_the_binary() {
    let server = Server::start().await;
    let document = server.get("/openapi.json").await.json();
    assert!(document["paths"]["/jobs"]["post"].is_object());
    let page = server.get("/docs/").await;
    assert!(page.header("content-type").starts_with("text/html") && page.text.contains("swagger-ui"));
    assert!(server.get("/docs/swagger-initializer.js").await.text.contains("/openapi.json"));
    assert_eq!(server.get("/docs/swagger-ui-bundle.js").await.status, 200);
    let start = server.request(Method::GET, "/").header(ACCEPT, "text/html").answer().await;
    assert_eq!((start.status, start.header("location")), (StatusCode::SEE_OTHER, "/docs/"));
}

#[tokio::test]
async fn it_lives_and_is_ready() {
    let server = Server::start().await;
    for path in ["/healthz", "/readyz"] {
        assert_eq!(server.get(path).await.json(), json!({ "status": "ok" }));
    }
}
