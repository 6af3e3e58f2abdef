//! Functions: deployed, called in whichever version, rolled back, removed, and there after a restart.

use std::io::{Cursor, Write};

use reqwest::Method;
use serde_json::{Value, json};
use zip::write::{SimpleFileOptions, ZipWriter};

use crate::server::{Server, folder};

pub(crate) const SOURCE: &str = "text/x-python";
const ZIP: &str = "application/zip";

/// A request and its answer: the status and the JSON, if it is any.
pub(crate) async fn ask(server: &Server, method: Method, path: &str, body: Option<(&str, Vec<u8>)>) -> (u16, Value) {
    let mut request = server.client.request(method, format!("{}{path}", server.url));
    if let Some((media_type, body)) = body {
        request = request.header("content-type", media_type).body(body);
    }
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or_default())
}

/// Deploys what has to be taken; its version.
pub(crate) async fn deploy(server: &Server, path: &str, media_type: &str, content: impl Into<Vec<u8>>) -> String {
    let (status, function) = ask(server, Method::PUT, &format!("/functions/{path}"), Some((media_type, content.into()))).await;
    assert!(matches!(status, 200 | 201), "{status} {function}");
    function["version"].as_str().unwrap().to_owned()
}

pub(crate) fn call(name: &str, args: &Value) -> Value {
    json!({ "workload": { "type": "function", "name": name, "args": args } })
}

pub(crate) async fn output(server: &Server, submission: &Value) -> Value {
    let job = server.ended(submission).await;
    assert_eq!(job["state"], "succeeded", "{job}");
    job["output"].clone()
}

/// Where a submission that has to be refused is wrong.
async fn refused(server: &Server, submission: &Value) -> String {
    let body = serde_json::to_vec(submission).unwrap();
    let (status, problem) = ask(server, Method::POST, "/jobs", Some(("application/json", body))).await;
    assert_eq!(status, 422, "{problem}");
    problem["errors"][0]["pointer"].as_str().unwrap().to_owned()
}

fn zip(files: &[(&str, &str)]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in files {
        writer.start_file(*name, SimpleFileOptions::default()).unwrap();
        writer.write_all(content.as_bytes()).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// Takes the only process until `open`.
async fn close_gate(server: &Server) -> String {
    deploy(server, "gate?bound=cpu&executor=processes", SOURCE, "import time\ndef main():\n    time.sleep(600)\n").await;
    let gate = server.submit(&call("gate", &json!([]))).await;
    server.until_state(&gate, "running").await;
    gate
}

async fn open(server: &Server, gate: &str) {
    assert_eq!(ask(server, Method::DELETE, &format!("/jobs/{gate}"), None).await.0, 202);
}

/// Modules whose names all versions share.
fn modules(word: &str) -> Vec<u8> {
    let main = "import helper\ndef main():\n    from pkg.late import WORD\n    return [helper.WORD, WORD]\n";
    let word = format!("WORD = '{word}'\n");
    zip(&[("main.py", main), ("helper.py", &word), ("pkg/__init__.py", ""), ("pkg/late.py", &word)])
}

#[tokio::test]
async fn sources_and_zips_run_on_every_executor() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]).await;
    deploy(&server, "area?bound=cpu", SOURCE, "def main(a, b=1):\n    return a * b\n").await;
    deploy(&server, "one?bound=io", ZIP, modules("one")).await;
    deploy(&server, "two?bound=io", ZIP, modules("two")).await;
    for executor in ["async", "threads", "processes"] {
        let mut area = call("area", &json!([6]));
        area["workload"]["kwargs"] = json!({ "b": 7 });
        area["executor"] = json!(executor);
        assert_eq!(output(&server, &area).await, 42);
        for word in ["one", "two", "one"] {
            let mut submission = call(word, &json!([]));
            submission["executor"] = json!(executor);
            assert_eq!(output(&server, &submission).await, json!([word, word]));
        }
    }
    // Two functions of the same files are tasks of one program: what one leaves in a module, such as a pool of connections, the other finds.
    let kept = zip(&[("kept.py", "KEPT = []\ndef leave(): KEPT.append(1)\ndef find(): return KEPT\n")]);
    deploy(&server, "leave?bound=io&entrypoint=kept:leave", ZIP, kept.clone()).await;
    deploy(&server, "find?bound=io&entrypoint=kept:find", ZIP, kept).await;
    output(&server, &call("leave", &json!([]))).await;
    assert_eq!(output(&server, &call("find", &json!([]))).await, json!([1]));
}

#[tokio::test]
async fn zips_of_other_functions_can_not_be_found() {
    if trine::sandbox::probe().landlock_abi == 0 {
        eprintln!("skipped: this kernel has no Landlock");
        return;
    }
    let folder = folder();
    let server = Server::start(folder.path(), &[]).await;
    let main = "
import os, helper
def main():
    own = os.path.dirname(helper.__file__)
    try:
        return [open(own, 'rb').read(2).decode(), os.listdir(os.path.dirname(own))]
    except PermissionError as error:
        return os.path.basename(error.filename)
";
    deploy(&server, "looks?bound=io", ZIP, zip(&[("main.py", main), ("helper.py", "")])).await;
    for executor in ["async", "threads", "processes"] {
        let mut submission = call("looks", &json!([]));
        submission["executor"] = json!(executor);
        assert_eq!(output(&server, &submission).await, "archives", "{executor}");
    }
}

#[tokio::test]
async fn what_is_declared_holds_unless_the_job_says_otherwise() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]).await;
    deploy(&server, "waits?bound=io", SOURCE, "async def main(): pass\n").await;
    let job = server.ended(&call("waits", &json!([]))).await;
    assert_eq!((&job["bound"], &job["route"]["rule"]), (&json!("io"), &json!("io_async")), "{job}");
    deploy(&server, "waits?bound=cpu&executor=threads&deadline_ms=5000", SOURCE, "def main(): pass\n").await;
    let job = server.ended(&call("waits", &json!([]))).await;
    let declared = (&job["bound"], &job["route"]["executor"], &job["deadline_ms"]);
    assert_eq!(declared, (&json!("cpu"), &json!("threads"), &json!(5000)), "{job}");
    let mut submission = call("waits", &json!([]));
    for (field, value) in [("bound", json!("io")), ("executor", json!("processes")), ("deadline_ms", json!(7000))] {
        submission[field] = value;
    }
    let job = server.ended(&submission).await;
    let said = (&job["bound"], &job["route"]["executor"], &job["deadline_ms"]);
    assert_eq!(said, (&json!("io"), &json!("processes"), &json!(7000)), "{job}");
    let route = server.get(&format!("/jobs/{}/route", job["id"].as_str().unwrap())).await;
    assert_eq!(route["form"], "blocking", "{route}");
    deploy(&server, "silent", SOURCE, "def main(): pass\n").await;
    assert_eq!(refused(&server, &call("silent", &json!([]))).await, "/bound");
    assert_eq!(refused(&server, &call("absent", &json!([]))).await, "/workload/name");
    submission["workload"]["version"] = json!("0123456789");
    assert_eq!(refused(&server, &submission).await, "/workload/version");
}

#[tokio::test]
async fn a_job_stays_with_its_version_and_old_ones_can_be_called() {
    let folder = folder();
    let settings = [("TRINE_PYTHON_PROCESSES", "1")];
    let server = Server::start(folder.path(), &settings).await;
    let answers = |word: &str| format!("def main():\n    return '{word}'\n");
    let path = "word?bound=cpu&executor=processes";
    let first = deploy(&server, path, SOURCE, answers("first")).await;
    // It waits behind the gate while another version is deployed.
    let gate = close_gate(&server).await;
    let waiting = server.submit(&call("word", &json!([]))).await;
    let second = deploy(&server, path, SOURCE, answers("second")).await;
    assert_ne!(first, second);
    open(&server, &gate).await;
    let job = server.until_state(&waiting, "succeeded").await;
    assert_eq!((&job["output"], &job["workload"]["version"]), (&json!("first"), &json!(first)), "{job}");
    assert_eq!(output(&server, &call("word", &json!([]))).await, "second");
    let mut old = call("word", &json!([]));
    old["workload"]["version"] = json!(&first[..8]);
    assert_eq!(output(&server, &old).await, "first");

    // A comparison takes the tag that the function declares, too.
    let comparison =
        json!({ "workload": { "type": "function", "name": "word" }, "tasks": 1, "concurrency": [1], "budget_ms": 1_000 });
    let (status, asked) =
        ask(&server, Method::POST, "/comparisons", Some(("application/json", comparison.to_string().into()))).await;
    assert_eq!((status, &asked["bound"]), (202, &json!("cpu")), "{asked}");

    let versions = server.get("/functions/word").await;
    let listed: Vec<_> = versions["items"].as_array().unwrap().iter().map(|item| (&item["version"], &item["latest"])).collect();
    assert_eq!(listed, [(&json!(second), &json!(true)), (&json!(first), &json!(false))]);
    // Back to the first, by its address and by deploying it once more.
    let (status, _) = ask(&server, Method::POST, &format!("/functions/word/versions/{}/latest", &first[..10]), None).await;
    assert_eq!((status, output(&server, &call("word", &json!([]))).await), (200, json!("first")));
    let again = ask(&server, Method::PUT, &format!("/functions/{path}"), Some((SOURCE, answers("second").into()))).await;
    assert_eq!((again.0, &again.1["version"]), (200, &json!(second)));
    assert_eq!(output(&server, &call("word", &json!([]))).await, "second");
    assert_eq!(server.get("/functions/word").await["items"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn functions_are_there_after_a_crash() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]).await;
    let old = deploy(&server, "zipped?bound=cpu", ZIP, modules("old")).await;
    deploy(&server, "zipped?bound=cpu", ZIP, modules("new")).await;
    assert_eq!(output(&server, &call("zipped", &json!([]))).await, json!(["new", "new"]));
    server.crash();
    let server = Server::start(folder.path(), &[]).await;
    assert_eq!(output(&server, &call("zipped", &json!([]))).await, json!(["new", "new"]));
    let mut submission = call("zipped", &json!([]));
    submission["workload"]["version"] = json!(old);
    assert_eq!(output(&server, &submission).await, json!(["old", "old"]));
}

#[tokio::test]
async fn a_job_whose_function_is_removed_says_so() {
    let folder = folder();
    let server = Server::start(folder.path(), &[("TRINE_PYTHON_PROCESSES", "1")]).await;
    deploy(&server, "word?bound=cpu&executor=processes", SOURCE, "import time\ndef main():\n    time.sleep(0.1)\n    return 1\n")
        .await;
    // Calls that take so long are not claimed ahead, with their code.
    assert_eq!(output(&server, &call("word", &json!([]))).await, 1);
    let gate = close_gate(&server).await;
    let waiting = server.submit(&call("word", &json!([]))).await;
    assert_eq!(ask(&server, Method::DELETE, "/functions/word", None).await.0, 204);
    open(&server, &gate).await;
    let job = server.until_state(&waiting, "failed").await;
    let message = job["error"]["message"].as_str().unwrap();
    assert!(message.contains("the function is gone: no function is called \"word\""), "{message}");
    assert_eq!(refused(&server, &call("word", &json!([]))).await, "/workload/name");
    assert_eq!(ask(&server, Method::DELETE, "/functions/word", None).await.0, 404);
    assert_eq!(ask(&server, Method::GET, "/functions/word", None).await.0, 404);
    let names: Vec<_> =
        server.get("/functions").await["items"].as_array().unwrap().iter().map(|item| item["name"].clone()).collect();
    assert_eq!(names, ["gate"]);
}

/// It is told how the call has ended just before the process ends, which takes longer the more memory it has.
#[tokio::test]
async fn a_call_that_takes_its_process_along_costs_the_next_one_nothing() {
    let folder = folder();
    let server = Server::start(folder.path(), &[("TRINE_PYTHON_PROCESSES", "1")]).await;
    let deaf = "
import mmap
def main():
    hoard = None
    for _ in iter(int, 1):
        try:
            if hoard is None:
                hoard = mmap.mmap(-1, 256 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
                hoard.madvise(mmap.MADV_NOHUGEPAGE)
                hoard[::4096] = bytes(len(hoard) // 4096)
            for _ in iter(int, 1):
                pass
        except BaseException:
            pass
";
    deploy(&server, "deaf?bound=cpu&executor=processes&cpu_ms=50", SOURCE, deaf).await;
    deploy(&server, "next?bound=cpu&executor=processes", SOURCE, "def main():\n    return 7\n").await;
    let deaf = server.submit(&call("deaf", &json!([]))).await;
    let next = server.ended(&call("next", &json!([]))).await;
    assert_eq!((&next["output"], &next["losses"]), (&json!(7), &json!(0)), "{next}");
    let deaf = server.until_state(&deaf, "failed").await;
    assert!(deaf["error"]["message"].as_str().unwrap().contains("50 ms"), "{deaf}");
}

#[tokio::test]
async fn what_can_not_be_deployed_is_told_why() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]).await;
    let source = || b"def main(): pass\n".to_vec();
    let cases: [(&str, &str, Vec<u8>, u16, &str); 15] = [
        ("Upper", SOURCE, source(), 422, "no name of a function"),
        ("f", "text/plain", source(), 415, "text/x-python or application/zip"),
        ("f", SOURCE, vec![0xff], 422, "not UTF-8"),
        ("f?entrypoint=a-b", SOURCE, source(), 400, "entrypoint: must be"),
        ("f?entrypoint=main", ZIP, modules("x"), 400, "entrypoint: of a zip"),
        ("f?entrypoint=absent:main", ZIP, modules("x"), 422, "neither absent.py nor absent/__init__.py"),
        ("f?interpreter=other", SOURCE, source(), 400, "no interpreter is called"),
        ("f?deadline_ms=0", SOURCE, source(), 400, "deadline_ms: must be"),
        ("f?bound=gpu", SOURCE, source(), 400, "bound"),
        ("f", ZIP, b"no zip".to_vec(), 422, "can't be read"),
        ("f", ZIP, zip(&[("main.py", ""), ("../x.py", "")]), 422, "leads out of it"),
        ("f", SOURCE, vec![b'#'; (8 << 20) + 1], 413, "at most 8388608 bytes"),
        ("f", SOURCE, b"def main():\n    return 1 +\n".to_vec(), 422, "line 2, column "),
        ("f", SOURCE, b"def other(): pass\n".to_vec(), 422, "defines no 'main'"),
        ("f?entrypoint=pack.work:absent", ZIP, zip(&[("pack/work.py", "def main(): pass\n")]), 422, "defines no 'absent'"),
    ];
    for (path, media_type, content, status, detail) in cases {
        let (told, problem) = ask(&server, Method::PUT, &format!("/functions/{path}"), Some((media_type, content))).await;
        assert_eq!(told, status, "{path}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(detail), "{problem}");
        let line = problem["errors"][0]["line"].as_u64();
        assert_eq!(line, detail.starts_with("line").then_some(2), "{problem}");
    }
    assert_eq!(server.get("/functions").await["items"], json!([]));
}

#[tokio::test]
async fn content_comes_back_as_it_was() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]).await;
    for (name, media_type, content) in
        [("text", SOURCE, b"def main(): pass # \xc3\xa4\n".to_vec()), ("zipped", ZIP, modules("x"))]
    {
        let version = deploy(&server, name, media_type, content.clone()).await;
        let url = format!("{}/functions/{name}/versions/{version}", server.url);
        let answer = server.client.get(&url).header("accept", media_type).send().await.unwrap();
        assert_eq!(answer.headers()["content-type"], media_type);
        let headers = answer.headers();
        assert!(headers["etag"] == format!("\"{version}\"") && headers["vary"] == "accept", "{headers:?}");
        assert_eq!(answer.bytes().await.unwrap(), content);
        let known = server.client.get(&url).header("accept", media_type).header("if-none-match", format!("\"{version}\""));
        assert_eq!(known.send().await.unwrap().status(), 304);
        let answer = server.client.get(&url).send().await.unwrap();
        let headers = answer.headers();
        assert!(!headers.contains_key("etag") && headers["vary"] == "accept", "{headers:?}");
        let known = server.get(&format!("/functions/{name}/versions/{}", &version[..8])).await;
        assert_eq!(
            (&known["version"], &known["latest"], &known["bytes"]),
            (&json!(version), &json!(true), &json!(content.len()))
        );
    }
}

#[tokio::test]
async fn eight_mebibytes_go_in_and_come_back() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]).await;
    deploy(&server, "echo?bound=cpu", SOURCE, "def main(text):\n    return text\n").await;
    let text = "x".repeat(8 << 20);
    for executor in ["async", "threads", "processes"] {
        let mut submission = call("echo", &json!([text]));
        submission["executor"] = json!(executor);
        assert!(output(&server, &submission).await == json!(text), "on {executor}");
    }
}

/// The signal that tells a call of its CPU time is the job's own to ignore.
#[tokio::test]
async fn a_call_that_does_not_hear_of_its_cpu_time_is_killed() {
    let folder = folder();
    let server = Server::start(folder.path(), &[("TRINE_PYTHON_PROCESSES", "1")]).await;
    let ignores =
        "import signal\ndef main():\n    signal.signal(signal.SIGPROF, signal.SIG_IGN)\n    while True:\n        pass\n";
    let elsewhere = "import threading\ndef spin():\n    while True:\n        pass\ndef main():\n    \
                     threads = [threading.Thread(target=spin) for _ in range(2)]\n    [each.start() for each in threads]\n    [each.join() for each in threads]\n";
    for (name, source) in [("ignores", ignores), ("elsewhere", elsewhere)] {
        deploy(&server, &format!("{name}?bound=cpu&executor=processes&cpu_ms=100"), SOURCE, source).await;
        let job = server.ended(&call(name, &json!([]))).await;
        assert_eq!(
            (&job["state"], &job["error"]["kind"], &job["attempt"]),
            (&json!("failed"), &json!("error"), &json!(1)),
            "{job}"
        );
        assert!(job["error"]["message"].as_str().unwrap().contains("more CPU time than the 100 ms that it may"), "{job}");
    }
}
