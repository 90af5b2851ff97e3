# make run    builds and starts the demo: simulated switches, the gateway, an embedded broker. Needs Go alone.
# make test   all tests that need nothing but Go.
# make help   the rest.

GO       ?= go
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS  := -s -w -X main.version=$(VERSION)
GOLANGCI := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
FUZZTIME ?= 10s
ARGS     ?=

.PHONY: help run demo build test test-live chaos chaos-short lint bench bench-e2e fuzz-short clean

help: ## show this
	@sed -n 's/^\([a-z0-9-]*\):.*## /  make \1	/p' $(MAKEFILE_LIST) | expand -t 20

run: build ## build and start the demo (ARGS="--for 30s --rate 5")
	./ctigate demo $(ARGS)

demo: run ## the same as run

build: ## build ./ctigate
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o ctigate .

test: ## vet, and every test that needs nothing but Go, with the race detector
	$(GO) vet ./...
	$(GO) test -race -short ./deploy/...
	$(GO) test -race $$($(GO) list ./... | grep -v /deploy/)

test-live: build ## against real Asterisk and real Apache Kafka; installs them on Debian, needs root
	$(GO) test -tags live -count=1 -timeout 30m -v ./deploy/live/...

chaos: ## everything fails at seeded moments, and nothing may be lost (ARGS="--live --for 30m", "--seed 17")
	$(GO) run ./deploy/chaos $(ARGS)

chaos-short: ## the short form of chaos, as in CI
	$(GO) test -count=1 -run TestShort -timeout 15m ./deploy/chaos

lint: ## golangci-lint, with the import rules
	$(GO) run $(GOLANGCI) run ./...

bench: ## speed and memory; docs/performance.md says what to expect
	$(GO) test -run '^$$' -bench . -benchmem ./...

bench-e2e: ## simulated switches through the gateway into real Kafka; needs what test-live needs
	$(GO) test -tags live -run '^$$' -bench EndToEnd -benchtime 1x -timeout 20m ./deploy/live

# A second try: go test may give up with "context deadline exceeded" on a busy machine. What really fails is kept by the
# first and fails again.
fuzz-short: ## every fuzz target for FUZZTIME
	@$(GO) list -f '{{.Dir}} {{.ImportPath}}' ./... | while read -r dir pkg; do \
	  for target in $$(cat "$$dir"/*_test.go 2>/dev/null | sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p'); do \
	    echo "$$pkg $$target"; \
	    fuzz() { $(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "$$pkg"; }; \
	    fuzz || fuzz || exit 1; \
	  done; \
	done

clean: ## remove what was built
	rm -rf ctigate bin
