# Everything that is done with this repository, by name. `make` alone lists it.
GO      ?= go
PREFIX  ?= /usr/local
DESTDIR ?=
# What build makes, and where. For another system name both: GOOS=darwin make build BIN=bin/darwin PROGRAMS=knock
BIN      := bin
PROGRAMS := spad knock

# The version is the tag's; no build time inside, so two builds of one commit are the same bytes.
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
# no_docs leaves cli's unused manual-page generator out of the binaries.
TAGS    := urfave_cli_no_docs
BUILD   := $(GO) build -buildvcs=false -trimpath -tags $(TAGS) -ldflags '-s -w -X main.version=$(VERSION)'
TEST    := $(GO) test -timeout 20m -buildvcs=false -tags $(TAGS)
TOOL    := $(GO) tool -modfile=contrib/tools/go.mod
TOOLS   := go cc ip nft iptables-nft ufw unshare # what the tests run
SCRIPTS := contrib/setup.sh contrib/figures.sh .ci/run $(wildcard contrib/cross/*.sh contrib/demo/*.sh contrib/systemd/*.sh contrib/openwrt/*.sh)
# What install puts where, besides the programs.
TO   := $(DESTDIR)$(PREFIX)
DOCS := README.md PROTOCOL.md SECURITY.md EVENTS.md CHANGELOG.md LICENSE pkg/config/reference.toml contrib/events.schema.json contrib/systemd/iptables.conf

FUZZTIME  ?= 5s
BENCHTIME ?= 1s

.DEFAULT_GOAL := help
.PHONY: help build install test doors check installed cross demo fuzz bench figures clean go-ready

help: ## list what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

build: go-ready ## the static binaries spad and knock, into ./bin
	CGO_ENABLED=0 $(BUILD) -o '$(BIN)/' $(PROGRAMS:%=./%)

install: build ## them, systemd's files and documentation, to DESTDIR/PREFIX (PREFIX is /usr/local)
	install -d '$(TO)/sbin' '$(TO)/bin' '$(TO)/lib/systemd/system' '$(TO)/lib/sysusers.d' '$(TO)/lib/tmpfiles.d' '$(TO)/share/doc/spad'
	install -m 0755 '$(BIN)/spad' '$(TO)/sbin/spad'
	install -m 0755 '$(BIN)/knock' '$(TO)/bin/knock'
	sed 's|@PREFIX@|$(PREFIX)|' contrib/systemd/spad.service >'$(TO)/lib/systemd/system/spad.service'
	chmod 0644 '$(TO)/lib/systemd/system/spad.service'
	install -m 0644 contrib/systemd/sysusers.conf '$(TO)/lib/sysusers.d/spad.conf'
	install -m 0644 contrib/systemd/tmpfiles.conf '$(TO)/lib/tmpfiles.d/spad.conf'
	install -m 0644 $(DOCS) '$(TO)/share/doc/spad'

test: ## every test, with the race detector
	@GO='$(GO)' contrib/setup.sh $(TOOLS)
	CGO_ENABLED=1 $(TEST) -race ./...

doors: ## doors beside fw4, ufw, firewalld, Docker, iptables, nftables: a table of what opened and what shut
	@GO='$(GO)' contrib/setup.sh $(TOOLS)
	@table=$$(mktemp) && trap 'rm -f "$$table"' EXIT && code=0 && \
	{ CGO_ENABLED=1 DOORS_TABLE=$$table $(TEST) -race -count=1 -run '^TestDoors' ./pkg/daemon || code=$$?; } && \
	cat "$$table" && exit $$code

check: go-ready ## formatting, vet, staticcheck, shell scripts, house rules, other systems
	@bad=$$($(TOOL) gofumpt -l .); [ -z "$$bad" ] || { printf 'not formatted, mend with: %s gofumpt -w .\n%s\n' '$(TOOL)' "$$bad" >&2; exit 1; }
	$(GO) vet -tags $(TAGS) ./...
	$(TOOL) staticcheck -tags $(TAGS) ./...
	GOARCH=mips $(GO) vet -tags $(TAGS) ./...
	GOOS=darwin $(GO) vet -tags $(TAGS) ./knock
	GOOS=windows $(GO) vet -tags $(TAGS) ./knock
	@if command -v shellcheck >/dev/null; then shellcheck $(SCRIPTS) && shellcheck -s dash contrib/openwrt/etc/init.d/spad; else echo 'shellcheck is not installed: shell scripts not checked'; fi
	$(TEST) -count=1 -run '^TestHouse' ./spad

installed: ## what install puts where, tried: systemd boots with it; and OpenWrt's package
	@GO='$(GO)' contrib/systemd/installed.sh
	@GO='$(GO)' contrib/systemd/boot.sh
	@GO='$(GO)' contrib/openwrt/test.sh

cross: ## both programs for every system, into bin/SYSTEM-ARCH; tried under qemu
	@GO='$(GO)' TAGS='$(TAGS)' contrib/cross/cross.sh

demo: ## a laptop, a stranger, a router and a LAN host in this terminal
	@GO='$(GO)' contrib/demo/demo.sh

fuzz: go-ready ## every fuzz target for FUZZTIME (5s)
	@for pkg in $$($(GO) list ./...); do \
	  for target in $$($(GO) test -tags $(TAGS) -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
	    echo "$$pkg $$target"; \
	    $(TEST) -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$pkg || exit 1; \
	  done; \
	done

bench: go-ready ## every benchmark
	$(TEST) -run '^$$' -bench . -benchmem -benchtime $(BENCHTIME) ./...

figures: go-ready ## what is promised of speed, memory and tests, measured
	@TEST='$(TEST)' contrib/figures.sh

clean: ## remove what was built
	rm -rf bin

go-ready:
	@GO='$(GO)' contrib/setup.sh go
