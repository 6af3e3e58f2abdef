//! Three servers on one PostgreSQL, and what may happen to each of them, to the database, and to the way between them.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use trine::telemetry::Sparing;

use crate::comparisons;
use crate::functions::{SOURCE, call, deploy};
use crate::load::Load;
use crate::network::{ADDRESSES, Network};
use crate::postgres::Postgres;
use crate::schedules::until_runs;
use crate::server::{PATIENCE, Server, client, folder, log, number, refusal, sleep, until, until_said, with};

/// How many jobs are accepted before each fault, and how long a lease lasts: `TRINE_JOBS=10000 TRINE_TEST_LEASE_MS=30000` is the long form.
const JOBS: usize = 300;
const LEASE_MS: usize = 3_000;

/// How long a server that is cut off from its database lets a client wait at the most, and how long one that submits, with something to spare.
const BOUND: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(40));

/// A database, and a folder for each server.
pub(crate) struct Cluster {
    postgres: Postgres,
    folders: Vec<tempfile::TempDir>,
    /// One for each server, if they are apart.
    networks: Vec<Network>,
    lease: Duration,
}

impl Cluster {
    pub(crate) async fn of(servers: usize) -> Self {
        Self::with(servers, Vec::new()).await
    }

    /// Servers of which each can be cut off from the database.
    async fn apart(servers: usize) -> Self {
        Self::with(servers, (0..servers).map(|_| Network::new()).collect()).await
    }

    async fn with(servers: usize, networks: Vec<Network>) -> Self {
        let addresses: Vec<_> = networks.iter().map(Network::database).collect();
        let (first, length) = ADDRESSES;
        let start = move || Postgres::start_at(&addresses, &format!("{first}/{length}"));
        let postgres = tokio::task::spawn_blocking(start).await.unwrap();
        let lease = Duration::from_millis(number("TRINE_TEST_LEASE_MS", LEASE_MS) as u64);
        Self { postgres, folders: (0..servers).map(|_| folder()).collect(), networks, lease }
    }

    pub(crate) fn folder(&self, server: usize) -> &Path {
        self.folders[server].path()
    }

    pub(crate) async fn start(&self, server: usize) -> Server {
        self.start_with(server, &[]).await
    }

    /// A connection past all servers.
    pub(crate) async fn raw(&self) -> PgConnection {
        PgConnection::connect(&format!("{}&options[search_path]=trine", self.postgres.url())).await.unwrap()
    }

    pub(crate) async fn start_with(&self, server: usize, settings: &[(&str, &str)]) -> Server {
        let database = self.database(server);
        let lease = self.lease.as_millis().to_string();
        // A job may be there when more than a few servers are lost.
        let ours = [("TRINE_DATABASE", &*database), ("TRINE_LEASE_MS", &*lease), ("TRINE_MAX_LOSSES", "1000")];
        let settings = [&ours, settings].concat();
        let Some(network) = self.networks.get(server) else { return Server::start(self.folder(server), &settings).await };
        // It listens where others than this machine could reach it; but its links lead to nobody else.
        let settings = [&settings[..], &[("TRINE_KEYS", "off")]].concat();
        Server::start_at(network.server(), "http", client(), network.enter(), self.folder(server), &settings).await
    }

    /// What a server says that does not start.
    pub(crate) async fn refusal(&self, server: usize) -> String {
        refusal(self.folder(server), &[("TRINE_DATABASE", &self.database(server))]).await
    }

    fn database(&self, server: usize) -> String {
        match self.networks.get(server) {
            Some(network) => format!("postgres://trine:unused@{}/postgres", network.database()),
            None => self.postgres.url(),
        }
    }

    /// How many results the servers were refused, because their leases had ended.
    fn refused(&self) -> usize {
        (0..self.folders.len()).map(|server| self.log(server).matches("the lease was no longer valid").count()).sum()
    }

    /// Waits until more than so many were.
    async fn until_refused(&self, before: usize) {
        until("a result is refused", async || (self.refused() > before).then_some(())).await;
    }

    pub(crate) fn log(&self, server: usize) -> String {
        log(self.folder(server))
    }
}

/// What has a program see another time than it is: Debian puts it into the folder of the machine's kind.
fn faketime() -> String {
    let folders = std::fs::read_dir("/usr/lib").unwrap().flatten();
    let path = folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1")).find(|path| path.exists());
    path.expect("libfaketime: see scripts/install-test-deps.sh").to_str().unwrap().to_owned()
}

/// Jobs that take their time, submitted to a server that runs some of them; in their second attempt when it has lost them.
async fn until_lost(to: &Server, other: &Server, lose: impl AsyncFn(), find: impl AsyncFn()) -> Duration {
    loop {
        let mut ids = Vec::new();
        for _ in 0..20 {
            ids.push(to.submit(&sleep(1_500)).await);
        }
        lose().await;
        let began = Instant::now();
        // None if others were quicker to claim them.
        let lost = async || {
            let mut ended = 0;
            for id in &ids {
                let job = other.get(&format!("/jobs/{id}")).await;
                if job["attempt"].as_u64() >= Some(2) {
                    return Some(Some(began.elapsed()));
                }
                ended += usize::from(job["state"] == "succeeded");
            }
            (ended == ids.len()).then_some(None)
        };
        if let Some(after) = until("the jobs end or run again", lost).await {
            return after;
        }
        find().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_each_accepted_job_has_one_result() {
    let (jobs, is_long) = (number("TRINE_JOBS", JOBS), std::env::var("TRINE_JOBS").is_ok());
    let mut cluster = Cluster::apart(3).await;
    let mut servers = [cluster.start(0).await, cluster.start(1).await, cluster.start(2).await];
    let mut loads = Vec::new();
    for server in &servers {
        loads.push(Load::start(&server.url, &[1, 1, 1, 20]));
    }
    let accepted = async || {
        let mut accepted = 0;
        for (load, _) in &loads {
            accepted += load.accepted.lock().await.len();
        }
        accepted
    };
    let mut goal = 0;
    let mut more = async || {
        goal = accepted().await.max(goal) + jobs;
        let reached = async {
            while accepted().await < goal {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(10 * PATIENCE, reached).await.expect("jobs to be accepted");
    };
    let say = |cluster: &Cluster, what: &str| {
        if is_long {
            println!("{what}; {} results refused", cluster.refused());
        }
    };
    more().await;
    say(&cluster, "started");

    // A server that is stopped for longer than its lease, and then goes on.
    let (stopped, other) = (&servers[1], &servers[2]);
    until_lost(stopped, other, async || stopped.signal(Signal::SIGSTOP), async || stopped.signal(Signal::SIGCONT)).await;
    more().await;
    stopped.signal(Signal::SIGCONT);
    more().await;
    cluster.until_refused(0).await;
    say(&cluster, "one was stopped and went on");

    // One that is killed, and comes again under another name.
    let (killed, other) = (&servers[0], &servers[2]);
    let after = until_lost(killed, other, async || killed.signal(Signal::SIGKILL), async || panic!("they ran elsewhere")).await;
    say(&cluster, &format!("one was killed, and what it ran came back after {} ms", after.as_millis()));
    // With many jobs it is measured; else the machine may be busy with other tests.
    assert!(after < cluster.lease + if is_long { Duration::from_secs(10) } else { PATIENCE }, "{after:?}");
    servers[0].wait();
    servers[0] = cluster.start(0).await;
    *loads[0].0.url.lock().await = servers[0].url.clone();
    more().await;

    // One that can't reach the database for twice as long as its lease.
    let (cut, other) = (&servers[2], &servers[0]);
    let before = cluster.refused();
    let after = until_lost(cut, other, async || cluster.networks[2].cut(), async || cluster.networks[2].mend()).await;
    say(&cluster, &format!("one was cut off, and what it ran came back after {} ms", after.as_millis()));
    assert!(after < cluster.lease + if is_long { Duration::from_secs(10) } else { PATIENCE }, "{after:?}");
    tokio::time::sleep(2 * cluster.lease).await;
    more().await;
    cluster.networks[2].mend();
    cut.until_ready(true).await;
    more().await;
    cluster.until_refused(before).await;
    say(&cluster, "it came back");

    // A database that crashes.
    cluster.postgres.tell("standby");
    more().await;
    cluster.postgres.tell("stop");
    servers[0].until_ready(false).await;
    cluster.postgres.tell("start");
    more().await;
    say(&cluster, "the database was stopped and started");

    // One that another takes the place of.
    cluster.postgres.tell("stop");
    cluster.postgres.tell("promote");
    for server in &servers {
        server.until_ready(true).await;
    }
    more().await;
    say(&cluster, "the standby was promoted");

    for (load, clients) in &mut loads {
        load.end(clients).await;
    }
    for ((load, _), server) in loads.iter().zip(&servers) {
        let results = load.check(server).await;
        say(&cluster, &format!("{} accepted here, {results} results", load.accepted.lock().await.len()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_server_gives_up_runs_again_and_does_not_end_as_cancelled() {
    let cluster = Cluster::apart(1).await;
    let server = cluster.start(0).await;
    // Longer than it takes to give up.
    let id = server.submit(&sleep((3 * cluster.lease).as_millis().try_into().unwrap())).await;
    server.until_state(&id, "running").await;
    cluster.networks[0].cut();
    until_said(cluster.folder(0), "has not been reached for too long").await;
    cluster.networks[0].mend();
    let job = server.until_ended(&id).await;
    assert_eq!(job["state"], "succeeded", "{job}");
}

/// What a server answers that can't ask the database: that, and in bounded time.
async fn is_refused(request: reqwest::RequestBuilder, within: Duration) {
    let answer = tokio::time::timeout(within, request.send()).await.expect("an answer").unwrap();
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_cut_off_says_so_and_comes_back_by_itself() {
    let cluster = Cluster::apart(2).await;
    // So long that the last sixth of it, between when a server gives up and when others take what it ran, is enough on a busy machine.
    let lease = [("TRINE_LEASE_MS", "9000")];
    let cut = cluster.start_with(0, &lease).await;
    let name = cut.get("/cluster").await["items"][0]["name"].clone();
    let id = cut.submit(&sleep(600_000)).await;
    cut.until_state(&id, "running").await;
    let other = cluster.start_with(1, &lease).await;

    // More requests than it has connections. The database has read the first of them when their answers can't come through any more.
    let ask = |n: usize| cut.client.get(format!("{}{}", cut.url, [&format!("/jobs/{id}"), "/jobs", "/results/summary"][n % 3]));
    let (mut raw, mut seen) = (cluster.raw().await, cluster.raw().await);
    let began = Instant::now();
    let mut locked = raw.begin().await.unwrap();
    sqlx::query("LOCK TABLE jobs, rollups IN ACCESS EXCLUSIVE MODE").execute(&mut *locked).await.unwrap();
    let asked: Vec<_> = (0..40).map(|n| tokio::spawn(is_refused(ask(n), BOUND.0))).collect();
    let text = "SELECT count(*) >= 12 FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    let waiting = async || sqlx::query_scalar::<_, bool>(text).fetch_one(&mut seen).await.unwrap().then_some(());
    until("the database is asked", waiting).await;
    cluster.networks[0].cut();
    locked.rollback().await.unwrap();

    // What it ran runs elsewhere, and by then it has stopped it.
    other.until(&id, |job| job["attempt"].as_u64() >= Some(2)).await;
    let gave_up = until_said(cluster.folder(0), "has not been reached for too long").await;
    let gone = until_said(cluster.folder(1), "nodes are gone").await;
    assert!(gone.contains(name.as_str().unwrap()) && gone.contains("attempts=1"), "{gone}");
    let moment = |line: &str| line.split_whitespace().next().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert!(moment(&gave_up) < moment(&gone), "{gave_up}\n{gone}");
    // It lives, says that it can't take work, and leaves nobody without an answer: neither who had asked nor who comes now.
    cut.get("/healthz").await;
    cut.until_ready(false).await;
    // What it knows by itself can be had, before who collects it gives up.
    let figures = cut.client.get(format!("{}/metrics", cut.url)).timeout(Duration::from_secs(10)).send().await.unwrap();
    assert_eq!(figures.status(), 200);
    let figures = figures.text().await.unwrap();
    assert!(figures.contains("\ntrine_store_up 0.0\n") && figures.contains("\ntrine_queue_slots{"), "{figures}");
    assert!(!figures.contains("trine_webhooks_pending"), "{figures}");
    let submission = is_refused(cut.client.post(format!("{}/jobs", cut.url)).json(&sleep(0)), BOUND.1);
    futures_util::future::join(submission, futures_util::future::join_all((0..40).map(|n| is_refused(ask(n), BOUND.0)))).await;
    for asked in asked {
        asked.await.unwrap();
    }

    cluster.networks[0].mend();
    cut.until_ready(true).await;
    until_said(cluster.folder(0), "is told again that this node is there").await;
    // What happens over and over was told now and then, in our own words.
    let log = cluster.log(0);
    assert!(!log.contains("sqlx::pool"), "{log}");
    let told = log.matches("can't be told that this node is there").count() as u64;
    assert!(told > 0 && told <= 1 + began.elapsed().as_secs() / Sparing::APART.as_secs(), "{log}");
    assert!(log.contains("no connection to the database came free in time"), "{log}");
    for answer in futures_util::future::join_all((0..40).map(|n| ask(n).send())).await {
        assert_eq!(answer.unwrap().status(), 200);
    }
    let there = other.submit(&with(sleep(0), json!({ "requires": { "node": name } }))).await;
    other.until_state(&there, "succeeded").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schedule_fires_once_a_time_though_the_clock_of_a_server_is_an_hour_fast() {
    let cluster = Cluster::of(3).await;
    let faketime = faketime();
    let fast = [("LD_PRELOAD", &*faketime), ("FAKETIME", "+1h"), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")];
    let servers = [cluster.start_with(0, &fast).await, cluster.start(1).await, cluster.start(2).await];
    let schedule = json!({"cron": "* * * * * *", "job": sleep(0)});
    let answer = servers[1].client.put(format!("{}/schedules/tick", servers[1].url)).json(&schedule).send().await.unwrap();
    assert_eq!(answer.status(), 201);
    let mut runs = until_runs(&servers[2], "tick", 6).await;
    runs.sort_by_key(|run| run["due_at"].as_str().unwrap().to_owned());
    let times: Vec<jiff::Timestamp> = runs.iter().map(|run| run["due_at"].as_str().unwrap().parse().unwrap()).collect();
    for pair in times.windows(2) {
        assert_eq!(pair[1].duration_since(pair[0]).as_secs(), 1, "{runs:?}");
    }
    // Not by the clock that is fast.
    assert!(times.iter().all(|time| *time <= jiff::Timestamp::now()), "{runs:?}");
    let jobs: std::collections::HashSet<_> = runs.iter().map(|run| run["job"].as_str().unwrap()).collect();
    assert_eq!(jobs.len(), runs.len());
    for job in jobs {
        servers[0].until_state(job, "succeeded").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_whose_clock_is_hours_fast_goes_by_that_of_the_database() {
    let cluster = Cluster::of(2).await;
    let faketime = faketime();
    let fast = [("LD_PRELOAD", &*faketime), ("FAKETIME", "+3h"), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")];
    let servers = [cluster.start_with(0, &fast).await, cluster.start(1).await];
    let in_minutes = |minutes: u64| jiff::Timestamp::now() + Duration::from_secs(60 * minutes);
    let id = servers[0].submit(&with(sleep(0), json!({ "delay_ms": 200 }))).await;
    let due: jiff::Timestamp = servers[1].get(&format!("/jobs/{id}")).await["run_at"].as_str().unwrap().parse().unwrap();
    assert!(due < in_minutes(1), "{due}");
    servers[1].until_state(&id, "succeeded").await;
    for server in &servers {
        let list = format!("/jobs?until={}&since={}", in_minutes(1), due - Duration::from_secs(60));
        assert_eq!(server.get(&list).await["items"][0]["id"], id.as_str());
    }
    // A key that is good for half an hour is none that has run out.
    let url = format!("{}/keys", servers[0].url);
    let make = |key: Value| servers[0].client.post(&url).json(&key);
    let admin: Value = make(json!({"name": "admin", "scopes": ["admin"]})).send().await.unwrap().json().await.unwrap();
    let key = json!({"name": "short", "scopes": ["read"], "expires_at": in_minutes(30).to_string()});
    let made = make(key).bearer_auth(admin["key"].as_str().unwrap()).send().await.unwrap();
    assert_eq!(made.status(), 201);
    let made: Value = made.json().await.unwrap();
    assert_eq!(made["state"], "live", "{made}");
    let seen = servers[0].client.get(format!("{}/jobs/{id}", servers[0].url)).bearer_auth(made["key"].as_str().unwrap());
    // It may read, but this job is nobody's of its owner.
    assert_eq!(seen.send().await.unwrap().status(), 404);
    // What takes its place is good as long.
    let url = format!("{url}/{}/rotate", made["id"].as_str().unwrap());
    let rotated = servers[0].client.post(url).json(&json!({})).bearer_auth(admin["key"].as_str().unwrap());
    let rotated: Value = rotated.send().await.unwrap().json().await.unwrap();
    assert_eq!(rotated["state"], "live", "{rotated}");
    let until: jiff::Timestamp = rotated["expires_at"].as_str().unwrap().parse().unwrap();
    assert!((in_minutes(20)..in_minutes(40)).contains(&until), "{rotated}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_only_answers_and_one_that_only_works_are_one_service() {
    let cluster = Cluster::of(2).await;
    let api = cluster.start_with(0, &[("TRINE_ROLE", "api"), ("TRINE_NODE", "front")]).await;
    let queued = api.submit(&sleep(0)).await;
    assert_eq!(api.get(&format!("/jobs/{queued}")).await["waiting"], json!({ "reason": "node", "requires": {} }));
    // What names an interpreter runs where it is; both have it, or it could not be submitted.
    let interpreters = [("TRINE_ROLE", "work"), ("TRINE_NODE", "back"), ("TRINE_PYTHON_INTERPRETERS", "main=python3")];
    let work = cluster.start_with(1, &interpreters).await;
    api.until_state(&queued, "succeeded").await;

    let refused = work.client.get(format!("{}/jobs", work.url)).send().await.unwrap();
    assert_eq!(refused.status(), 503);
    assert_eq!(refused.json::<Value>().await.unwrap()["type"], "/problems/no-api");
    let nodes = work.get("/cluster").await["items"].clone();
    let roles: Vec<_> = nodes.as_array().unwrap().iter().map(|node| (node["name"].as_str(), node["role"].as_str())).collect();
    assert!(roles.contains(&(Some("front"), Some("api"))) && roles.contains(&(Some("back"), Some("work"))), "{nodes}");

    let python = |requires: Value| {
        let workload = json!({"type": "python", "source": "def main(): return 7"});
        json!({"bound": "cpu", "workload": workload, "requires": requires})
    };
    let nowhere = api.submit(&python(json!({"python:other": "yes"}))).await;
    let there = api.submit(&python(json!({"python:main": "yes"}))).await;
    let job = api.until_state(&there, "succeeded").await;
    assert_eq!(job["output"], 7, "{job}");
    assert_eq!(api.get(&format!("/jobs/{nowhere}")).await["waiting"]["reason"], "node");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_whose_name_another_one_has_says_so_until_that_is_gone() {
    let cluster = Cluster::of(2).await;
    let name = [("TRINE_NODE", "same")];
    let (first, later) = (cluster.start_with(0, &name).await, cluster.start_with(1, &name).await);
    first.until_ready(false).await;
    let answer = first.client.get(format!("{}/readyz", first.url)).send().await.unwrap();
    let problem: Value = answer.json().await.unwrap();
    assert_eq!(problem["detail"], "another server of this name has started later and has this one's place", "{problem}");
    later.signal(Signal::SIGTERM);
    first.until_ready(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_told_to_stop_is_seen_to_drain() {
    let cluster = Cluster::of(2).await;
    let (ends, other) = (cluster.start_with(0, &[("TRINE_NODE", "ends")]).await, cluster.start(1).await);
    let id = other.submit(&with(sleep(600_000), json!({ "requires": { "node": "ends" } }))).await;
    other.until_state(&id, "running").await;
    ends.signal(Signal::SIGTERM);
    let drains = async || {
        let nodes = other.get("/cluster").await["items"].clone();
        let state = nodes.as_array().unwrap().iter().find(|node| node["name"] == "ends").map(|node| node["state"].clone());
        (state.expect("it still runs a job") == "draining").then_some(())
    };
    until("it drains", drains).await;
    // Hurried, so that what runs is handed back.
    ends.stop();
    assert_eq!(other.get(&format!("/jobs/{id}")).await["state"], "queued");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_python_leaves_what_takes_it_to_the_others() {
    let cluster = Cluster::of(3).await;
    let none = [("TRINE_PYTHON_INTERPRETERS", "none")];
    let has = cluster.start_with(0, &[("TRINE_NODE", "has")]).await;
    let lacks = [cluster.start_with(1, &none).await, cluster.start_with(2, &none).await];
    deploy(&has, "seven?bound=cpu", SOURCE, "def main(): return 7").await;
    let schedule = json!({"cron": "* * * * * *", "job": call("seven", &json!([]))});
    let answer = has.client.put(format!("{}/schedules/tick", has.url)).json(&schedule).send().await.unwrap();
    assert_eq!(answer.status(), 201);
    let runs = until_runs(&has, "tick", 6).await;
    assert!(runs.iter().all(|run| run["job"].is_string()), "{runs:?}");
    let gone = has.client.delete(format!("{}/schedules/tick", has.url)).send().await.unwrap();
    assert_eq!(gone.status(), 204);

    // What they look past is begun by none of them.
    let set = async |what: &str| has.client.post(format!("{}/cluster/nodes/has/{what}", has.url)).send().await.unwrap();
    set("drain").await;
    has.until_ready(false).await;
    let compared = json!({"workload": call("seven", &json!([]))["workload"], "tasks": 1, "budget_ms": 1_000});
    let left = comparisons::ask(&has, &compared).await;
    let other = comparisons::ask(&has, &comparisons::asks(1)).await;
    comparisons::until_state(&has, &other, "finished").await;
    assert_eq!(has.get(&format!("/comparisons/{left}")).await["state"], "queued");
    let waits = has.submit(&call("seven", &json!([]))).await;
    assert_eq!(lacks[0].get(&format!("/jobs/{waits}")).await["waiting"], json!({ "reason": "drained" }));
    set("resume").await;
    has.until_state(&waits, "succeeded").await;
    comparisons::until_state(&has, &left, "finished").await;

    // Once nobody has it, and nobody comes.
    set("drain").await;
    has.until_ready(false).await;
    let (left, waits) = (comparisons::ask(&has, &compared).await, has.submit(&call("seven", &json!([]))).await);
    has.signal(Signal::SIGTERM);
    lacks[0].until(&waits, |job| job["waiting"]["reason"] == "node").await;
    let text = "UPDATE comparisons SET requested_at = requested_at - 60000000";
    sqlx::query(text).execute(&mut cluster.raw().await).await.unwrap();
    let failed = comparisons::until_state(&lacks[0], &left, "failed").await;
    assert!(failed["error"].as_str().unwrap().contains("no Python interpreter"), "{failed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_not_be_done_by_itself_is_told_now_and_then() {
    let cluster = Cluster::of(1).await;
    let server = cluster.start_with(0, &[("TRINE_NODE", "one")]).await;
    let mut raw = cluster.raw().await;
    server.client.post(format!("{}/cluster/nodes/one/drain", server.url)).send().await.unwrap();
    server.until_ready(false).await;
    comparisons::ask(&server, &comparisons::asks(1)).await;
    let text = "ALTER ROLE trine SET default_transaction_read_only = on; \
                UPDATE nodes SET draining = false; \
                SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'trine %'";
    sqlx::raw_sql(text).execute(&mut raw).await.unwrap();
    for what in ["webhooks can't be delivered", "can't begin a comparison"] {
        let told = async || {
            let log = cluster.log(0);
            let lines: Vec<_> = log.lines().filter(|line| line.contains(what)).map(str::to_owned).collect();
            Some(lines).filter(|lines| lines.len() > 1)
        };
        let lines = until("it is told twice", told).await;
        assert!(lines[0].ends_with(" more=0") && lines[1].contains(" more=") && !lines[1].ends_with(" more=0"), "{lines:?}");
    }
}
