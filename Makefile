# The verbs of this repository. Anything longer than a line or two is Go.
#
#   make                build and test
#   make test           go test -race ./...
#   make lint           format, vet, go fix, golangci-lint
#   make generate       BPF objects, API code (clang-16, llvm-16, protoc), manual, picture
#   make fuzz           every fuzz target, FUZZTIME inputs each (100000x)
#   make sim            10,000 simulation seeds
#   make bench          a table of all benchmarks: BENCHTIME (100ms), BENCHCOUNT (6)
#   make bench-compare  the same against another commit: REF=main
#   make vmtest         the tests that need a kernel of their own, in QEMU
#   make package        bin/maxwell_VERSION_ARCH.deb

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c

GO         ?= go
FUZZTIME   ?= 100000x
BENCH      ?= .
BENCHTIME  ?= 100ms
BENCHCOUNT ?= 6
REF        ?= main
PKGS       ?= ./...
TESTFLAGS  ?=

# The long mode is read before go test looks at its cache, so never trust it.
ifdef MAXWELL_LONG
TESTFLAGS  += -count=1 -timeout=60m
endif

# Tools have module files of their own, so that Maxwell's dependencies are
# what Maxwell needs.
tool    := $(GO) tool -modfile=tools.mod
lint    := $(GO) tool -modfile=lint.mod golangci-lint
plugins := google.golang.org/protobuf/cmd/protoc-gen-go connectrpc.com/connect/cmd/protoc-gen-connect-go

# The version of a package: the last tag, and what came after it.
VERSION    ?= $(shell git describe --tags --match 'v[0-9]*' 2>/dev/null | sed 's/^v//; s/-\([0-9]*\)-g/+\1.g/' | grep . || \
	echo "0.0.0~$$(git rev-list --count HEAD 2>/dev/null || echo 0).g$$(git rev-parse --short HEAD 2>/dev/null || echo unknown)")

.PHONY: all build test lint format generate fuzz sim bench bench-compare vmtest package

all: build test

build:
	$(GO) build ./...
	$(GO) build -o bin/maxwell ./cmd/maxwell

# Compiled in parallel, run one package after the other: tests of shares and of
# deaths in time must not share two cores with another package's hogs.
test:
	@echo "compiling the tests; with empty caches this takes minutes" >&2
	@$(GO) list -race -export -test -deps $(PKGS) > /dev/null 2>&1 || true # go test says what is wrong
	@$(GO) test -race -p 1 $(TESTFLAGS) $(PKGS)

lint:
	@unformatted=$$(git grep -Lz --untracked '^// Code generated .* DO NOT EDIT' -- '*.go' | xargs -0r $(tool) gofumpt -l); \
	if [[ -n $$unformatted ]]; then printf 'not formatted (make format):\n%s\n' "$$unformatted"; exit 1; fi
	$(GO) vet -tags vm ./... ./.ci/skips
	$(GO) fix -tags vm -diff ./... ./.ci/skips
	$(lint) run ./... ./.ci/skips

# Not one of the eight verbs: what lint asks for.
format:
	$(lint) fmt ./...

generate:
	$(GO) build -modfile=tools.mod -o bin/plugins/ $(plugins)
	PATH="$(CURDIR)/bin/plugins:$$PATH" $(GO) generate ./...

# Targets are found by listing, so that a new one is never forgotten. FUZZTIME is
# a number of inputs: at the end of a time (30s) Go before 1.27 fails now and then
# with «context deadline exceeded» (go.dev/issue/75804). What is interesting is
# made smaller for as many runs only: by default that takes a minute each.
fuzz:
	@git grep -o --untracked '^func Fuzz[[:alnum:]_]*' -- '*_test.go' | while IFS=: read -r file target; do \
		package=$$(dirname "$$file"); target=$${target#func }; \
		echo "== $$package $$target"; \
		$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 100x "./$$package" < /dev/null; \
	done

# A seed that fails is printed; `make test` plays the first 200 of them.
sim:
	MAXWELL_LONG=1 $(GO) test -count=1 -timeout=60m -run '^TestSeeds$$' -v ./internal/sim

bench:
	@mkdir -p bin
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem -benchtime $(BENCHTIME) -count $(BENCHCOUNT) $(PKGS) > bin/bench.txt \
		|| { cat bin/bench.txt; exit 1; }
	@$(tool) benchstat bin/bench.txt

# Both sides run on this machine, one after the other: compare ratios only.
bench-compare:
	@old=$$(mktemp -d); trap 'git worktree remove --force "$$old" 2>/dev/null; rm -rf "$$old"' EXIT; \
	git worktree add --quiet --detach "$$old" $(REF); mkdir -p bin; \
	for side in "$$old" .; do \
		(cd "$$side" && $(GO) test -run '^$$' -bench '$(BENCH)' -benchmem -benchtime $(BENCHTIME) -count $(BENCHCOUNT) $(PKGS)) \
			> "bin/bench-$$([[ $$side == . ]] && echo new || echo old).txt"; \
	done; \
	$(tool) benchstat $(REF)=bin/bench-old.txt here=bin/bench-new.txt

vmtest:
	$(GO) test -tags vm -count=1 -timeout 60m -v ./internal/vmtest

# Everything in it is made from the source, with the time of the commit, so that
# the same commit gives the same package. GOARCH=arm64 packages for another machine.
package: export VERSION := $(VERSION)
package: export ARCH := $(shell $(GO) env GOARCH)
package: export SOURCE_DATE_EPOCH := $(shell git log -1 --format=%ct 2>/dev/null || echo 0)
package:
	rm -rf bin/package && mkdir -p bin/package/man bin/package/completion
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -o bin/package/maxwell ./cmd/maxwell
	env -u GOARCH -u GOOS $(GO) build -o bin/package/here ./cmd/maxwell
	bin/package/here manual bin/package/man
	gzip -9n bin/package/man/*
	bin/package/here completion bash > bin/package/completion/maxwell.bash
	bin/package/here completion zsh > bin/package/completion/_maxwell
	bin/package/here completion fish > bin/package/completion/maxwell.fish
	env -u GOARCH -u GOOS $(GO) tool -modfile=package.mod nfpm package -f packaging/nfpm.yaml -p deb -t bin/maxwell_$(VERSION)_$(ARCH).deb
