# What there is to do here. `make test` is what CI runs.
.PHONY: help run test unit integration outage storm observe dashboards end-to-end load manifests lint fmt bench advisories docs

# The first words that a newcomer types.
help:            ## this list
	@sed -n 's/^\([a-z-]*\):.*##/\1/p' $(MAKEFILE_LIST) | awk '{ name = $$1; $$1 = ""; printf "  make %-12s%s\n", name, $$0 }'

run:             ## the service, release build, in ./numgen-data
	cargo run --release

test:            ## everything: lint, unit, integration, observe, models, end to end, load, manifests, coverage; installs what is missing
	tests/stages/run.sh

unit:            ## the tests that need no server, network or sleep
	cargo test --lib

integration:     ## the tests that start, kill and restart the built binary
	cargo test --test it

outage:          ## Redis away for a whole minute under four nodes and a hot counter; prints how long the return took
	NUMGEN_TEST_OUTAGE_S=60 cargo test --test it redis_away -- --nocapture

# STORM_SEED=7 draws other strikes, STORM_S says for how many seconds.
storm:           ## kills, pauses, cut lines and forgetful stores by lot, upon every profile with a store; a minute each
	NUMGEN_TEST_STORM_SEED=$${STORM_SEED:-1} NUMGEN_TEST_STORM_S=$${STORM_S:-60} cargo test --test it storms:: -- --nocapture --test-threads 1

observe:         ## dashboards and alerts on a real Prometheus, and the runbook
	tests/stages/run.sh observe

dashboards:      ## draws grafana/dashboards from grafana/source
	NUMGEN_WRITE_DASHBOARDS=1 cargo test --test it monitoring::dashboards::dashboards_are_what_their_sources_say

end-to-end:      ## the hurl suites against the release binary
	tests/stages/run.sh end-to-end

# LOAD=short takes half a minute each; SCRIPTS="baseline spike" runs these only; LOAD_DURATION=10m says how long.
load:            ## the full load tests of k6/ with the service's objectives; the endurance takes 12 hours
	tests/stages/tools.sh system k6
	cargo build --release --locked
	LOAD=$${LOAD:-full} tests/stages/load.sh target/release/numgen $(SCRIPTS)

manifests:       ## renders and validates k8s/, Dockerfile and compose.yaml
	tests/stages/run.sh manifests

lint:            ## rustfmt, clippy and rustdoc without warnings, cargo-deny
	tests/stages/run.sh lint

fmt:             ## formats the sources
	cargo fmt

bench:           ## the pure parts by criterion, then HTTP against a bare hyper server, as ratios
	tests/stages/bench.sh

advisories:      ## known vulnerabilities of what is built in; offline by the copy of the database that was fetched last
	tests/stages/advisories.sh

docs:            ## the documentation of the code, opened in a browser
	cargo doc --no-deps --open
