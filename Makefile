# The front door. CI calls the same targets.
SHELL := /bin/bash
services := scripts/services.sh

.PHONY: help build test lint fmt up down clean-services preflight

help: ## list the targets
	@grep -hE '^[a-z%-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 22

build: preflight ## the release binary, target/release/weir
	cargo build --release --locked

test: preflight up ## every test, against real services started here
	set -a; . .services/env; set +a; cargo test --release --locked

lint: preflight ## formatting, clippy, scripts
	cargo fmt --check
	cargo clippy --release --all-targets --locked -- -D warnings
	bash -n scripts/*.sh .ci/run

fmt: ## format the code
	cargo fmt

up: ## start Kafka, PostgreSQL and Redis in .services/; addresses in .services/env
	@$(services) up

down: ## stop them; their data stay
	@$(services) down

clean-services: ## stop them and remove their data
	@$(services) clean

start-%: ## start one service: start-kafka, start-postgres, start-redis
	@$(services) start $*

stop-%: ## stop one service
	@$(services) stop $*

preflight:
	@scripts/preflight.sh
