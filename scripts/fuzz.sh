#!/usr/bin/env bash
# Fuzzes one of the targets in fuzz/: `scripts/fuzz.sh job -runs=10000000`. What follows the name is for libFuzzer.
# It needs the stable toolchain and a C++ compiler: the flags are those of cargo-fuzz, but for the sanitizers, which need a nightly one.
set -euo pipefail
cd "$(dirname "$0")/../fuzz"
target=$1
shift
host=$(rustc -vV | sed -n 's/^host: //p')
flags=(--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
  -Cllvm-args=-sanitizer-coverage-trace-compares)
# With --target, the flags are for the program alone, not for what helps to build it.
RUSTFLAGS="${flags[*]}" cargo build --quiet --release --locked --target "$host" --target-dir ../target/fuzz --bin "$target"
mkdir -p "../target/fuzz/corpus/$target" "../target/fuzz/artifacts/$target"
# What it finds goes to a folder of its own; `-merge=1 fuzz/corpus/TARGET target/fuzz/corpus/TARGET` keeps the corpus small.
exec "../target/fuzz/$host/release/$target" -artifact_prefix="../target/fuzz/artifacts/$target/" -dict=dictionary.txt "$@" \
  "../target/fuzz/corpus/$target" "corpus/$target"
