#!/usr/bin/env bash
# Builds spad and knock for every system they are made for, into bin/SYSTEM-ARCH, and tries under qemu-user what that can
# run: the tests of what is sent and stored, the programs' commands, and a knock across a wire (knock.sh). qemu-user has no
# netfilter sockets, so the router that is knocked at is this machine's own spad. A table comes last; the exit code is 1 if
# anything failed. Called by make cross.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
top=$(cd "$here/../.." && pwd)
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export PATH
go=${GO:-go}

# The targets: system, architecture, its name in qemu-user, programs. MIPS without floating point and ARM before version 6
# are what old routers have.
targets='linux amd64 x86_64 spad knock
linux arm64 aarch64 spad knock
linux arm arm spad knock
linux mips mips spad knock
linux mipsle mipsel spad knock
linux riscv64 riscv64 spad knock
darwin amd64 - knock
darwin arm64 - knock
windows amd64 - knock'
export GOMIPS=softfloat GOARM=5

# What is sent and stored must be the same everywhere; mips (big-endian) and arm (32 bits, no unaligned loads) try more.
everywhere='pkg/wire keys pkg/replay'
strange="$everywhere pkg/flood pkg/config pkg/device pkg/policy pkg/verify pkg/session pkg/client pkg/capture"
strange+=' pkg/firewall/nftables'
# Not these: statistics, exhaustive searches and measurements, which take an emulated processor minutes and do not depend on
# it; those that start the test binary anew, as only a kernel with binfmt_misc set up for it could; and the first, for which
# qemu-user passes SO_MEMINFO on wrongly.
left_out='^(TestOtherLengthsNeverArrive|TestKill|TestTimesAcrossProcesses|TestLooksRandom|TestEveryBit(OfTheMessage)?'
left_out+='|TestAllocations|TestCutAtEveryByte|TestCutAndClockLost|TestHostile|TestMutated|TestMillionSources'
left_out+='|TestSeenForgetsTheOldest|TestTableAgainstOracle|TestNeverWider|TestLoopbackClosedPort)$'

title() { printf '\n%s (%d s)\n' "$*" "$SECONDS"; }
# failed notes that a target failed at something; the others go on.
failed() {
	printf 'cross: %s: %s\n' "$1" "${*:2}" >&2
	echo "$1" >>"$work/failed"
}

# build makes a target's programs as make build does, in the checkout $1.
build() {
	GOOS=$2 GOARCH=$3 make -s -C "$1" build BIN="bin/$2-$3" PROGRAMS="${*:5}"
}

packages() { case $1 in mips | arm) echo "$strange" ;; *) echo "$everywhere" ;; esac }

# compile makes the test binaries of an architecture.
compile() {
	local list
	read -ra list <<<"$(packages "$1")"
	(cd "$top" && GOOS=linux GOARCH=$1 CGO_ENABLED=0 "$go" test -c -buildvcs=false -trimpath -tags "${TAGS-}" -ldflags '-s -w' \
		-o "$work/$1/tests/" "${list[@]/#/./}")
}

# try_tests runs the tests of one package in its folder, where their data is. That nothing ran is a failure too; that tests
# which need a namespace or netfilter are skipped is not, even in CI.
try_tests() {
	local arch=$1 qemu=$2 package=$3 out
	out=$work/$arch/${package//\//_}.out
	if (cd "$top/$package" && CI='' timeout 120 "$qemu" "$work/$arch/tests/${package##*/}.test" -test.v -test.skip "$left_out") \
		>"$out" 2>&1 && grep -q '^--- PASS' "$out"; then
		grep -c '^--- PASS' "$out" >>"$work/$arch/passed"
	else
		grep -vE '^ *(=== |--- PASS)' "$out" | head -n 20 >&2 || true
		failed "$arch" "the tests of $package fail"
	fi
}

# try_commands runs a target's spad and knock, and lets this machine's read what they wrote and they what this one's wrote.
# What spad made and invited is what knock.sh starts from.
try_commands() {
	local arch=$1 own=$work/$1 qemu=()
	[ -z "$2" ] || qemu=("$2")
	local spad=("${qemu[@]}" "$top/bin/linux-$arch/spad") knock=("${qemu[@]}" "$top/bin/linux-$arch/knock")
	mkdir -p "$own"
	same() { [ "$2" = "$3" ] || failed "$arch" "$1: $2, should be: $3"; }
	same 'spad --version' "$("${spad[@]}" --version 2>&1)" "$("$native/spad" --version)"
	same 'knock --version' "$("${knock[@]}" --version 2>&1)" "$("$native/knock" --version)"

	"${spad[@]}" init --dir "$own/etc" --hostname 203.0.113.1 >"$own/log" 2>&1 || failed "$arch" "spad init: $(cat "$own/log")"
	"$native/spad" init --dir "$own/etc-native" --hostname 203.0.113.1 >/dev/null
	local etc
	for etc in etc etc-native; do
		same "spad check of $etc" "$("${spad[@]}" check --config "$own/$etc/spad.toml" 2>&1)" 'ok: 1 services, 0 devices'
		same "spad key of $etc" "$("${spad[@]}" key --config "$own/$etc/spad.toml" 2>&1)" \
			"$("$native/spad" key --config "$own/$etc/spad.toml")"
	done
	"${spad[@]}" invite laptop --allow ssh --no-qr --config "$own/etc/spad.toml" --state "$own/state" --socket "$own/sock" \
		>"$own/invite" 2>"$own/log" || failed "$arch" "spad invite: $(cat "$own/log")"

	same 'knock key' "$("${knock[@]}" key --config "$own/laptop" 2>/dev/null)" "$("$native/knock" key --config "$own/laptop" 2>&1)"
	same 'knock list' "$("${knock[@]}" list --config "$own/laptop" 2>&1)" \
		'knock: no router is known yet; enrol with an invite: knock enroll INVITE'
}

# build_again builds some targets once more, from a copy in another folder, and compares. The build cache has what another
# folder compiled only because -trimpath keeps the folder's name out of it.
build_again() {
	mkdir "$work/again"
	tar -C "$top" --exclude=./bin -cf - . | tar -C "$work/again" -xf -
	local target
	for target in "linux $host - spad knock" 'linux mips mips spad knock' 'windows amd64 - knock'; do
		# shellcheck disable=SC2086 # a list of words
		build "$work/again" $target
	done
	again='Built in another folder, the programs are the same, byte for byte.'
	for target in "$work"/again/bin/*/*; do
		cmp "$target" "$top/${target#"$work/again/"}" && continue
		again='Built in another folder, the programs are NOT the same: see above.'
		failed again "${target#"$work/again/"} is not the same when built in another folder"
	done
}

# row prints a target's line of the table.
row() {
	local file=$top/bin/$1-$2 size=(- -) did=
	size[0]=$(cat "$file"/knock* | wc -c)
	[ ! -e "$file/spad" ] || size[1]=$(wc -c <"$file/spad")
	if [ "$1" != linux ]; then
		did='not run'
	elif grep -qx "$2" "$work/failed"; then
		did='FAILED, see above'
	else
		[ ! -e "$work/$2/passed" ] || did="$(awk '{ n += $1 } END { print n }' "$work/$2/passed") tests, "
		did+='commands, a knock'
		[ "$2" = "$host" ] || did+=", under qemu-$3"
	fi
	printf '%-14s %9s %9s  %s\n' "$1-$2" "${size[@]}" "$did"
}

needed=()
while read -r _ _ name _; do [ "$name" = - ] || needed+=("qemu-$name"); done <<<"$targets"
"$top/contrib/setup.sh" go git ip make nft unshare "${needed[@]}"
host=$("$go" env GOHOSTARCH)
native=$top/bin/linux-$host
[[ $targets == *"linux $host "* ]] || { echo "cross: run this on a Linux machine that is a target itself, not on $host" >&2; exit 1; }
work=$(mktemp -d "${TMPDIR:-/tmp}/spad-cross.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
: >"$work/failed"

title 'building every target'
while read -ra target; do build "$top" "${target[@]}"; done <<<"$targets"
build_again

title 'building the tests'
emulated=() everyone=()
while read -r system arch name _; do
	[ "$system" = linux ] || continue
	if [ "$arch" = "$host" ]; then everyone+=("$arch:"); continue; fi
	everyone+=("$arch:qemu-$name")
	emulated+=("$arch:qemu-$name")
	compile "$arch"
done <<<"$targets"

title 'running the tests under qemu'
for one in "${emulated[@]}"; do
	for package in $(packages "${one%%:*}"); do
		[ "$(jobs -rp | wc -l)" -lt "$(nproc)" ] || wait -n
		try_tests "${one%%:*}" "${one#*:}" "$package" &
	done
done
wait

title 'running the commands'
for one in "${everyone[@]}"; do try_commands "${one%%:*}" "${one#*:}"; done

title "knocking at this machine's spad"
user=()
[ "$(id -u)" -eq 0 ] || user=(--user --map-root-user)
unshare "${user[@]}" --net --mount --pid --fork --kill-child --mount-proc "$here/knock.sh" "$top" "$native" "$work" "${everyone[@]}" ||
	failed knock 'not every target was tried'

printf '\n%-14s %9s %9s  %s\n' target knock spad ran
while read -r system arch name _; do row "$system" "$arch" "$name"; done <<<"$targets"
printf '\n%s (%d s)\n' "$again" "$SECONDS"
[ ! -s "$work/failed" ]
