//! The log: whoever does not read it holds up nothing but the log.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::stat::Mode;
use serde_json::Value;

use crate::server::{Server, folder, log, program, sleep, trine, until_said};

#[tokio::test]
async fn a_log_that_nobody_reads_holds_up_nothing() {
    let folder = folder();
    let pipe = folder.path().join("pipe");
    nix::unistd::mkfifo(&pipe, Mode::S_IRWXU).unwrap();
    // Open at both ends, so that it is there and nobody reads it.
    let unread = File::options().read(true).write(true).open(&pipe).unwrap();
    fcntl(&unread, FcntlArg::F_SETPIPE_SZ(4_096)).unwrap();
    let mut command = program("sh");
    command.args(["-c", "exec \"$@\" 2> \"$0\""]).arg(&pipe).arg(trine().get_program());
    let server = Server::start_by(command, folder.path(), &[("TRINE_LOG", "debug")]).await;
    // Each of these is worth a line.
    for _ in 0..300 {
        let mut connection = TcpStream::connect(server.url.trim_start_matches("http://")).unwrap();
        connection.write_all(b"no HTTP\r\n\r\n").unwrap();
        // It has been looked at when it is answered or shut.
        let _ = connection.read_to_end(&mut Vec::new());
    }
    for _ in 0..10 {
        let id = server.submit(&sleep(0)).await;
        server.until_state(&id, "succeeded").await;
    }
    server.stop();
    drop(unread);
}

#[tokio::test]
async fn a_log_in_json_is_all_there_is_to_read() {
    let folder = folder();
    let server = Server::start(folder.path(), &[("TRINE_LOG_FORMAT", "json")]).await;
    let where_it_is = format!("listens at {}", server.url);
    server.stop();
    // Its standard output is there, too.
    let log = log(folder.path());
    let lines: Vec<Value> =
        log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"))).collect();
    assert!(lines.iter().any(|line| line["fields"]["message"].as_str().is_some_and(|text| text.contains(&where_it_is))), "{log}");
    // One that was killed as it shut down would not have said so.
    assert_eq!(lines.last().unwrap()["fields"]["message"], "shut down");
}

#[tokio::test]
async fn that_too_few_files_may_be_open_is_said_at_the_start() {
    let folder = folder();
    let mut command = program("sh");
    command.args(["-c", "ulimit -n 120; exec \"$0\" \"$@\""]).arg(trine().get_program());
    let server = Server::start_by(command, folder.path(), &[("TRINE_PYTHON_INTERPRETERS", "none")]).await;
    until_said(folder.path(), "the system allows 120 open files").await;
    drop(server);
}
