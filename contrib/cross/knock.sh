#!/usr/bin/env bash
# Knocks with the knock of each architecture at this machine's spad, across a wire between two network namespaces, and sees
# the kernel's door open and shut. Router key, configuration and invite were made by the architecture's own spad. Called by
# cross.sh in namespaces of its own, with the checkout, the folder of the native programs, the work folder, and
# ARCH:RUNNER for each architecture.
set -euo pipefail

top=$1 native=$2 work=$3
shift 3

mount --make-rprivate /
mount -t tmpfs tmpfs /run
mkdir -p /run/netns
ip netns add laptop
ip link set lo up
ip link add lan0 type veth peer name eth0 netns laptop
ip addr add 203.0.113.1/24 dev lan0
ip link set lan0 up
ip -n laptop addr add 203.0.113.10/24 dev eth0
ip -n laptop link set eth0 up

# door says what the laptop finds at the port of the service, where nobody listens: behind an open door the kernel refuses
# a connection, behind a shut one it says nothing.
door() {
	local rc=0
	ip netns exec laptop timeout 0.5 bash -c '</dev/tcp/203.0.113.1/22' 2>/dev/null || rc=$?
	case $rc in 124) echo shut ;; *) echo open ;; esac
}

# one starts a spad for one architecture and tries its knock.
one() {
	local own=$work/$1 daemon _
	local paths=(--config "$own/etc/spad.toml" --state "$own/state" --socket "$own/sock")
	"$native/spad" run "${paths[@]}" >"$own/log" 2>&1 &
	daemon=$!
	for _ in $(seq 100); do
		"$native/spad" status "${paths[@]}" >/dev/null 2>&1 && break
		sleep 0.05
	done
	(knocks "$@") || echo "$1" >>"$work/failed"
	"$native/spad" down "${paths[@]}" >/dev/null 2>&1 || kill "$daemon"
	wait "$daemon" || true
}

# knocks ends with 1 at the first thing that is not as it should be.
knocks() {
	local arch=$1 own=$work/$1 runner=()
	[ -z "$2" ] || runner=("$2")
	local laptop=(ip netns exec laptop) knock=("$top/bin/linux-$arch/knock" --config "$own/laptop")
	same() {
		[ "$2" = "$3" ] && return
		printf 'cross: %s: %s: %s, should be: %s\n' "$arch" "$1" "$2" "$3" >&2
		tail -n 5 "$own/log" >&2
		exit 1
	}
	knock() { "${laptop[@]}" "${runner[@]}" "${knock[@]}" "$@" 2>&1; }
	local opened='ssh: open for 15m from 203.0.113.10, port 22'
	same 'the door before' "$(door)" shut
	same 'knock enroll' "$(knock enroll "$(cat "$own/invite")" --name home | head -n 1)" \
		"enrolled at home (203.0.113.1:$(port "$own")) as laptop"
	same 'knock ssh' "$(knock ssh)" "$opened"
	same 'the door after it' "$(door)" open
	same 'knock close ssh' "$(knock close ssh)" 'ssh: closed'
	same 'the door after that' "$(door)" shut
	# The other way round: this machine's knock, with the key and the memory of times that the emulated one wrote.
	same "this machine's knock list" "$("$native/knock" list --config "$own/laptop")" "$(knock list)"
	same "this machine's knock ssh" "$("${laptop[@]}" "$native/knock" ssh --config "$own/laptop" 2>&1)" "$opened"
}
port() { sed -n 's/^listen *= *"[^"]*:\([0-9]*\)".*/\1/p' "$1/etc/spad.toml"; }

for each; do one "${each%%:*}" "${each#*:}"; done
