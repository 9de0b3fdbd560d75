# syntax=docker/dockerfile:1
# weir as an image, for one platform or several:
#   docker buildx build --platform linux/amd64,linux/arm64 -t registry.example.org/weir:0.1.0 --push .
# Both stages are of one Debian release: weir is linked with its OpenSSL.

FROM rust:1.94-slim-bookworm AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ libssl-dev make pkg-config \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
# The allocator is built for pages of one size, and works with smaller ones: on arm64 a kernel may have 64 KiB.
ARG TARGETARCH
RUN if [ "$TARGETARCH" = arm64 ]; then \
        printf '[env]\nJEMALLOC_SYS_WITH_LG_PAGE = "16"\n' >> "$CARGO_HOME/config.toml"; fi
# The dependencies alone, with a stub for each target that the manifest names: this layer lasts until Cargo.lock changes.
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src tests/faults benches/drain \
    && touch src/lib.rs tests/faults/main.rs benches/drain/main.rs benches/micro.rs \
    && echo 'fn main() {}' > src/main.rs \
    && cargo build --release --locked --bin weir
COPY build.rs ./
COPY config config
COPY src src
# There is no repository here to ask: --build-arg WEIR_COMMIT=$(git rev-parse HEAD) is what `weir --version` tells.
ARG WEIR_COMMIT
# The files may be older than the stubs' build, and Cargo goes by their times.
RUN touch build.rs src/lib.rs src/main.rs && cargo build --release --locked --bin weir

FROM gcr.io/distroless/cc-debian12:nonroot
LABEL org.opencontainers.image.title="weir" \
      org.opencontainers.image.description="A worker pool for Kafka" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
COPY --from=build /src/target/release/weir /usr/local/bin/weir
USER 65532:65532
EXPOSE 9464
ENTRYPOINT ["/usr/local/bin/weir"]
CMD ["run", "--config", "/etc/weir/weir.toml"]
