//! The system gives no more file descriptors, or lets no file grow any further.

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::server::{PATIENCE, Server, client, folder, log, program, until};

/// How many the server may have. It needs some fifty for itself.
const FILES: usize = 120;
const JOBS: usize = 400;

/// A site that answers when it is told to.
async fn site(answers: watch::Receiver<bool>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut answers = answers.clone();
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = answers.wait_for(|answers| *answers).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
            });
        }
    });
    address
}

#[tokio::test]
async fn without_file_descriptors_it_says_so_and_goes_on_when_there_are_some() {
    let folder = folder();
    let (answer, answers) = watch::channel(false);
    let url = site(answers).await;
    let mut command = program("sh");
    command.args(["-c", &format!("ulimit -n {FILES} && exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_trine")]);
    let settings = [("TRINE_HTTP_ALLOW", "127.0.0.1"), ("TRINE_PYTHON_INTERPRETERS", "none"), ("TRINE_PROCESSES", "1")];
    let server = Server::start_by(command, folder.path(), &settings).await;
    let fetch = json!({"bound": "io", "workload": {"type": "http", "url": url, "timeout_ms": 120_000}});
    let ids = server.submit_all(&vec![fetch.clone(); JOBS]).await;
    // Those that find none fail, and say why; the connection that there is still is answered.
    let failed = async || {
        let page = server.get("/results?state=failed&limit=1").await;
        page["items"].as_array().unwrap().first().map(|result| result["error"]["message"].as_str().unwrap().to_owned())
    };
    let message = until("a job finds none", failed).await;
    assert!(message.contains("Too many open files"), "{message}");
    // New connections are not accepted, which the log says, or wait until they are.
    let strangers: Vec<_> = (0..20)
        .map(|_| {
            let (stranger, url) = (client(), format!("{}/healthz", server.url));
            tokio::spawn(async move { stranger.get(url).timeout(PATIENCE).send().await.map(|answer| answer.status().as_u16()) })
        })
        .collect();
    answer.send(true).unwrap();
    for stranger in strangers {
        let status = stranger.await.unwrap();
        assert!(matches!(status, Ok(200 | 503)) || status.is_err(), "{status:?}");
    }
    // Then all is as it was: every job has ended, and the next ones find what they need.
    for id in &ids {
        server.until_ended(id).await;
    }
    server.until_ready(true).await;
    assert_eq!(client().get(format!("{}/readyz", server.url)).send().await.unwrap().status(), 200);
    let next = server.submit(&fetch).await;
    server.until_state(&next, "succeeded").await;
    let log = log(folder.path());
    assert!(!log.contains("panicked"), "{log}");
}

#[tokio::test]
async fn where_no_file_may_grow_further_it_refuses_jobs_and_lives() {
    let folder = folder();
    let mut command = program("sh");
    // In blocks of 512 bytes.
    command.args(["-c", "ulimit -f 4000 && exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_trine")]);
    let settings = [("TRINE_PYTHON_INTERPRETERS", "none"), ("TRINE_PROCESSES", "1")];
    let mut server = Server::start_by(command, folder.path(), &settings).await;
    let job = json!({"bound": "io", "workload": {"type": "sleep", "ms": 0}, "tags": {"long": "x".repeat(250)}});
    let refused = async {
        loop {
            let batch = vec![job.clone(); 1_000];
            let answered = server.client.post(format!("{}/jobs/batch", server.url)).json(&batch).send().await.unwrap();
            if answered.status() != 202 {
                break answered.status().as_u16();
            }
        }
    };
    let status = tokio::time::timeout(PATIENCE, refused).await.expect("the file to be as long as it may be");
    assert!(status == 503 || status == 429, "{status}");
    assert_eq!(server.get("/jobs?limit=1").await["items"].as_array().unwrap().len(), 1);
    assert!(server.runs());
}
