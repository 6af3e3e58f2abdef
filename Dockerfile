FROM rust:1.95-bookworm AS build
WORKDIR /trine

# The dependencies, in a layer that stays as long as the manifests do: built for a package of the same name with nothing in it.
# The manifest names a benchmark and tests, so cargo wants to see files of these names as well.
COPY Cargo.toml Cargo.lock ./
COPY .cargo .cargo
RUN mkdir -p src benches/load tests/executors \
 && touch src/lib.rs \
 && echo 'fn main() {}' | tee src/main.rs benches/load/main.rs tests/allocations.rs > tests/executors/main.rs \
 && cargo build --release --locked --bin trine

# The sources. They may be older than what was just built of the empty ones; cargo goes by the time of change.
COPY . .
RUN touch src/lib.rs src/main.rs \
 && cargo build --release --locked --bin trine

# Nothing is installed here: SQLite and the roots of HTTPS are part of the binary.
FROM debian:bookworm-slim
RUN mkdir -m 700 /data && chown 10001:10001 /data
COPY --from=build /trine/target/release/trine /usr/local/bin/trine
# `docker stop` kills after 10 s: what runs has half of that to end, the rest is handed back.
ENV TRINE_LISTEN=0.0.0.0:8040 TRINE_DATA_DIR=/data TRINE_GRACE_MS=5000
# Memory goes back to the kernel after 10 ms, not a second: less of what a large batch took stays here.
ENV MIMALLOC_PURGE_DELAY=10
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8040
STOPSIGNAL SIGTERM
# It asks http://127.0.0.1:8040. Where the server listens elsewhere or speaks TLS, TRINE_SERVER says whom to ask, such as https://localhost:8040,
# and TRINE_CA_CERT names the certificate of the authority that vouches for it.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 CMD ["trine", "health"]
ENTRYPOINT ["trine"]
CMD ["serve"]
