#!/bin/sh
# Measures the figures that the project holds itself to and prints them in one table: what, measured, wanted.
#
#     COUNT=5 BENCHTIME=2s contrib/figures.sh
#
# Each is a ratio to a floor that is measured in turns with it, a median over the run, and here the median of COUNT runs: the machine
# may be shared and noisy. What can't be measured here (no namespaces) is said to be so.
set -eu
cd "$(dirname "$0")/.."
test=${TEST:-go test -tags urfave_cli_no_docs}
runs=$(mktemp)
trap 'rm -f "$runs"' EXIT

bench() {
	# $test is words
	# shellcheck disable=SC2086
	$test -run '^$' -bench "$2" -benchtime "${BENCHTIME:-1s}" -count "${COUNT:-3}" "$1" | tee -a "$runs" | grep ^Benchmark >&2 || true
}

bench ./pkg/wire '^Benchmark(Verify|Gate)$'
bench ./pkg/verify .
bench ./pkg/daemon '^BenchmarkArrival$'
BENCHTIME=1x bench ./pkg/daemon '^BenchmarkIdle$'
bench ./knock '^BenchmarkNoAnswer$'
# shellcheck disable=SC2086
$test -cover ./keys ./pkg/wire ./pkg/replay ./pkg/verify ./pkg/policy ./pkg/config | tee -a "$runs" >&2

awk '
$1 == "pkg:" { pkg = $2; sub(/^spad\//, "", pkg) }
/^Benchmark/ {
	name = $1; sub(/-[0-9]+$/, "", name)
	for (i = 3; i < NF; i += 2) {
		key = pkg " " name " " $(i + 1)
		all[key] = all[key] " " $i
	}
}
/coverage:/ { for (i = 1; i < NF; i++) if ($i == "coverage:") covered[$2] = $(i + 1) + 0 }

function median(key,    v, n, i, j, x) {
	n = split(all[key], v, " ")
	for (i = 2; i <= n; i++) {
		x = v[i] + 0
		for (j = i - 1; j > 0 && v[j] + 0 > x; j--) v[j + 1] = v[j]
		v[j + 1] = x
	}
	return v[int((n + 1) / 2)]
}
function row(what, got, most, unit,    kept) {
	kept = got == "" ? "not measured here" : got + 0 <= most ? "" : "MISSED"
	printf "%-64s %12s  %-14s %s\n", what, (got == "" ? "-" : sprintf("%.4g", got) unit), "<= " most unit, kept
}
END {
	printf "\n%-64s %12s  %s\n", "figure", "measured", "wanted"
	row("good packet, wire / (X25519 + Ed25519 verify)", median("pkg/wire BenchmarkVerify ratio"), 1.10, " x")
	row("  allocations", median("pkg/wire BenchmarkVerify allocs/packet"), 6, "")
	row("good packet, gate to device, CPU / (X25519 + Ed25519 verify)", median("pkg/verify BenchmarkVerify ratio"), 1.10, " x")
	row("  allocations", median("pkg/verify BenchmarkVerify allocs/packet"), 6, "")
	row("junk at the gate, CPU / SipHash", median("pkg/verify BenchmarkJunk ratio"), 1.3, " x")
	row("  allocations", median("pkg/verify BenchmarkJunk allocs/packet"), 0, "")
	row("packet of another length, CPU", median("pkg/verify BenchmarkWrongLength cpu-ns/packet"), 20, " ns")
	row("10,000 devices, CPU / one device", median("pkg/verify BenchmarkCrowd ratio"), 1.05, " x")
	row("arrival to open door / (verify + fdatasync + netlink write)", median("pkg/daemon BenchmarkArrival ratio"), 1.5, " x")
	row("idle daemon, resident", median("pkg/daemon BenchmarkIdle MB-VmRSS"), 10, " MB")
	row("knock without an answer / hello world", median("knock BenchmarkNoAnswer ratio"), 2.5, " x")
	row("  to (hello world + an append with sync)", median("knock BenchmarkNoAnswer disk-ratio"), 2.5, " x")
	row("  CPU", median("knock BenchmarkNoAnswer cpu-ratio"), 2.5, " x")
	for (p in covered) {
		name = p; sub(/^spad\//, "", name)
		printf "%-64s %12s  %-14s %s\n", "statements tested, " name, covered[p] " %", ">= 95 %", covered[p] < 95 ? "MISSED" : "" | "sort"
	}
}' "$runs"
