# make run     builds Trine, starts it with a first batch of real work, and leaves it up
# make test    installs what the tests need, then runs every check and every test
# make bench   measures the service under load, each figure beside its bar

.PHONY: run test test-deps check bench

run:
	cargo run --locked --release -- demo --keep

# The Python client is tested and checked with what `test-deps` has put into this folder.
WITH_PYTHON = PATH="$(CURDIR)/target/test-python/bin:$$PATH"

# The tests come last, so that their results are the end of what is shown; and without traces of the stack, in which what failed is lost.
test: check
	python3 -m unittest discover -s tests/python_host
	cargo build --locked
	$(WITH_PYTHON) python3 -m unittest discover -s clients/python/tests
	$(WITH_PYTHON) python3 clients/python/tests/run_cpython_tests.py
	RUST_BACKTRACE=0 cargo test --locked

test-deps:
	scripts/install-test-deps.sh

check: test-deps
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo metadata --locked --format-version 1 --manifest-path fuzz/Cargo.toml >/dev/null
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps
	scripts/check-image-context.sh
	scripts/train.sh --check
	cd clients/python && $(WITH_PYTHON) ruff check . && $(WITH_PYTHON) ruff format --check src tests && $(WITH_PYTHON) mypy
	$(WITH_PYTHON) python3 scripts/blocking-client.py --check
	@if cargo deny --version >/dev/null 2>&1; then set -x; cargo deny check bans licenses sources; \
	else echo 'cargo-deny is not installed: licences and sources of dependencies were not checked'; fi

bench:
	cargo bench --locked --bench load
