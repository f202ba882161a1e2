# What there is to do here. `make test` is what CI runs.
.PHONY: help run test unit integration outage end-to-end lint fmt bench advisories docs

# The first words that a newcomer types.
help:            ## this list
	@sed -n 's/^\([a-z-]*\):.*##/\1/p' $(MAKEFILE_LIST) | awk '{ name = $$1; $$1 = ""; printf "  make %-12s%s\n", name, $$0 }'

run:             ## the service, release build, in ./numgen-data
	cargo run --release

test:            ## everything: lint, unit, integration, end to end, coverage; installs what is missing
	tests/stages/run.sh

unit:            ## the tests that need no server, network or sleep
	cargo test --lib

integration:     ## the tests that start, kill and restart the built binary
	cargo test --test it

outage:          ## Redis away for a whole minute under four nodes and a hot counter; prints how long the return took
	NUMGEN_TEST_OUTAGE_S=60 cargo test --test it redis_away -- --nocapture

end-to-end:      ## the hurl suites against the release binary
	tests/stages/run.sh end-to-end

lint:            ## rustfmt, clippy and rustdoc without warnings, cargo-deny
	tests/stages/run.sh lint

fmt:             ## formats the sources
	cargo fmt

bench:           ## the pure parts by criterion, then HTTP against a bare hyper server, as ratios
	tests/stages/bench.sh

advisories:      ## known vulnerabilities of what is built in; needs the network
	cargo deny check advisories

docs:            ## the documentation of the code, opened in a browser
	cargo doc --no-deps --open
