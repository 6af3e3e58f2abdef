//! Sites that answer with too much, or too slowly.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

use crate::server::{Server, folder};

const LIMIT: usize = 100_000;

/// A site that reads a request and then does with the connection what its path says, on a thread for each.
fn site() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || answer(stream.unwrap()));
        }
    });
    origin
}

/// Ends when the other side hangs up.
fn answer(mut stream: TcpStream) -> Option<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        request.push(byte[0]);
    }
    let mut send = |text: &[u8]| stream.write_all(text).ok();
    let path = String::from_utf8_lossy(&request).split(' ').nth(1)?.to_owned();
    match path.as_str() {
        "/bomb" => {
            // A megabyte of nothing, packed.
            let packed = zeros();
            send(format!("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n", packed.len()).as_bytes())?;
            send(&packed)
        }
        "/much" => {
            send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            loop {
                send(b"400\r\n")?;
                send(&[b'x'; 1024])?;
                send(b"\r\n")?;
            }
        }
        "/announced" => send(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999\r\n\r\n"),
        "/headers" => {
            send(b"HTTP/1.1 200 OK\r\n")?;
            for n in 0_u64.. {
                send(format!("X-{n}: {}\r\n", "y".repeat(1000)).as_bytes())?;
            }
            None
        }
        "/line" => loop {
            send(&[b'x'; 1024])?;
        },
        "/interim" => loop {
            send(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")?;
            std::thread::sleep(Duration::from_millis(1));
        },
        "/drip" => {
            send(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n")?;
            loop {
                send(b"x")?;
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        "/short" => send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nonly this"),
        _ => send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
    }
}

/// 1 MiB of zeros, packed by the program that every Debian has.
fn zeros() -> Vec<u8> {
    let output = std::process::Command::new("sh").args(["-c", "head -c 1048576 /dev/zero | gzip -9"]).output().unwrap();
    assert!(output.status.success() && output.stdout.len() < 10_000);
    output.stdout
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_bounded_in_size_and_time() {
    let folder = folder();
    let limit = LIMIT.to_string();
    let settings = [("TRINE_HTTP_ALLOW", "127.0.0.1/32"), ("TRINE_HTTP_MAX_BYTES", limit.as_str())];
    let server = Server::start(folder.path(), &settings).await;
    let site = site();
    let fetch = async |path: &str, timeout_ms: u64| {
        let workload = json!({ "type": "http", "url": format!("{site}{path}"), "timeout_ms": timeout_ms });
        server.ended(&json!({ "bound": "io", "workload": workload })).await
    };
    let message = |job: &Value| job["error"]["message"].as_str().unwrap_or_else(|| panic!("{job}")).to_owned();
    assert_eq!(fetch("/", 20_000).await["output"]["body"], "ok");
    // Nothing is unpacked: what a bomb costs is what was sent.
    let bomb = fetch("/bomb", 20_000).await;
    assert!(bomb["output"]["bytes"].as_u64().unwrap() < 10_000 && bomb["output"]["encoding"] == "base64", "{bomb}");
    for path in ["/much", "/announced"] {
        assert_eq!(message(&fetch(path, 20_000).await), format!("the body from {site} is longer than {LIMIT} bytes"));
    }
    for path in ["/headers", "/line"] {
        assert!(message(&fetch(path, 20_000).await).starts_with(&format!("no answer from {site}: ")), "{path}");
    }
    assert!(message(&fetch("/short", 20_000).await).starts_with(&format!("the body from {site} broke off: ")));
    for path in ["/drip", "/interim"] {
        let job = fetch(path, 300).await;
        assert_eq!(
            (&job["error"]["kind"], message(&job)),
            (&json!("timeout"), format!("{site} did not answer in full within 300 ms"))
        );
    }
}
