#!/usr/bin/env bash
# Installs what the tests need and this machine lacks, from Debian's packages: as root, or through sudo.
# Without either it says what is missing and fails; a test never skips itself for want of something.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
  printf '%s\n' "$@" >&2
  exit 1
}

missing=()

# need PACKAGE COMMAND...: the package is missing unless the command succeeds.
need() {
  local package=$1
  shift
  "$@" >/dev/null 2>&1 || missing+=("$package")
}

has_c_compiler() {
  printf '#include <stdlib.h>\nint main(void) { return EXIT_SUCCESS; }\n' | cc -x c -fsyntax-only -
}

# Debian puts its programs out of the way, a folder for each version.
has_postgresql() {
  compgen -G '/usr/lib/postgresql/*/bin/initdb'
}

has_faketime() {
  compgen -G '/usr/lib/*/faketime/libfaketimeMT.so.1'
}

# The Rust toolchain is the one thing that is not Debian's.
cargo --version >/dev/null 2>&1 || fail 'Missing: a Rust toolchain. See https://rustup.rs.'
for component in rustfmt clippy; do
  if ! "cargo-${component/rustfmt/fmt}" --version >/dev/null 2>&1; then
    rustup component add "$component" || fail "Missing: $component, a component of the Rust toolchain."
  fi
done

need util-linux unshare --version # disks that fill up are mounted where only the server sees them
need iproute2 ip -V # servers that are cut off from their database run in networks of their own
need build-essential has_c_compiler # SQLite, mimalloc and ring are compiled from C
need python3 python3 -c "import asyncio, unittest" # the Python host is tested with the interpreter that is there
need libpython3-testsuite python3 clients/python/tests/interpreters.py # the client passes CPython's own tests of concurrent.futures
need postgresql has_postgresql # the store for several servers is tested on a real one, which the tests start themselves
need pgbouncer test -x /usr/sbin/pgbouncer # what may stand between a server and its PostgreSQL
need util-linux setpriv --version # nobody may start PostgreSQL as root
need libfaketime has_faketime # one of several servers has a clock that is wrong
need python3-venv python3 -c "import ensurepip, venv" # what the Python client needs goes into an environment of its own

# environment FOLDER PACKAGE...: a virtual environment in target/FOLDER with these packages, which it names itself once it has them.
environment() {
  local folder=target/$1
  shift
  "$folder/bin/python3" -m pip --version >/dev/null 2>&1 && [[ $(cat "$folder/packages" 2>/dev/null) == "$*" ]] && return
  { python3 -m venv --clear "$folder" && "$folder/bin/pip" install --quiet "$@" && echo "$*" >"$folder/packages"; } ||
    fail "The Python environment in $folder could not be made."
}

if ((${#missing[@]} > 0)); then
  echo "Missing: ${missing[*]}"
  command -v apt-get >/dev/null || fail 'This script knows apt-get only, which is not here: install them by hand.'
  if ((EUID == 0)); then
    as_root=()
  elif command -v sudo >/dev/null; then
    as_root=(sudo)
    [[ -t 0 ]] || as_root+=(-n) # nobody is there to type a password
  else
    fail "Not root, and there is no sudo. Install them with: apt-get install ${missing[*]}"
  fi

  install_missing() {
    "${as_root[@]}" apt-get update &&
      "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "${missing[@]}"
  }
  install_missing || fail "They could not be installed. Install them with: apt-get install ${missing[*]}"
fi
scripts/newer-pgbouncer.sh || fail "A PgBouncer that keeps prepared statements could not be put into target/test-pgbouncer."
environment test-python cloudpickle mypy==2.4.1 ruff==0.17.6 # the client's tests, and what its code is checked with
environment test-moto 'moto[s3]==5.2.5' flask flask-cors # a storage that speaks S3's protocol
environment test-schemathesis schemathesis==4.32.5 # makes up requests from the OpenAPI document
