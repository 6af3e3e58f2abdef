//! Ways into the operator's own network that a job might try, all of them for real: a listener stands on every address of this
//! machine that is not allowed, and nobody may ever connect to it.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, TcpListener as Listener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::http::header::{CONNECTION, LOCATION};
use axum::routing::any;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::names::{NameServer, name_of};
use crate::server::{Server, folder};

/// The only address that is allowed.
const HONEST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
/// Where nobody may get to.
const FORBIDDEN: [&str; 3] = ["127.0.0.1", "127.0.0.2", "::1"];

/// An honest site on the allowed address, and a trap on the same port of all others.
struct Net {
    port: u16,
    trapped: Arc<AtomicUsize>,
    names: NameServer,
}

impl Net {
    fn new() -> Self {
        let (honest, traps) = loop {
            let honest = Listener::bind((HONEST, 0)).unwrap();
            let port = honest.local_addr().unwrap().port();
            let traps: Vec<_> =
                FORBIDDEN.iter().map(|address| Listener::bind((address.parse::<IpAddr>().unwrap(), port))).collect();
            // A machine may have no IPv6, but whatever there is has a trap.
            if traps[..2].iter().all(Result::is_ok) {
                break (honest, traps.into_iter().flatten().collect::<Vec<_>>());
            }
        };
        let port = honest.local_addr().unwrap().port();
        let trapped = Arc::<AtomicUsize>::default();
        for trap in traps {
            trap.set_nonblocking(true).unwrap();
            let (trap, trapped) = (TcpListener::from_std(trap).unwrap(), Arc::clone(&trapped));
            let caught = any(move || async move {
                trapped.fetch_add(1, Ordering::SeqCst);
                "the crown jewels"
            });
            tokio::spawn(async move { axum::serve(trap, Router::new().fallback(caught)).await });
        }
        honest.set_nonblocking(true).unwrap();
        let honest = TcpListener::from_std(honest).unwrap();
        tokio::spawn(async move { axum::serve(honest, site()).await });
        Self { port, trapped, names: NameServer::start() }
    }

    /// A server that may reach the honest address and nothing else of this machine, though its environment tells it to use a proxy.
    async fn server(&self, folder: &std::path::Path, allow: &str) -> Server {
        let proxy = format!("http://127.0.0.1:{}", self.port);
        let names = self.names.address.to_string();
        let mut settings = vec![("TRINE_HTTP_ALLOW", allow), ("TRINE_HTTP_NAME_SERVERS", &names), ("NO_PROXY", "")];
        for variable in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"] {
            settings.push((variable, &proxy));
        }
        Server::start(folder, &settings).await
    }

    fn trapped(&self) -> usize {
        self.trapped.load(Ordering::SeqCst)
    }

    fn fill(&self, url: &str) -> String {
        url.replace("PORT", &self.port.to_string())
    }
}

/// `/` answers `honest`; `/to/{status}/{url in hexadecimal}` sends the client there, on a new connection.
fn site() -> Router {
    let redirect = |Path((status, to)): Path<(u16, String)>| async move {
        let to = (0..to.len()).step_by(2).map(|at| u8::from_str_radix(&to[at..at + 2], 16).unwrap()).collect();
        let to = String::from_utf8(to).unwrap();
        (StatusCode::from_u16(status).unwrap(), [(LOCATION, to), (CONNECTION, "close".to_owned())])
    };
    Router::new().route("/", any(|| async { "honest" })).route("/to/{status}/{url}", any(redirect))
}

fn via(status: u16, url: &str) -> String {
    let mut page = format!("http://127.0.0.3:PORT/to/{status}/");
    for byte in url.bytes() {
        write!(page, "{byte:02x}").unwrap();
    }
    page
}

/// Addresses of the traps as a URL may write them.
const SPELLINGS: [&str; 42] = [
    "http://127.0.0.1:PORT/",
    "http://127.0.0.2:PORT/",
    "http://127.1:PORT/",
    "http://127.0.1:PORT/",
    "http://2130706433:PORT/",
    "http://0x7f000001:PORT/",
    "http://0x7f.1:PORT/",
    "http://0x7F.0x0.0x0.0x1:PORT/",
    "http://0177.0.0.1:PORT/",
    "http://0177.0.0.01:PORT/",
    "http://017700000001:PORT/",
    "http://00000177.1:PORT/",
    "http://127.0.0.1.:PORT/",
    "http://0:PORT/",
    "http://0.0.0.0:PORT/",
    "http://0x0:PORT/",
    "http://00.0:PORT/",
    "http://%31%32%37.0.0.1:PORT/",
    "http://%31%32%37%2e%30%2e%30%2e%31:PORT/",
    "http://127。0。0。1:PORT/",
    "http://127．0．0．1:PORT/",
    "http://１２７.0.0.1:PORT/",
    "http://①②⑦.⓪.⓪.①:PORT/",
    "http:\\\\127.0.0.1:PORT\\",
    "http:127.0.0.1:PORT/",
    "http:/127.0.0.1:PORT/",
    "http:///127.0.0.1:PORT/",
    "HTTP://127.0.0.1:PORT/",
    " http://127.0.0.1:PORT/ ",
    "ht\ntp://127.0.0\t.1:PORT/",
    "http://127.0.0.1:PORT#@127.0.0.3/",
    "http://127.0.0.1:PORT?@127.0.0.3/",
    "http://127.0.0.1:PORT\\@127.0.0.3:PORT/",
    "http://[::1]:PORT/",
    "http://[0:0:0:0:0:0:0:1]:PORT/",
    "http://[0000::0001]:PORT/",
    "http://[::]:PORT/",
    "http://[::ffff:127.0.0.1]:PORT/",
    "http://[::ffff:7f00:1]:PORT/",
    "http://[::FFFF:7F00:0002]:PORT/",
    "http://localhost:PORT/",
    "http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ.:PORT/",
];

/// Further addresses, by literal and by name, behind which something could be that is not for everyone.
#[rustfmt::skip]
const SPECIAL: [&str; 37] = [
    "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.100.100.200", "127.255.255.254", "168.63.129.16", "169.254.169.254",
    "169.254.170.2", "172.16.0.1", "172.31.255.255", "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.0.1", "198.18.0.1",
    "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255", "::127.0.0.1", "::ffff:10.0.0.1",
    "::ffff:169.254.169.254", "::ffff:0:127.0.0.1", "64:ff9b::127.0.0.1", "64:ff9b:1::127.0.0.1", "100::1", "2001:0:7f00:1::",
    "2001:db8::1", "2002:7f00:1::", "fc00::1", "fd00:ec2::254", "fe80::1", "fec0::1", "ff02::1",
];

/// URLs that are not what they seem, and ways to talk to something else than a web server.
const DISGUISES: [&str; 22] = [
    "http://127.0.0.3:PORT@127.0.0.1:PORT/",
    "http://127.0.0.3@127.0.0.1:PORT/",
    "http://user:secret@127.0.0.3:PORT/",
    "http://127.0.0.3:x@[::1]:PORT/",
    "http://[::1%25lo]:PORT/",
    "http://[::1%lo]:PORT/",
    "http://[fe80::1%25eth0]:PORT/",
    "http://[127.0.0.1]:PORT/",
    "http://127.0.0.1%00.example.com:PORT/",
    "http://127.0.0.1%0d%0a:PORT/",
    "http://256.0.0.1:PORT/",
    "http://0x100000001:PORT/",
    "ftp://127.0.0.1:PORT/",
    "file:///etc/passwd",
    "gopher://127.0.0.1:PORT/_GET%20/",
    "dict://127.0.0.1:PORT/d:x",
    "ldap://127.0.0.1:PORT/",
    "ws://127.0.0.1:PORT/",
    "data:text/plain,x",
    "jar:http://127.0.0.1:PORT/!/",
    "unix:///var/run/docker.sock",
    "http+unix://%2Fvar%2Frun%2Fdocker.sock/",
];

/// Runs an `http` job; its output, or why there is none.
async fn fetch(server: &Server, url: &str, executor: &str) -> Result<Value, String> {
    let job = json!({ "bound": "io", "executor": executor, "workload": { "type": "http", "url": url, "timeout_ms": 20_000 } });
    let answer = server.client.post(format!("{}/jobs", server.url)).header("Prefer", "wait=60").json(&job).send().await.unwrap();
    let status = answer.status().as_u16();
    let body: Value = answer.json().await.unwrap();
    match (status, body["state"].as_str()) {
        (200, Some("succeeded")) => Ok(body["output"].clone()),
        (200, Some("failed")) => Err(body["error"]["message"].as_str().unwrap().to_owned()),
        (422, _) => Err(body["detail"].as_str().unwrap().to_owned()),
        _ => panic!("{url}: {status} {body}"),
    }
}

/// Everything that is tried, with `PORT` for the port of the traps.
fn tricks() -> Vec<String> {
    let mut tricks: Vec<String> = SPELLINGS.iter().chain(&DISGUISES).map(|&url| url.to_owned()).collect();
    for address in SPECIAL {
        let address: IpAddr = address.parse().unwrap();
        tricks.push(if address.is_ipv6() { format!("http://[{address}]:PORT/") } else { format!("http://{address}:PORT/") });
        tricks.push(format!("http://{}:PORT/", name_of(address)));
    }
    for address in ["127.0.0.1", "127.0.0.2", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1", "::ffff:127.0.0.2"] {
        tricks.push(format!("http://{}:PORT/", name_of(address.parse().unwrap())));
    }
    tricks.push("http://7f000001-alias.test:PORT/".to_owned());
    for status in [301, 302, 303, 307, 308] {
        for to in [
            "http://127.0.0.1:PORT/",
            "//127.0.0.1:PORT/",
            "\\\\127.0.0.1:PORT\\",
            "http://2130706433:PORT/",
            "http://[::ffff:7f00:1]:PORT/",
            "http://7f000001.a.test:PORT/",
            "http://127.0.0.3@127.0.0.1:PORT/",
            "http://localhost:PORT/",
            "http://169.254.169.254/latest/meta-data/",
            "file:///etc/passwd",
            "gopher://127.0.0.1:PORT/",
        ] {
            tricks.push(format!("{status} {to}"));
        }
    }
    // Over an honest page, which sends the client on.
    tricks.push("307 307 http://127.0.0.1:PORT/".to_owned());
    tricks
}

/// `307 URL` is the page that answers 307 and sends the client to the URL.
fn resolve(net: &Net, trick: &str) -> String {
    match trick.split_once(' ') {
        Some((status, to)) if status.parse::<u16>().is_ok() => net.fill(&via(status.parse().unwrap(), &resolve(net, to))),
        _ => net.fill(trick),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_gets_in() {
    let net = Net::new();
    let folder = folder();
    let server = net.server(folder.path(), "127.0.0.3/32").await;
    // What is allowed goes through: by address, by name, over every redirect.
    let mut honest = vec!["http://127.0.0.3:PORT/".to_owned(), "http://7f000003.a.test:PORT/".to_owned()];
    honest.extend([301, 302, 303, 307, 308].map(|status| via(status, &net.fill("http://7f000003-alias.test:PORT/"))));
    for url in honest {
        assert_eq!(fetch(&server, &net.fill(&url), "auto").await.unwrap()["body"], "honest", "{url}");
    }
    let tricks = tricks();
    assert!(tricks.len() >= 60 && tricks.len() == tricks.iter().collect::<std::collections::HashSet<_>>().len());
    for trick in &tricks {
        let refused = fetch(&server, &resolve(&net, trick), "auto").await.expect_err(trick);
        assert!(!refused.contains("Connection refused") && !refused.contains("unreachable"), "{trick}: it was tried: {refused}");
        assert_eq!(net.trapped(), 0, "{trick}");
    }
    // Redirects that are none are not followed.
    for status in [300, 304, 305, 306] {
        let page = fetch(&server, &resolve(&net, &format!("{status} http://127.0.0.1:PORT/")), "auto").await.unwrap();
        assert_eq!(page["status"], status);
    }
    assert_eq!(net.trapped(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_executor_has_the_guard() {
    let net = Net::new();
    let folder = folder();
    let server = net.server(folder.path(), "127.0.0.3/32").await;
    for executor in ["async", "threads", "processes"] {
        assert_eq!(fetch(&server, &net.fill("http://7f000003.a.test:PORT/"), executor).await.unwrap()["body"], "honest");
        for trick in ["http://7f000001.a.test:PORT/", "302 http://127.0.0.1:PORT/", "307 http://7f000001.a.test:PORT/"] {
            let refused = fetch(&server, &resolve(&net, trick), executor).await.expect_err(trick);
            assert!(refused.contains("not public") || refused.contains("leads to no address"), "{executor} {trick}: {refused}");
        }
    }
    assert_eq!(net.trapped(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_changes_its_meaning_leads_nowhere() {
    let net = Net::new();
    let folder = folder();
    let server = net.server(folder.path(), "127.0.0.3/32").await;
    // What was checked is what is connected to: the name is asked for once, though the page closes every connection.
    let name = "7f000003-then-7f000001.test";
    let url = net.fill(&format!("http://{name}:PORT/"));
    let again = |url: &str| via(307, url).replace("127.0.0.3:PORT", &format!("{name}:{}", net.port));
    let page = fetch(&server, &again(&again(&url)), "async").await.unwrap();
    assert_eq!((&page["body"], net.names.asked(name)), (&json!("honest"), 1));
    // A worker process has not met it yet; by now it means something else, and is refused.
    let refused = fetch(&server, &url, "processes").await.unwrap_err();
    assert!(refused.contains(&format!("the name {name} leads to no address that may be reached")), "{refused}");
    assert_eq!(net.names.asked(name), 2);
    // The other way round, nothing that was refused is kept.
    let other = net.fill("http://7f000001-then-7f000003.test:PORT/");
    assert!(fetch(&server, &other, "async").await.is_err());
    assert_eq!(fetch(&server, &other, "async").await.unwrap()["body"], "honest");
    // Of several addresses only those are used that may be.
    for name in ["7f000003-and-7f000001.test", "7f000001-and-7f000003.test", "7f000002-and-7f000003.test"] {
        assert_eq!(fetch(&server, &net.fill(&format!("http://{name}:PORT/")), "async").await.unwrap()["body"], "honest");
    }
    assert!(fetch(&server, &net.fill("http://7f000001-and-7f000002.test:PORT/"), "async").await.is_err());
    assert_eq!(net.trapped(), 0);
}

/// The traps are where the tricks lead: with a server that allows everything, they snap.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tricks_would_work_without_the_guard() {
    let net = Net::new();
    let folder = folder();
    let server = net.server(folder.path(), "0.0.0.0/0,::/0").await;
    for (tried, url) in SPELLINGS.iter().filter(|url| !url.contains('[')).enumerate() {
        let page = fetch(&server, &net.fill(url), "auto").await.unwrap_or_else(|error| panic!("{url}: {error}"));
        assert_eq!((page["body"].as_str(), net.trapped()), (Some("the crown jewels"), tried + 1), "{url}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_operator_denies_is_not_reached_though_it_is_allowed() {
    let net = Net::new();
    let folder = folder();
    let names = net.names.address.to_string();
    let settings = [
        ("TRINE_HTTP_ALLOW", "127.0.0.0/8"),
        ("TRINE_HTTP_DENY", "127.0.0.1,127.0.0.2/32,7f000003-alias.test"),
        ("TRINE_HTTP_NAME_SERVERS", names.as_str()),
    ];
    let server = Server::start(folder.path(), &settings).await;
    assert_eq!(fetch(&server, &net.fill("http://7f000003.a.test:PORT/"), "processes").await.unwrap()["body"], "honest");
    let (denied, hidden) = ("is denied by `http_deny`", "leads to no address that may be reached");
    for (url, why) in [
        ("http://127.1:PORT/", denied),
        ("http://[::ffff:127.0.0.2]:PORT/", denied),
        ("http://7f000001.a.test:PORT/", hidden),
        ("http://7f000003-alias.test:PORT/", denied),
        ("http://7F000003-ALIAS.test.:PORT/", denied),
        ("http://below.7f000003-alias.test:PORT/", denied),
        (&via(302, &net.fill("http://127.0.0.1:PORT/")), denied),
    ] {
        let refused = fetch(&server, &net.fill(url), "processes").await.unwrap_err();
        assert!(refused.contains(why), "{url}: {refused}");
    }
    assert_eq!(net.trapped(), 0);
}
