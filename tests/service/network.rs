//! A network of its own for a server: the kernel that the server sees knows two links, one that clients come by and one that leads to the
//! database, and the second can be cut.

use std::io::Read;
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::server::{program, trine};

/// Keeps the network until nobody holds its input any more: so it ends with the tests, however they end, and its links with it.
const HOLD: &str = "echo && exec cat";

/// Makes the links from here into the network that a process is in. Who is at the other end is known beforehand, so that nothing is said of one
/// that can't be found when a link is cut.
const LINK: &str = "
set -eu
inside() { nsenter --net=/proc/$holder/ns/net ip \"$@\"; }
link() {
    ip link add $1 address 02:00:00:00:00:01 type veth peer name $2 address 02:00:00:00:00:02 netns $holder
    ip address add $3 peer $4 dev $1
    ip link set $1 up
    inside address add $4 peer $3 dev $2
    inside link set $2 up
    inside neighbour add $3 lladdr 02:00:00:00:00:01 dev $2 nud permanent
}
holder=$1
inside link set lo up
link $2 clients $3 $4
link $5 database $6 $7
";

/// How many networks one test program may have: programs that run at the same time have others.
const NETWORKS: u32 = 32;

/// The addresses, of which a network has four: of what is private, a part that few use.
pub(crate) const ADDRESSES: (Ipv4Addr, u32) = (Ipv4Addr::new(10, 128, 0, 0), 9);

/// A network, and what keeps it.
pub(crate) struct Network {
    holder: Child,
    number: u32,
}

impl Network {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let count = NUMBER.fetch_add(1, Ordering::SeqCst);
        assert!(count < NETWORKS, "more than {NETWORKS} networks");
        let mut holder = Command::new("unshare");
        if !is_root() {
            // The server in it is to be a process of whoever runs the tests.
            holder.args(["--user", "--map-current-user"]);
        }
        let holder = holder.args(["--net", "sh", "-c", HOLD]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let number = (std::process::id() * NETWORKS + count) % (1 << (32 - ADDRESSES.1 - 2));
        let mut network = Self { holder, number };
        let mut said = [0];
        let is_there = network.holder.stdout.as_mut().unwrap().read_exact(&mut said);
        is_there.expect("a network namespace: for whoever is not root, the kernel has to allow user namespaces");
        let mut link = as_root("sh");
        link.args(["-c", LINK, "sh"]).arg(network.holder.id().to_string());
        link.arg(network.link('c')).arg(network.address(0).to_string()).arg(network.server().to_string());
        link.arg(network.link('d')).arg(network.database().to_string()).arg(network.address(3).to_string());
        succeed(link);
        network
    }

    /// Where clients find the server.
    pub(crate) fn server(&self) -> Ipv4Addr {
        self.address(1)
    }

    /// Where the server finds the database.
    pub(crate) fn database(&self) -> Ipv4Addr {
        self.address(2)
    }

    /// The program under test, in this network.
    pub(crate) fn enter(&self) -> Command {
        let of_holder = |kind: &str| format!("--{kind}=/proc/{}/ns/{kind}", self.holder.id());
        let mut command = program("nsenter");
        if !is_root() {
            command.arg(of_holder("user")).arg("--preserve-credentials");
        }
        // It goes with whoever runs the tests, or else would keep the network.
        command.arg(of_holder("net")).args(["setpriv", "--pdeathsig", "KILL"]).arg(trine().get_program());
        command
    }

    /// Nothing comes through to the database or from it, and nobody is told.
    pub(crate) fn cut(&self) {
        self.set("down");
    }

    pub(crate) fn mend(&self) {
        self.set("up");
    }

    fn set(&self, state: &str) {
        let mut ip = as_root("ip");
        ip.args(["link", "set", &self.link('d'), state]);
        succeed(ip);
    }

    /// The name of a link, at this end.
    fn link(&self, kind: char) -> String {
        format!("trine{}{kind}", self.number)
    }

    fn address(&self, place: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(ADDRESSES.0.to_bits() + 4 * self.number + place)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

pub(crate) fn is_root() -> bool {
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

/// A command that may change the links of this machine.
fn as_root(name: &str) -> Command {
    if is_root() {
        return Command::new(name);
    }
    let mut command = Command::new("sudo");
    // Nobody is there to type a password.
    command.args(["-n", name]);
    command
}

fn succeed(mut command: Command) {
    let output = command.output().expect("links between networks are made as root or through sudo, which is not there");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "links between networks are made by `ip`, as root or through sudo without a password: {said}"
    );
}
