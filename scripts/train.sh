#!/usr/bin/env bash
# Makes `.cargo/trine.profdata` anew, by which optimised builds are laid out (`.cargo/rustc`): builds Trine so that it counts what it runs, and
# gives it work of every kind. Takes a quarter of an hour on two cores. With --check it only says whether that is due.
#
# Rust's names have in them which versions of what crates they were compiled with, so whatever changes `Cargo.lock` makes it due.
set -euo pipefail
cd "$(dirname "$0")/.."
profile=.cargo/trine.profdata
trained=.cargo/trained-with

if [ "${1:-}" = --check ]; then
  sha256sum --status --check "$trained" || { echo "Cargo.lock has changed since $profile was made: run scripts/train.sh" >&2; exit 1; }
  exit
fi

# Rust's own, or Debian's of LLVM 19 or newer: older ones can't read what this compiler counts.
profdata=$({ compgen -G "$(rustc --print sysroot)/lib/rustlib/*/bin/llvm-profdata" || compgen -G '/usr/lib/llvm-2?/bin/llvm-profdata' ||
  compgen -G /usr/lib/llvm-19/bin/llvm-profdata; } | sort -V | tail -1) ||
  { echo 'Missing: llvm-profdata, of the component llvm-tools of the Rust toolchain or of the package llvm-19.' >&2; exit 1; }
scripts/install-test-deps.sh

folder=$PWD/target/train
export RUSTC_WRAPPER='' RUSTFLAGS="-Cprofile-generate=$folder/counts" CARGO_TARGET_DIR=$folder
cargo bench --locked --no-run --bench load
# Those of programs that were run to build it.
rm -rf "$folder/counts"
"$folder/release/trine" demo
TRINE_BIN=$folder/release/trine target/test-python/bin/python3 clients/python/tests/bench.py --rounds 1
cargo bench --locked --bench load -- noop cpu waits fetches mixed python cluster --rounds 1 --seconds 3

"$profdata" merge --sparse --output "$profile" "$folder/counts"
sha256sum Cargo.lock >"$trained"
