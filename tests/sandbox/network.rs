//! What can be reached.

use std::net::{TcpListener, UdpSocket};

use serde_json::json;

use crate::bench::{Bench, landlock};

/// Tries to reach a listener by TCP and by UDP.
const REACH: &str = r"
import socket
def tcp():
    with socket.create_connection(('127.0.0.1', TCP), timeout=10):
        return 'reached'
def udp():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b'hello', ('127.0.0.1', UDP))
        return 'sent'
tell([attempt(tcp), attempt(udp)])";

#[tokio::test]
async fn without_the_network_no_socket_can_be_opened() {
    let (tcp, udp) = (TcpListener::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let script = REACH
        .replace("TCP", &tcp.local_addr().unwrap().port().to_string())
        .replace("UDP", &udp.local_addr().unwrap().port().to_string());
    let mut bench = Bench::new();
    assert_eq!(bench.answer(&script).await, json!(["EPERM", "EPERM"]));
    udp.set_nonblocking(true).unwrap();
    assert!(udp.recv(&mut [0; 8]).is_err());
    bench.policy.network = true;
    assert_eq!(bench.answer(&script).await, json!(["reached", "sent"]));
    udp.set_nonblocking(false).unwrap();
    assert_eq!(udp.recv(&mut [0; 8]).unwrap(), 5);
}

#[tokio::test]
async fn with_the_network_services_of_this_machine_stay_out_of_reach() {
    let mut bench = Bench::new();
    bench.policy.network = true;
    let script = r"
import socket
tell([attempt(socket.socket, family, socket.SOCK_STREAM) for family in (socket.AF_UNIX, 40, 38)])";
    assert_eq!(bench.answer(script).await, json!(["EPERM", "EPERM", "EPERM"]));
}

#[tokio::test]
async fn with_the_network_the_kernel_tells_of_routes_and_of_nothing_else() {
    let mut bench = Bench::new();
    bench.policy.network = true;
    // Of routes; of all sockets, of devices that come and go, of whatever has no number of its own.
    let script = r"
import socket
tell([attempt(lambda of: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, of).proto, of) for of in (0, 4, 15, 16)])";
    assert_eq!(bench.answer(script).await, json!([0, "EPERM", "EPERM", "EPERM"]));
}

#[tokio::test]
async fn with_the_network_names_can_be_looked_up() {
    if !landlock(1) {
        return;
    }
    let mut bench = Bench::new();
    bench.policy.network = true;
    assert_eq!(bench.answer("import socket\ntell(socket.gethostbyname('localhost'))").await, json!("127.0.0.1"));
}

#[tokio::test]
async fn connected_pairs_work_and_loops_that_need_them() {
    let bench = Bench::new();
    let script = r"
import asyncio, socket
ours, theirs = socket.socketpair()
ours.sendall(b'hello')
async def main():
    await asyncio.sleep(0)
    return await asyncio.to_thread(lambda: 'thread')
datagrams = attempt(socket.socketpair, socket.AF_UNIX, socket.SOCK_DGRAM)
tell([theirs.recv(5).decode(), asyncio.run(main()), datagrams])";
    assert_eq!(bench.answer(script).await, json!(["hello", "thread", "EPERM"]));
}
