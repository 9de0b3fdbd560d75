# The front door. CI calls the same targets.
SHELL := /bin/bash
services := scripts/services.sh
cargo_deny := 0.20.2
shell_files := $(wildcard scripts/*.sh scripts/services/*.sh benches/peers/*.sh) .ci/run

.PHONY: help demo demo-real build test test-chart test-k8s test-scaling chart-derived dashboards docs deny faults faults-selftest soak lint fmt up down clean-services test-services preflight

help: ## list the targets
	@grep -hE '^[a-z0-9%-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 22

# ---- a first look --------------------------------------------------------------------------------------------------

demo: build ## everything in one process, nothing to install: a broker in memory, SQLite, a load, a live view, the audit
	target/release/weir demo $(DEMO)

demo-real: build ## the same against Kafka, PostgreSQL and Redis, started here
	@scripts/require.sh services
	@$(services) up
	set -a; . .services/env; set +a; target/release/weir demo --brokers $$KAFKA_BROKERS --store $$POSTGRES_URL --redis $$REDIS_URL $(DEMO)

# ---- the code ------------------------------------------------------------------------------------------------------

build: preflight ## the release binary, target/release/weir
	cargo build --release --locked

test: ## every test, against real services started here
	@scripts/require.sh build services browser producers monitoring chart
	@$(services) up
	set -a; . .services/env; set +a; cargo test --release --locked --workspace --features avro,protobuf --no-fail-fast
	@$(MAKE) test-chart

test-chart: ## the chart, the alerts, the image's files; needs a weir that is built
	@scripts/require.sh monitoring chart
	@scripts/test-chart.sh

test-k8s: ## the chart on a real API server, which is built the first time (ten minutes)
	@scripts/require.sh chart etcd
	@scripts/test-k8s.sh

faults: ## every fault of the matrix against services of its own, once (docs/reliability.md); FAULTS='--only 3 --seed 7'
	@scripts/require.sh build services faults
	cargo test --release --locked --test faults -- --all $(FAULTS)

faults-selftest: ## whether the matrix finds eight deliberate bugs, which only this build has
	@scripts/require.sh build services faults
	cargo test --release --locked --features sabotage --test faults -- --selftest $(FAULTS)

test-scaling: ## a fleet that follows weir_desired_replicas through steps of load (four minutes)
	@scripts/require.sh build services
	@$(services) up
	set -a; . .services/env; set +a; cargo test --release --locked --test e2e -- --ignored --nocapture --exact scaling::a_fleet_that_follows_clears_its_backlog_in_time_and_does_not_flap

soak: ## the matrix ten times, each time with another seed
	@scripts/require.sh build services faults
	cargo test --release --locked --test faults -- --all --loops 10 $(FAULTS)

lint: preflight ## formatting, clippy, scripts
	cargo fmt --all --check
	cargo clippy --release --workspace --all-targets --all-features --locked -- -D warnings
	cargo clippy --release --lib --bins --locked --no-default-features --features postgres -- -D warnings
	cargo clippy --release --lib --bins --locked --no-default-features --features mysql -- -D warnings
	cargo clippy --release --lib --bins --locked --no-default-features --features sqlite -- -D warnings
	for file in $(shell_files); do bash -n $$file || exit 1; done
	if command -v shellcheck > /dev/null; then shellcheck $(shell_files); fi

fmt: ## format the code
	cargo fmt --all

dashboards: ## write dashboards/*.json by scripts/dashboards.py
	scripts/dashboards.py

chart-derived: ## write the chart's table of values, and weir's keys in its schema
	@scripts/require.sh chart
	scripts/chart-tools.sh python scripts/chart_derived.py

deny: preflight ## licences, advisories and sources of the dependencies; installs cargo-deny the first time, which takes minutes
	@cargo deny --version 2> /dev/null | grep -qx 'cargo-deny $(cargo_deny)' || cargo install cargo-deny --version $(cargo_deny) --locked
	cargo deny check

docs: preflight ## write docs/configuration.md and the figures of docs/capacity.md, which weir tells of itself
	WEIR_WRITE_DOCS=1 cargo test --release --locked --features avro,protobuf --test documents

preflight:
	@scripts/require.sh build

# ---- measurements --------------------------------------------------------------------------------------------------

bench: ## drains of 2,000,000 events beside a hand-written loop and COPY, and memory; EVENTS, ROUNDS, WORKLOAD change it
	@scripts/require.sh build services
	@$(services) up
	set -a; . .services/env; set +a; cargo bench --locked --bench drain

bench-scale: ## the cost of an event by backlog, partitions and workers, and what more workers bring; EVENTS, ROUNDS
	@scripts/require.sh build services
	@$(services) up
	set -a; . .services/env; set +a; WORKLOAD=scale cargo bench --locked --bench drain

bench-latency: ## from the intended send time to the effect, at 30 and 10 % of the loop's rate; EVENTS, ROUNDS
	@scripts/require.sh build services
	@$(services) up
	set -a; . .services/env; set +a; WORKLOAD=latency cargo bench --locked --bench drain

bench-peers: ## the same drain by others' consumers: Spring Kafka, Parallel Consumer, Kafka Connect, arroyo (benches/peers)
	@scripts/require.sh build services peers
	benches/peers/build.sh
	@$(services) up
	set -a; . .services/env; set +a; WORKLOAD=peers cargo bench --locked --bench drain

bench-verify: ## what `weir verify` costs, and that its memory stays the same; EVENTS=1000000,10000000 changes how many
	@scripts/require.sh build services
	@$(services) up
	set -a; . .services/env; set +a; cargo test --release --locked --test verify -- --ignored --nocapture --exact memory::bench

bench-bytes: ## what an event takes on disk and in memory, on every database (docs/capacity.md; ten minutes)
	@scripts/require.sh build services
	@$(services) up
	set -a; . .services/env; set +a; cargo test --release --locked --features avro,protobuf --test e2e -- --ignored --nocapture --exact capacity::bench_bytes

bench-processed: preflight ## the processed set as sets and as a bitmap: Redis' memory, marks and look-ups a second; IDS, TASKS
	@scripts/require.sh services
	cargo bench --locked --bench processed

bench-micro: preflight ## what one event costs outside the services: decoding, ids, watermarks, metrics
	cargo bench --locked --bench micro

# ---- the services --------------------------------------------------------------------------------------------------

up: ## start Kafka, PostgreSQL, MariaDB and Redis in .services/; addresses in .services/env
	@$(services) up

down: ## stop them; what Kafka and PostgreSQL hold stays
	@$(services) down

clean-services: ## stop them and remove their data
	@$(services) clean

start-%: ## start one service: start-kafka, start-postgres, start-redis
	@$(services) start $*

stop-%: ## stop one service
	@$(services) stop $*

kill-%: ## end one service as a crash would
	@$(services) kill $*

topic-%: ## make a topic with 8 partitions: topic-message-events
	@$(services) topic $*

test-services: ## test these scripts in two clones in a temporary folder (two minutes)
	scripts/test-services.sh
