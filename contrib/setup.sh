#!/bin/sh
# Makes sure that the commands named as arguments are there:
#
#     contrib/setup.sh go cc nft
#
# What Debian or a relative of it can install is installed (as root, or through sudo); otherwise the one line to run is printed and
# the exit code is 1. Go itself is never installed: too old or absent, it is named with the version that is needed.
set -eu

PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin # where an ordinary user's PATH does not look for ip and nft
top=$(cd "$(dirname "$0")/.." && pwd)
go=${GO:-go}

say() { printf '%s\n' "setup: $*" >&2; }

# check_go fails unless the Go found is as new as go.mod asks for.
check_go() {
	need=$(awk '$1 == "go" { print $2; exit }' "$top/go.mod")
	if ! command -v "$go" >/dev/null 2>&1; then
		say "Go is not installed: install Go $need or newer (https://go.dev/doc/install) and put its bin folder on PATH"
		return 1
	fi
	found=$(cd "$top" && "$go" env GOVERSION 2>/dev/null | sed 's/^go//; s/[^0-9.].*//') || found=
	oldest=$(printf '%s\n%s\n' "$need" "${found:-0}" | sort -V | head -n 1)
	if [ "$oldest" != "$need" ]; then
		say "Go ${found:-at $(command -v "$go")} is too old: install Go $need or newer (https://go.dev/doc/install)"
		return 1
	fi
}

# have tells whether a command works here. cc means gcc with the C library's headers, which the race detector needs.
have() {
	case $1 in
	cc) command -v gcc >/dev/null 2>&1 && echo '#include <stdlib.h>' | gcc -E - >/dev/null 2>&1 ;;
	*) command -v "$1" >/dev/null 2>&1 ;;
	esac
}

# package_of names the Debian package that brings a command.
package_of() {
	case $1 in
	cc) echo gcc libc6-dev ;;
	nft) echo nftables ;;
	iptables-nft | iptables-legacy) echo iptables ;;
	ip | ss) echo iproute2 ;;
	unshare | nsenter | setpriv) echo util-linux ;;
	ping) echo iputils-ping ;;
	sysctl | pkill | pgrep) echo procps ;;
	python3) echo python3-minimal ;;
	systemd-analyze) echo systemd ;;
	systemd-nspawn) echo systemd-container ;;
	qemu-*) echo qemu-user ;;
	*) echo "$1" ;;
	esac
}

missing=
for name; do
	if [ "$name" = go ]; then
		check_go
	elif ! have "$name"; then
		missing="$missing $(package_of "$name")"
	fi
done
[ -n "$missing" ] || exit 0

as_root=
[ "$(id -u)" -eq 0 ] || as_root=sudo
if ! command -v apt-get >/dev/null 2>&1; then
	say "missing here; install what your system calls:$missing"
	exit 1
fi
install="apt-get install -y --no-install-recommends$missing"
if [ -n "$as_root" ] && ! command -v sudo >/dev/null 2>&1; then
	say "missing here; run as root: apt-get update && $install"
	exit 1
fi
# Without a terminal nobody can type sudo's password: it must do without, or fail at once.
[ -z "$as_root" ] || [ -t 0 ] || as_root='sudo -n'

say "installing:$missing"
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086 # both are lists of words
if ! { $as_root apt-get update -q && $as_root $install; } >&2; then
	say "that did not work; run as root: apt-get update && $install"
	exit 1
fi
