#!/usr/bin/env bash
# Whether the image can be built from what .dockerignore lets into its context: no engine is needed for that, only the compiler.
set -euo pipefail
cd "$(dirname "$0")/.."
context=target/image-context
rm -rf "$context"
mkdir -p "$context"
sed -n 's/^!//p' .dockerignore | while read -r path; do cp -r "$path" "$context/"; done
# What the manifest names and the image does without, as in the Dockerfile.
mkdir -p "$context/benches/load" "$context/tests/executors"
echo 'fn main() {}' | tee "$context/benches/load/main.rs" "$context/tests/allocations.rs" >"$context/tests/executors/main.rs"
# Cargo takes a copy under its target for the package itself: without its files it looks again.
trap 'rm -rf "$context"' EXIT
CARGO_TARGET_DIR="$PWD/target" cargo check --locked --bin trine --manifest-path "$context/Cargo.toml"
