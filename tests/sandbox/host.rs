//! The Python host, in each of its modes, where nothing is left to it but what it needs.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};
use trine::sandbox::Mode;

use crate::bench::{Bench, PATIENCE, python};

const HOST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/executor/python/host");
const SOURCE: &str = "
import asyncio, threading
def main(n):
    print('computing', n)
    thread = threading.Thread(target=lambda: None)
    thread.start(); thread.join()
    open('kept', 'w').write(str(n))
    return n * n
async def waits(n):
    await asyncio.sleep(0.001)
    return n + 1
";

fn send(socket: &mut UnixStream, message: &Value) {
    let bytes = message.to_string();
    socket.write_all(&u32::try_from(bytes.len()).unwrap().to_be_bytes()).unwrap();
    socket.write_all(bytes.as_bytes()).unwrap();
}

/// The next message of this kind.
fn receive(socket: &mut UnixStream, kind: &str) -> Value {
    loop {
        let mut length = [0; 4];
        socket.read_exact(&mut length).unwrap();
        let mut bytes = vec![0; u32::from_be_bytes(length) as usize];
        socket.read_exact(&mut bytes).unwrap();
        let mut message: Value = serde_json::from_slice(&bytes).unwrap();
        if let Some(body) = message.get_mut(kind) {
            return body.take();
        }
    }
}

#[tokio::test]
async fn each_mode_of_the_host_works_in_the_sandbox() {
    for mode in ["async", "threads", "processes"] {
        let mut bench = Bench::with(Mode::On);
        bench.policy.read.push(HOST.into());
        bench.policy.limits.address_space_bytes = Some(4 << 30);
        let (mut socket, theirs) = UnixStream::pair().unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut command = bench.command(&python().program, &["-I", "-u", &format!("{HOST}/__main__.py"), mode]);
        command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null()).stderr(Stdio::inherit());
        let mut group = bench.spawn(&mut command);
        drop(command);
        let scratch: &Path = bench.scratch.path();
        send(&mut socket, &json!({"setup": {"threads": 4, "max_output_bytes": 1 << 20, "max_log_bytes": 1 << 20}}));
        receive(&mut socket, "ready");
        for (id, entrypoint, output) in [(1, "main", json!(49)), (2, "waits", json!(8))] {
            let code = json!({"sha": "abc", "source": if id == 1 { json!(SOURCE) } else { json!(null) }, "zip": null, "entrypoint": entrypoint});
            send(&mut socket, &json!({"run": {"id": id, "args": [7], "kwargs": {}, "attempt": 1, "job": "job", "code": code}}));
            let done = receive(&mut socket, "done");
            assert_eq!(done["output"], output, "{mode}: {done}");
            if mode == "processes" {
                assert!(done["measured"].to_string().contains("rss"), "{done}");
            }
        }
        assert_eq!(std::fs::read_to_string(scratch.join("kept")).unwrap(), "7");
        drop(socket);
        let ended = tokio::time::timeout(PATIENCE, group.wait()).await.expect("the host to end").unwrap();
        assert!(ended.status.success(), "{mode}: {}", ended.status);
    }
}
