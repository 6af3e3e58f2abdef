//! A PostgreSQL of the tests' own: made in a folder of its own by a shell that does what it is told, and that takes everything down when
//! nobody holds its input any more: so it ends with the tests, however they end.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "without it there is nothing to go on with")]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};

/// Text is sorted by a locale, as that of most databases is, so that it shows where bytes are to be sorted by.
const SERVE: &str = r#"
set -u
bin=$1 addresses=$2 from=$3 folder=$(mktemp -d)
start() {
    "$bin/pg_ctl" -s -w -D "$folder/$1" -l "$folder/$1.log" start -o "-k $folder -p $2 -c listen_addresses=$addresses -c max_connections=200 -c log_min_messages=fatal"
}
frozen=
stop() { [ ! -e "$folder/$1/postmaster.pid" ] || "$bin/pg_ctl" -s -w -m "$2" -D "$folder/$1" stop; }
trap '[ -z "$frozen" ] || kill -CONT $frozen; stop main immediate; stop standby immediate; rm -rf "$folder"' EXIT
# A signal to all that a terminal or a limit of time ends is one to this shell too.
trap 'exit 1' INT TERM HUP
{
    "$bin/initdb" -D "$folder/main" -A trust -U trine -E UTF8 --locale=C.UTF-8 --locale-provider=icu --icu-locale=en-US --no-sync &&
    { [ -z "$from" ] || echo "host all trine $from trust" >>"$folder/main/pg_hba.conf"; } &&
    start main 5432
} >&2 && echo "$folder"
while read -r command; do
    case $command in
    stop) stop main immediate ;;
    start) start main 5432 ;;
    freeze) frozen=$(head -n 1 "$folder/main/postmaster.pid") && frozen="$frozen $(pgrep -d " " -P "$frozen")" && kill -STOP $frozen ;;
    # What is answered is on both from then on.
    standby)
        "$bin/pg_basebackup" -D "$folder/standby" -h "$folder" -p 5432 -U trine -R -c fast --no-sync &&
        sed -i "s/primary_conninfo = '/&application_name=standby /" "$folder/standby/postgresql.auto.conf" &&
        start standby 5433 &&
        echo "synchronous_standby_names = 'standby'" >>"$folder/main/postgresql.conf" &&
        "$bin/pg_ctl" -s -D "$folder/main" reload ;;
    take-over) "$bin/pg_ctl" -s -w -D "$folder/standby" promote ;;
    # It takes the place of the one that has gone, where all look for it.
    promote) "$bin/pg_ctl" -s -w -D "$folder/standby" promote && stop standby fast && start standby 5432 ;;
    esac >&2 && echo done || echo failed
done
"#;

/// A PostgreSQL, and what keeps it.
pub(crate) struct Postgres {
    folder: String,
    shell: Child,
    said: BufReader<ChildStdout>,
}

impl Postgres {
    pub(crate) fn start() -> Self {
        Self::start_at(&[], "")
    }

    /// The same, that is also reached at these addresses, from those of a network.
    pub(crate) fn start_at(addresses: &[std::net::Ipv4Addr], from: &str) -> Self {
        // Nobody may run it as root.
        let mut command = if std::fs::metadata("/proc/self").unwrap().uid() == 0 {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups", "--", "sh"]);
            command
        } else {
            Command::new("sh")
        };
        command.args(["-c", SERVE, "sh"]).arg(programs());
        let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        command.arg(addresses.join(",")).arg(from);
        // `mktemp` is asked by one who may not enter every folder.
        command.env("TMPDIR", "/tmp").current_dir("/").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut shell = command.spawn().expect("a shell");
        let mut said = BufReader::new(shell.stdout.take().unwrap());
        let mut folder = String::new();
        said.read_line(&mut folder).unwrap();
        assert!(!folder.is_empty(), "PostgreSQL does not start: see scripts/install-test-deps.sh");
        Self { folder: folder.trim().to_owned(), shell, said }
    }

    /// Has the shell do something: `stop` it at once, as a crash does; `start` it again; `freeze` it, so that it takes connections and says nothing; add a `standby` that everything is answered from
    /// only when it is on both; have that `take-over` where it is, or `promote` it to the place of the other. Once it is done.
    #[allow(dead_code, reason = "not every test program does that")]
    pub(crate) fn tell(&mut self, command: &str) {
        writeln!(self.shell.stdin.as_mut().unwrap(), "{command}").unwrap();
        let mut said = String::new();
        self.said.read_line(&mut said).unwrap();
        assert_eq!(said, "done\n", "{command}");
    }

    /// The folder of its socket.
    pub(crate) fn folder(&self) -> &str {
        &self.folder
    }

    /// Where its own database is.
    pub(crate) fn url(&self) -> String {
        format!("postgres://trine@localhost/postgres?host={}", self.folder())
    }
}

/// Where PostgreSQL's programs are: Debian puts them out of the way.
fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions.map(|version| version.path().join("bin")).filter(|bin| bin.join("initdb").exists()).max();
    newest.expect("PostgreSQL: see scripts/install-test-deps.sh")
}
