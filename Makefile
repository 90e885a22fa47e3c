# SPDX-License-Identifier: Apache-2.0
#
# setup    install what building and testing need (Debian packages; root or sudo)
# build    all programs and libraries into bin/
# demo     what it is for, in half a minute, on a temporary mount
# test     lint, then every test, on real mounts (root or sudo); WITH_RACE=1: beside make race, and without those of ./tests that it runs, too
# race     the Go tests under the race detector
# soak     the long versions of the tests
# bench    the figures of docs/performance.md: bare DMBs, then connections (BENCH_ARGS for ismfs bench)
# bench-apps  the kernel feature's table: programs over TCP and under smc_run
# install  into $(DESTDIR)$(PREFIX)

PREFIX  ?= /usr/local
DESTDIR ?=
GO      ?= go
PYTHON  ?= python3
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
SUDO    := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
GOFLAGS_VERSION = -trimpath -ldflags '-X main.version=$(VERSION)'
SOAK    ?= 60s

PROGRAMS = ismfs smcd-dump
PACKAGES = gcc libc6-dev make git python3 iproute2 util-linux kmod nftables tshark \
           redis-server redis-tools nginx-light wrk sockperf iperf3 memcached socat curl musl-tools haproxy postgresql

.PHONY: all setup build clients preload preload-test examples install demo test test-go test-examples race soak lint bench bench-apps clean

all: build

# Debian starts the servers that it installs: not these, which the tests start as they need them.
POLICY = /usr/sbin/policy-rc.d
setup:
	@missing=; for p in $(PACKAGES); do \
	    dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then \
	    if [ ! -e $(POLICY) ]; then trap '$(SUDO) rm -f $(POLICY)' EXIT INT TERM; \
	        printf '#!/bin/sh\nexit 101\n' | $(SUDO) tee $(POLICY) >/dev/null && $(SUDO) chmod +x $(POLICY); fi; \
	    $(SUDO) apt-get update -qq && \
	    $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; fi
	@$(GO) version >/dev/null || { echo "setup: Go is missing: see https://go.dev/doc/install" >&2; exit 1; }
	$(GO) mod download
	cd examples && $(GO) mod download
	@[ -e /dev/fuse ] || $(SUDO) modprobe fuse || echo "setup: /dev/fuse is missing; ismfs doctor tells more" >&2

build: clients preload examples
	CGO_ENABLED=0 $(GO) build $(GOFLAGS_VERSION) -o bin/ ./cmd/ismfs ./tools/smcd-dump

# The examples are a module of their own, so that who imports libsmc does not inherit what they need.
EXAMPLES    = http grpc redis
EXAMPLES_TO = bin/examples
examples:
	@for e in $(EXAMPLES); do for side in server client; do \
	    (cd examples && $(GO) build $(RACE) -o $(CURDIR)/$(EXAMPLES_TO)/$$e-$$side ./$$e/$$side) || exit 1; done; done

clients:
	$(MAKE) --no-print-directory -C clients/c BIN=$(abspath $(BIN))

# The library that smc_run puts in front of the C library, and the launcher; preload-test: with what their tests need.
BIN = bin
preload: PRELOAD_GOAL = all
preload-test: PRELOAD_GOAL = test
preload preload-test:
	@mkdir -p $(BIN)
	$(MAKE) --no-print-directory -j$$(nproc) -C preload BIN=$(abspath $(BIN)) $(PRELOAD_GOAL)
	@sed 's|@VERSION@|$(VERSION)|' tools/smc_run/smc_run > $(BIN)/smc_run.new && chmod 755 $(BIN)/smc_run.new && \
	    mv $(BIN)/smc_run.new $(BIN)/smc_run

demo: setup build
	$(SUDO) demo/run.sh

test: setup lint build test-go test-examples
	$(MAKE) --no-print-directory -C clients test

# The tests mount, and make users and namespaces: as root, but built by who calls make. -count=1 since the machine is part
# of what is tested.
TEST_ENV = ISMFS_TEST_BIN=$(CURDIR)/bin/test$(RACE)
ifneq ($(SUDO),)
AS_ROOT  = -exec 'sudo --preserve-env=ISMFS_TEST_BIN,ISMFS_SOAK,CI,GOMAXPROCS'
endif

# Programs in C with C at both ends heed neither the race detector nor GOMAXPROCS: they are run once.
IN_C = ^TestRun(Apart|Batch|Buffers|BusyServer|Calls|CallsFortified|CallsSix|Combinations|Early|Fallbacks|GracefulEnd|HandOver|Handlers|Haproxy|Iperf3|KillWorker|LateClient|Limit|Memcached|Mixed|Musl|Nginx|OneCPU|Parts|Plain|Postgres|Python|Redis|RedisPlainServer|RedisPubSub|Sanitized|Socat|Sockperf|Spawn|Stress)$$|^TestRunOneShot$$/^C,
SKIP = $(if $(RACE)$(GOMAXPROCS),-skip '$(IN_C)')
# The others are left to the race detector by who runs both (make test WITH_RACE=1, then make race). The packages' tests are not: they are
# short, and the rings in them race the faster for not being watched.
ONLY = $(if $(RACE)$(GOMAXPROCS),,$(if $(WITH_RACE),-run '$(IN_C)'))
# Nor does a model, which is one goroutine (libsmc/internal/stream; with the race detector it is not built).
SKIP_MODELS = $(if $(GOMAXPROCS),-skip '^Test(Page)?Model')

# The packages may run beside one another, but for tests, some of which want the only device there is. Of those that do not, and wait for most
# of their time, two go at once, however many CPUs there are.
# What is in C is the same under the race detector.
OF_RUN  = smc_run libsmc-preload.so smc-run-test smc-run-test-fortified smc-run-stress smc-run-mixed smc-run-parts
GO_TEST = $(TEST_ENV) $(GO) test -count=1 $(RACE) $(AS_ROOT)
test-go:
	$(GO) build $(RACE) -o bin/test$(RACE)/ ./cmd/ismfs ./tools/smcd-dump
	$(MAKE) --no-print-directory preload-test BIN=bin/test
	$(if $(RACE),cp -p $(OF_RUN:%=bin/test/%) bin/test$(RACE)/)
ifdef TEST_ARGS
	$(GO_TEST) $(TEST_ARGS)
else
	$(GO_TEST) $(SKIP_MODELS) $$($(GO) list ./... | grep -v '/tests$$')
	$(GO_TEST) -timeout 30m -parallel 2 $(SKIP) $(ONLY) ./tests
endif

test-examples:
	$(GO) build $(RACE) -o bin/test$(RACE)/ ./cmd/ismfs
	$(MAKE) --no-print-directory examples EXAMPLES_TO=bin/test$(RACE)/examples RACE=$(RACE)
	cd examples && $(GO_TEST) .

race:
	$(MAKE) --no-print-directory test-go test-examples RACE=-race

soak: build
	ISMFS_SOAK=$(SOAK) $(MAKE) --no-print-directory test-go TEST_ARGS='-timeout 60m -v -run "Churn|TestSoak|Hostile" ./tests'

lint:
	@unformatted=$$(gofmt -l .); [ -z "$$unformatted" ] || { echo "not formatted: $$unformatted" >&2; exit 1; }
	$(GO) vet ./...
	$(GO) mod tidy -diff
	cd examples && $(GO) vet ./... && $(GO) mod tidy -diff
	sh -n tools/smc_run/smc_run
	@for target in darwin/arm64 windows/amd64 linux/arm64; do \
	    CGO_ENABLED=0 GOOS=$${target%/*} GOARCH=$${target#*/} $(GO) vet ./tree ./smc ./dmb ./libsmc/... ./bpf/smcopt || exit 1; done

bench: setup build
	$(SUDO) bench/dmb/run.py
	$(SUDO) bin/ismfs bench all --plot bin/bench.svg $(BENCH_ARGS)

# The kernel feature's table: programs over TCP and under smc_run. Minutes.
bench-apps: setup build
	$(MAKE) --no-print-directory -C preload bench
	$(SUDO) bench/apps.py $(BENCH_ARGS)

install: build
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib $(DESTDIR)$(PREFIX)/include $(DESTDIR)/sbin \
	    $(DESTDIR)$(PREFIX)/share/man/man8 $(DESTDIR)$(PREFIX)/share/ismfs $(DESTDIR)/etc/systemd/system
	install -m 755 $(PROGRAMS:%=bin/%) $(DESTDIR)$(PREFIX)/bin/
	ln -sf $(PREFIX)/bin/ismfs $(DESTDIR)/sbin/mount.ismfs
	ln -sf $(PREFIX)/bin/ismfs $(DESTDIR)/sbin/mount.fuse.ismfs
	install -m 644 bin/libismfs.a $(DESTDIR)$(PREFIX)/lib/
	install -m 755 bin/smc_run $(DESTDIR)$(PREFIX)/bin/
	install -m 755 bin/libsmc-preload.so $(DESTDIR)$(PREFIX)/lib/
	install -m 644 clients/c/ismfs.h $(DESTDIR)$(PREFIX)/include/
	install -m 644 clients/python/ismfs.py $(DESTDIR)$(PREFIX)/share/ismfs/
	install -m 644 docs/man/*.8 $(DESTDIR)$(PREFIX)/share/man/man8/
	sed 's|/usr/local|$(PREFIX)|g' deploy/ismfs.service > $(DESTDIR)/etc/systemd/system/ismfs.service

clean:
	rm -rf bin
	$(MAKE) --no-print-directory -C clients/c clean
	$(MAKE) --no-print-directory -C preload clean
