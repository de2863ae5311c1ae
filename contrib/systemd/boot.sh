#!/usr/bin/env bash
# Boots systemd in a container of its own (systemd-nspawn over a copy-on-write view of this machine) with what make install
# puts there, and looks at the service: is the guard up before the network, does a knock open a door with the user and the one
# capability that the unit gives, do reload, watchdog, stop and start do what is promised, on every packet filter. Needs root.
# Nothing of this machine is changed, and all of it goes when the script ends. Called by make installed.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
top=$(cd "$here/../.." && pwd)
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export PATH

if [ "${1-}" != inside ]; then
	"$top/contrib/setup.sh" ip nft iptables-nft busybox pgrep systemd-nspawn unshare
	if [ "$(id -u)" -ne 0 ]; then
		echo "boot: systemd-nspawn needs root: not tried" >&2
		[ "${CI-}" = true ] && exit 1
		exit 0
	fi
	work=$(mktemp -d "${TMPDIR:-/tmp}/spad-boot.XXXXXX")
	trap 'rm -rf "$work"' EXIT
	trap 'exit 130' INT TERM
	unshare --net --mount --pid --fork --kill-child --mount-proc "$0" inside "$work"
	exit
fi

work=$2
root=$work/root
export XDG_CONFIG_HOME=$work/laptop-home
say() { printf '%s\n' "$*"; }
fail() {
	say "FAILED: $*"
	tail -n 5 "$work/console" || true
	[ -z "${init-}" ] || there sh -c "journalctl --sync; systemctl status spad --no-pager; journalctl --no-pager --unit spad --lines 20" || true
	exit 1
}
# there COMMAND...: in the container.
there() { nsenter --target "$init" --all -- "$@"; }
# on PID COMMAND...: in the network of a process.
on() { nsenter --target "$1" --net -- "${@:2}"; }
property() { there systemctl show spad --property "$1" --value; }
# until_true WHAT COMMAND...: within half a minute.
until_true() {
	local tries
	for ((tries = 0; tries < 300; tries++)); do
		! "${@:2}" >/dev/null 2>&1 || return 0
		sleep 0.1
	done
	fail "never came true: $1"
}

# container makes the root of the container, with an address on veth port0 and a configuration.
container() {
	mount --make-rprivate /
	mount -t tmpfs tmpfs "$work"
	mkdir "$root" "$work/upper" "$work/work"
	mount -t overlay overlay -o "lowerdir=/,upperdir=$work/upper,workdir=$work/work" "$root"
	: >"$root/etc/machine-id"
	make -s -C "$top" install DESTDIR="$root" PREFIX=/usr >/dev/null
	# As root before the user is made: its files must be found and become the user's.
	rm -rf "$root/etc/spad" "$root/var/lib/spad"
	chroot "$root" /usr/sbin/spad init --hostname 203.0.113.1 >/dev/null
	cat >>"$root/etc/spad/spad.toml" <<-'END'

		[service.nas]
		forward = { port = "tcp/7890", to = "192.168.1.50:80" }

		[exec.note]
		command = ["/usr/bin/tee", "-a", "/var/lib/spad/events"]
		events = ["opened"]
	END
	# What is in the firewall when the network may begin is written down then.
	cat >"$root/etc/systemd/system/network-begins.service" <<-'END'
		[Unit]
		DefaultDependencies=no
		After=network-pre.target
		[Service]
		Type=oneshot
		ExecStart=/bin/sh -c '/usr/sbin/nft list tables >/run/network-begins'
		[Install]
		WantedBy=sysinit.target
	END
	chroot "$root" systemctl enable spad network-begins >/dev/null 2>&1
	mkdir "$root/etc/systemd/system/spad.service.d"
}

# boot starts systemd, as far as sysinit.target, and waits for it; then it makes the laptop and the wire to it.
boot() {
	systemd-nspawn --directory "$root" --boot --private-network --register=no --keep-unit --machine=spad-boot \
		--resolv-conf=off --timezone=off systemd.unit=sysinit.target </dev/null >"$work/console" 2>&1 &
	local tries
	for ((tries = 0; tries < 100; tries++)); do
		init=$(pgrep --exact systemd | head -n 1) && break
		sleep 0.1
	done
	[ -n "${init-}" ] || fail "systemd does not start"
	until_true "systemd has booted" there systemctl is-active --quiet sysinit.target
	unshare --net sleep infinity &
	laptop=$!
	until_true "the laptop has a network of its own" apart
	ip link add port0 netns "$init" type veth peer name port0 netns "$laptop"
	on "$init" ip addr add 203.0.113.1/24 dev port0
	on "$laptop" ip addr add 203.0.113.10/24 dev port0
	on "$laptop" ip addr add 203.0.113.66/32 dev port0 # the stranger's
	on "$init" ip link set port0 up
	on "$laptop" ip link set port0 up
	on "$init" busybox nc -ll -p 22 -e echo open >/dev/null &
	until_true "the wire is there" on "$laptop" busybox ping -c 1 -W 1 203.0.113.1
}
apart() { [ "$(readlink "/proc/$laptop/ns/net")" != "$(readlink /proc/self/ns/net)" ]; }

# from ADDRESS: what tcp/22 of the container says to one.
from() {
	on "$laptop" ip route replace 203.0.113.0/24 dev port0 src "$1"
	on "$laptop" busybox nc -w 1 203.0.113.1 22 </dev/null 2>/dev/null || true
	on "$laptop" ip route replace 203.0.113.0/24 dev port0 src 203.0.113.10
}
is_open() { [ "$(from 203.0.113.10)" = open ]; }
shut_to_stranger() { [ -z "$(from 203.0.113.66)" ] || fail "the stranger reaches tcp/22: $*"; }
knock() { on "$laptop" "$root/usr/bin/knock" "$@" 2>&1; }

# as_unit_says checks the process that runs: its user, its one capability or two, that it can get no more, and where it can write.
as_unit_says() {
	local status user want=$1 main folder
	main=$(pgrep --exact spad)
	status=$(cat "/proc/$main/status")
	user=$(there id -u spad)
	grep -q "^Uid:	$user	$user	$user	$user\$" <<<"$status" || fail "it does not run as user spad ($user): $(grep ^Uid <<<"$status")"
	grep -q "^NoNewPrivs:	1\$" <<<"$status" || fail "it may gain privileges"
	grep -q "^Seccomp:	2\$" <<<"$status" || fail "it may make every system call"
	local set
	for set in CapPrm CapEff CapBnd CapAmb; do
		grep -q "^$set:	$want\$" <<<"$status" || fail "it has other capabilities than $want: $(grep ^Cap <<<"$status")"
	done
	# Read-only there even for root.
	for folder in /etc/spad /usr/sbin /run /var/log; do
		! nsenter --target "$main" --mount -- touch "$folder/probe" 2>/dev/null || fail "it can write to $folder"
	done
	nsenter --target "$main" --mount -- touch /var/lib/spad/probe || fail "the trial to write proves nothing"
	nsenter --target "$main" --mount -- rm /var/lib/spad/probe
}

# use FIREWALL-LINES: the service with another packet filter.
use() {
	sed -i '/^firewall = /d; /^iptables = /d' "$root/etc/spad/spad.toml"
	sed -i "1i $1" "$root/etc/spad/spad.toml" # as root, who leaves the file root's
	chown 0:0 "$root/etc/spad/spad.toml"
	there systemctl daemon-reload
	there systemctl restart spad || fail "it does not start with $1"
}

restarted() { [ "$(property ActiveState)" = active ] && [ "$(property NRestarts)" -gt "$before" ]; }

works() {
	shut_to_stranger "before the knock"
	knock ssh -4 >"$work/said" || fail "knock: $(cat "$work/said")"
	is_open || fail "the door is not open"
	shut_to_stranger "after the knock"
	there spad sessions | grep -q 203.0.113.10 || fail "spad sessions does not show the door"
}

container
boot
say "systemd has booted"
[ "$(property ActiveState)" = active ] || fail "the service is not active"
[ "$(property StatusText)" = "answering knocks, doors open: 0" ] || fail "its status is: $(property StatusText)"
grep -q 'inet spad' "$root/run/network-begins" 2>/dev/null || there grep -q 'inet spad' /run/network-begins ||
	fail "the guard is not up when the network begins"
[ "$(there stat -c '%U %a' /etc/spad/router.key /etc/spad/spad.toml /var/lib/spad | sort -u)" = "$(printf 'spad 600\nspad 700')" ] ||
	fail "the files are not the user's: $(there ls -l /etc/spad /var/lib/spad)"
say "  the guard was up before the network, the files are the user's"

as_unit_says 0000000000001000 # CAP_NET_ADMIN
line=$(there spad invite laptop --allow ssh,nas --no-qr)
knock enroll "$line" >/dev/null
works
say "  nftables: a knock opens a door, with CAP_NET_ADMIN alone"
until_true "a program is run for events" there grep '"kind":"opened","device":"laptop"' /var/lib/spad/events
until_true "the journal has fields" there sh -c \
	'journalctl --sync; journalctl --quiet --no-pager --unit spad SPAD_KIND=opened SPAD_DEVICE=laptop | grep "opened device=laptop service=ssh"'
say "  the door is in the journal, with fields, and a program was run for it"

there systemctl reload spad || fail "reload"
echo 'nonsense = 1' >>"$root/etc/spad/spad.toml"
! there systemctl reload spad 2>/dev/null || fail "a reload of a bad configuration succeeds"
until_true "the status says that the old configuration is kept" there sh -c 'systemctl show spad --property StatusText | grep "old configuration is kept"'
! there systemctl restart spad 2>/dev/null || fail "a start with a bad configuration succeeds"
shut_to_stranger "the service can't start"
sed -i '/^nonsense/d' "$root/etc/spad/spad.toml"
until_true "it starts by itself when the configuration is mended" there systemctl is-active --quiet spad
is_open || fail "the door did not outlive all this"
say "  a bad configuration is refused by reload, and keeps the guard at a start"

there systemctl stop spad
shut_to_stranger "the service is stopped"
is_open || fail "stopping has shut the door"
printf '[Service]\nWatchdogSec=1s\n' >"$root/etc/systemd/system/spad.service.d/watchdog.conf"
there systemctl daemon-reload
there systemctl start spad
main=$(pgrep --exact spad)
before=$(property NRestarts)
kill -STOP "$main"
until_true "the watchdog has killed what hung" sh -c "! kill -0 $main"
shut_to_stranger "the watchdog has struck"
is_open || fail "the watchdog's stroke has shut the door"
until_true "it is started again" restarted
rm "$root/etc/systemd/system/spad.service.d/watchdog.conf"
say "  stop and the watchdog leave guard and doors; what hung was started again"

cp "$root/usr/share/doc/spad/iptables.conf" "$root/etc/systemd/system/spad.service.d/"
for variant in nft legacy; do
	command -v "iptables-$variant" >/dev/null || continue
	use "firewall = \"iptables\"\niptables = \"$variant\""
	as_unit_says 0000000000003000 # and CAP_NET_RAW
	works
	say "  iptables, $variant, with iptables.conf: the same"
done

there systemctl stop spad
there spad invite phone --allow ssh --no-qr >/dev/null
[ "$(there find /var/lib/spad /etc/spad ! -user spad)" = "" ] || fail "root's commands leave files of root's: $(there ls -l /var/lib/spad)"
there spad down >/dev/null
[ "$(from 203.0.113.66)" = open ] || fail "spad down leaves a guard"
say "  root's commands leave nothing that the user can't read; spad down takes all away"
