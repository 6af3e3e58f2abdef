//! Python jobs: computing in processes against threads, and fetches on one event loop against asyncio alone.

use std::net::SocketAddr;
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::process::Command;

use crate::origin::Origin;
use crate::report::{Bar, Figure, add_all, print};
use crate::server::{Server, folder};
use crate::{Options, Result};

const COMPUTING: usize = 64;
const FETCHES: usize = 1_000;

/// Some 0.1 s of computing that never leaves the interpreter.
const COMPUTE: &str = "
def main(below):
    count = 0
    for number in range(2, below):
        divisor = 2
        while divisor * divisor <= number:
            if number % divisor == 0:
                break
            divisor += 1
        else:
            count += 1
    return count
";
const BELOW: u64 = 60_000;
/// The primes below it.
const PRIMES: u64 = 6_057;

const FETCH: &str = "
import asyncio

async def main(host, port):
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(b'GET / HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n')
    await reader.readuntil(b'\\r\\n\\r\\n')
    answer = await reader.readexactly(4)
    writer.close()
    return answer.decode()
";
/// The same without Trine: all at once, and how long that takes.
const ALONE: &str = "
import sys, time

async def alone(host, port, count):
    begun = time.perf_counter()
    answers = await asyncio.gather(*(main(host, port) for _ in range(count)))
    assert answers == ['well'] * count
    print(time.perf_counter() - begun)

asyncio.run(alone(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
";

pub(crate) async fn run(options: &Options) -> Result<()> {
    let folder = folder()?;
    let mut server = Server::start(folder.path(), &[("TRINE_PYTHON_NETWORK", "allow")]).await?;
    let mut origin = Origin::start().await?;
    let compute = |executor: &str| job("cpu", executor, COMPUTE, &json!([BELOW]), false);
    let fetch = |from: SocketAddr| job("io", "async", FETCH, &json!([from.ip(), from.port()]), true);
    for warm_up in [compute("processes"), compute("threads"), fetch(origin.fresh())] {
        through_api(&mut server, &warm_up, 4).await?;
    }
    let mut figures = [
        Figure::new("64 computing jobs in processes, s"),
        Figure::new("the same on threads, s"),
        Figure::with_bar("threads over processes", Bar::AtLeast(1.8)),
        Figure::new("1,000 fetches of 100 ms with asyncio alone, s"),
        Figure::new("the same as jobs on async, s"),
        Figure::with_bar("as jobs over asyncio alone", Bar::AtMost(1.2)),
    ];
    for _ in 0..options.rounds {
        let processes = through_api(&mut server, &compute("processes"), COMPUTING).await?;
        let threads = through_api(&mut server, &compute("threads"), COMPUTING).await?;
        let alone = alone(origin.fresh()).await?;
        let fetches = through_api(&mut server, &fetch(origin.fresh()), FETCHES).await?;
        let values = [processes, threads, threads / processes, alone, fetches, fetches / alone];
        add_all(&mut figures, values);
    }
    check(&mut server).await?;
    print("python: on as many processes as there are cores, on threads, on one event loop", &figures);
    server.stop().await
}

fn job(bound: &str, executor: &str, source: &str, arguments: &Value, network: bool) -> String {
    let workload = json!({ "type": "python", "source": source, "args": arguments, "network": network });
    json!({ "bound": bound, "executor": executor, "workload": workload }).to_string()
}

/// How long so many of these jobs take, from their submission to the last result, in seconds.
async fn through_api(server: &mut Server, job: &str, count: usize) -> Result<f64> {
    Ok(server.take(&vec![job; count]).await?.as_secs_f64())
}

/// Every job has to have given what it should.
async fn check(server: &mut Server) -> Result<()> {
    #[derive(serde::Deserialize)]
    struct Ended {
        bound: String,
        output: Value,
    }
    let mut wrong = None;
    let right = |ended: &Ended| ended.output == if ended.bound == "cpu" { json!(PRIMES) } else { json!("well") };
    server.list("/results", |ended: Ended| wrong = (!right(&ended)).then_some(ended.output).or(wrong.take())).await?;
    wrong.map_or(Ok(()), |output| Err(format!("a job gave {output}").into()))
}

/// The fetches without Trine, in seconds.
async fn alone(origin: SocketAddr) -> Result<f64> {
    let mut command = Command::new("python3");
    command.args(["-c", &format!("{FETCH}{ALONE}"), &origin.ip().to_string(), &origin.port().to_string(), &FETCHES.to_string()]);
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true).output().await?;
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}
