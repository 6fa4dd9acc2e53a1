# `make help` lists the targets. Building and testing need Go and make, nothing else; race needs a C compiler, e2e and
# bench-peers need Java and Maven.

GO       ?= go
BIN      := bin/ringmq
VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS  := -s -w -X main.version=$(VERSION)
FUZZTIME ?= 30s
ENGINES  ?= mmap pwrite direct uring refused portable
# Rooms whose goroutines share state; only those that exist.
RACE     := $(addsuffix /...,$(addprefix ./,$(wildcard nameserver broker store commitlog netpath config client metrics)))
CRASH    := $(addsuffix /...,$(addprefix ./,$(wildcard ioengine commitlog store broker nameserver)))

export CGO_ENABLED := 0

.DEFAULT_GOAL := help
.PHONY: help build demo test test-engines race fuzz crash e2e lint bench bench-peers bench-list cross clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## the static binary bin/ringmq
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN) ./cmd/ringmq

demo: build ## start ringmq, send and consume for ten seconds, check every message
	scripts/demo.sh $(BIN)

test: ## go vet and all tests
	$(GO) vet ./...
	$(GO) test ./...

test-engines: ## the log's, the store's and the broker's tests with each of ENGINES (mmap pwrite direct uring refused portable), then with the ring reactor
	@for engine in $(ENGINES); do \
		echo "ioEngine=$$engine"; \
		rooms="./store ./broker"; [ $$engine = portable ] || rooms="./commitlog $$rooms"; refuse=; \
		if [ $$engine = refused ]; then engine=uring; refuse=1; fi; \
		RINGMQ_TEST_REFUSE_IO_URING=$$refuse RINGMQ_TEST_IO_ENGINE=$$engine $(GO) test $$rooms || exit 1; \
	done
	RINGMQ_TEST_SYNC=1 RINGMQ_TEST_IO_ENGINE=uring $(GO) test ./commitlog ./broker
	RINGMQ_TEST_POLLER=uring $(GO) test ./broker

race: ## tests of the control plane and the store under the race detector
	CGO_ENABLED=1 $(GO) test -race $(RACE)

fuzz: ## every fuzz target for FUZZTIME (30s)
	scripts/fuzz.sh $(FUZZTIME)

crash: ## kill -9, torn writes, rot, failing and full disks, each run afresh
	$(GO) test -count=1 -tags crash -run 'TestR[1-8]|Crash|Kill|Torn|Rot|Damage|Recover|Fault|Full|EIO|Failed|Power|Metadata|DiskUsed' $(CRASH)

e2e: build ## the official Java and Go clients and mqadmin against bin/ringmq
	e2e/run.sh

lint: ## gofmt, vet, staticcheck, and the rules of the house
	@unformatted=$$(gofmt -l $$($(GO) list -f '{{.Dir}}' ./...)); if [ -n "$$unformatted" ]; then echo "not formatted:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	$(GO) test ./internal/lint

bench: ## micro-benchmarks with allocations
	$(GO) test -run '^$$' -bench . -benchmem ./...

bench-peers: build ## other brokers beside ringmq; SCENARIO=closed-1k PEERS=ringmq,java,control ROUNDS=5 SHORT=1 ENGINE=direct
	benchmarks/run.sh $(if $(SCENARIO),-scenario $(SCENARIO)) $(if $(PEERS),-peers $(PEERS)) $(if $(ROUNDS),-rounds $(ROUNDS)) $(if $(SHORT),-short) $(if $(ENGINE),-engine $(ENGINE))

bench-list: ## what SCENARIO of bench-peers can be
	@benchmarks/run.sh -list

cross: ## compile for the other systems
	GOOS=linux GOARCH=arm64 $(GO) build ./...
	GOOS=darwin GOARCH=arm64 $(GO) build ./...
	GOOS=windows GOARCH=amd64 $(GO) build ./...
	GOOS=freebsd GOARCH=amd64 $(GO) build ./...

clean: ## remove what was built
	rm -rf bin
