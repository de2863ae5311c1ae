#!/usr/bin/env bash
# Shows the main job on this machine's real firewall, in throw-away network namespaces:
#
#     laptop   203.0.113.10  ─┐                  ┌─ lan host 192.168.1.50, a web page
#     stranger 203.0.113.66  ─┴─ internet ─ router 203.0.113.1 (home.example), all ports shut
#
# It needs no root where user namespaces are allowed. Everything lives in namespaces of its own, also the processes, so
# that nothing is left however it ends, Ctrl-C included.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
top=$(cd "$here/../.." && pwd)
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export PATH

if [ "${1-}" != inside ]; then
	"$top/contrib/setup.sh" go ip nft nmap python3 busybox curl unshare
	make -s -C "$top" build
	work=$(mktemp -d "${TMPDIR:-/tmp}/spad-demo.XXXXXX")
	trap 'rm -rf "$work"' EXIT
	trap 'exit 130' INT TERM
	user=()
	[ "$(id -u)" -eq 0 ] || user=(--user --map-root-user)
	rc=0
	unshare "${user[@]}" --net --mount --pid --fork --kill-child --mount-proc "$0" inside "$work" || rc=$?
	if [ "$rc" -ne 0 ] && [ ! -e "$work/started" ]; then
		echo "demo: no namespaces can be made here: allow user namespaces (sysctl user.max_user_namespaces and" \
			"kernel.unprivileged_userns_clone or kernel.apparmor_restrict_unprivileged_userns), or run it as root" >&2
	fi
	exit "$rc"
fi

work=$2
touch "$work/started"
export XDG_CONFIG_HOME=$work/laptop-home
spad=(ip netns exec router "$top/bin/spad")
paths=(--config "$work/etc/spad.toml" --state "$work/state" --socket "$work/spad.sock")
knock=(ip netns exec laptop "$top/bin/knock")
url=http://home.example:7890/
began=$SECONDS

if [ -t 1 ]; then bold=$'\e[1m' dim=$'\e[2m' green=$'\e[32m' red=$'\e[31m' off=$'\e[0m'; else bold='' dim='' green='' red='' off=''; fi
title() { printf '\n%s%s%s\n' "$bold" "$*" "$off"; }
prompt() { printf '%s%-9s%s %s\n' "$dim" "$1" "$off" "\$ ${*:2}"; }
good() { printf '          %s✓ %s%s\n' "$green" "$*" "$off"; }
fail() { printf '          %s✗ %s%s\n' "$red" "$*" "$off"; tail -n 20 "$work/log" >&2; exit 1; }
indent() { sed 's/^/          /'; }
# page HOST: what the web page says to a host, or nothing.
page() { ip netns exec "$1" curl -s --max-time 1 "$url" || true; }

# network makes the four hosts and the wires between them.
network() {
	mount --make-rprivate /
	mount -t tmpfs tmpfs /run
	mkdir -p /run/netns
	printf '127.0.0.1 localhost\n203.0.113.1 home.example\n2001:db8::1 home.example\n' >"$work/hosts"
	mount --bind "$work/hosts" /etc/hosts
	local host
	for host in laptop stranger router lan internet; do
		ip netns add "$host"
		ip -n "$host" link set lo up
		ip netns exec "$host" sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0
	done
	ip -n internet link add br0 type bridge
	ip -n internet link set br0 up
	wire laptop 203.0.113.10/24 2001:db8::10/64
	wire stranger 203.0.113.66/24 2001:db8::66/64
	wire router 203.0.113.1/24 2001:db8::1/64
	ip link add lan netns router type veth peer name eth0 netns lan
	address router lan 192.168.1.1/24 fd00:1::1/64
	address lan eth0 192.168.1.50/24 fd00:1::50/64
	ip -n lan route add default via 192.168.1.1
	ip -n lan route add default via fd00:1::1
	ip netns exec router sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
}
wire() {
	ip link add eth0 netns "$1" type veth peer name "$1" netns internet
	ip -n internet link set "$1" master br0 up
	address "$1" eth0 "$2" "$3"
}
address() {
	ip -n "$1" addr add "$3" dev "$2"
	ip -n "$1" addr add "$4" dev "$2" nodad
	ip -n "$1" link set "$2" up
}

# firewall shuts the router as its owner would, spad's one line included: packets that carry its mark are let in.
firewall() {
	ip netns exec router nft -f - <<-NFT
		table inet firewall {
			chain input {
				type filter hook input priority 0; policy drop;
				ct state established,related accept
				iif lo accept
				meta l4proto icmpv6 accept
				meta mark & $1 != 0 accept comment "spad"
			}
			chain forward {
				type filter hook forward priority 0; policy drop;
				ct state established,related accept
				iifname "lan" accept
				meta mark & $1 != 0 accept comment "spad"
			}
		}
	NFT
}

start_spad() {
	"${spad[@]}" run "${paths[@]}" >>"$work/log" 2>&1 &
	daemon=$!
	for _ in $(seq 100); do
		"${spad[@]}" status "${paths[@]}" >/dev/null 2>&1 && return
		sleep 0.05
	done
	fail "spad did not start"
}

# wait_shut counts down until the page no longer comes, at most $1 seconds.
wait_shut() {
	local left
	for ((left = $1; left >= 0; left--)); do
		[ -t 1 ] && printf '\r          %2d s ' "$left"
		sleep 1
	done
	[ -t 1 ] && printf '\r'
	[ -z "$(page laptop)" ] || fail "the door is still open"
}

# record writes the payload of the first IPv4 datagram to a UDP port, as somebody on the line sees it. (tcpdump can't:
# without root it may not drop the groups that it insists on dropping.)
record=$(cat <<-'PYTHON'
	import socket, sys
	port, ready, out = sys.argv[1:]
	line = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
	line.bind(("eth0", 0x0800))
	open(ready, "w").close()
	while True:
	    packet = line.recv(65535)
	    udp = packet[(packet[0] & 15) * 4:]
	    if packet[9] == 17 and int.from_bytes(udp[2:4], "big") == int(port):
	        open(out, "wb").write(udp[8:])
	        break
PYTHON
)

network
mkdir -p "$work/www"
echo "the page of the LAN host" >"$work/www/index.html"
ip netns exec lan busybox httpd -f -p '[::]:80' -h "$work/www" &

title "A router whose ports are all shut"
prompt router "spad init --hostname home.example"
"${spad[@]}" init --dir "$work/etc" --hostname home.example >"$work/init" 2>&1 || { cat "$work/init"; exit 1; }
port=$(sed -n 's/^listen *= *"[^"]*:\([0-9]*\)".*/\1/p' "$work/etc/spad.toml")
cat >"$work/etc/spad.toml" <<-TOML
	listen   = ":$port"
	hostname = "home.example"

	[service.nas]
	forward = { port = "tcp/7890", to = ["192.168.1.50:80", "[fd00:1::50]:80"] }
	ttl     = "5s"
TOML
firewall 0x10000000
prompt router "spad run &"
start_spad
prompt stranger "nmap home.example"
ip netns exec stranger nmap -n -Pn -T4 --max-retries 0 --reason -p 22,80,443,7890 203.0.113.1 | sed -n '/^PORT/,/^$/p' | sed '/^$/d' | indent
[ -z "$(page laptop)" ] || fail "the door is open before the knock"
good "nothing there, for the laptop neither"

title "One line enrols the laptop; its private key never leaves it"
prompt router "spad invite laptop --allow nas"
invite=$("${spad[@]}" invite laptop --allow nas --no-qr "${paths[@]}" 2>>"$work/log")
echo "${invite:0:60}…" | indent
prompt laptop "knock enroll knock1:…"
"${knock[@]}" enroll "$invite" --name home 2>&1 | indent

title "A knock opens one door, for one address, for five seconds"
ip netns exec router python3 -c "$record" "$port" "$work/recording" "$work/knock.bin" 2>>"$work/log" &
recorder=$!
for _ in $(seq 40); do [ -e "$work/recording" ] && break; sleep 0.05; done
prompt laptop "knock nas"
"${knock[@]}" nas 2>&1 | indent || fail "the knock failed"
prompt laptop "curl $url"
[ "$(page laptop)" = "the page of the LAN host" ] || fail "the page does not come"
good "the page of the LAN host"
prompt stranger "curl $url"
[ -z "$(page stranger)" ] || fail "the stranger sees the page"
good "still nothing there"
wait_shut 5
good "shut again"

title "The stranger recorded the knock and sends it again"
wait "$recorder" || true
[ -s "$work/knock.bin" ] || fail "the knock was not recorded"
prompt stranger "cat knock.bin > /dev/udp/203.0.113.1/$port"
ip netns exec stranger bash -c "cat '$work/knock.bin' >/dev/udp/203.0.113.1/$port"
sleep 0.3
[ -z "$(page stranger)$(page laptop)" ] || fail "the replay opened the door"
prompt router "spad status --json"
"${spad[@]}" status --json "${paths[@]}" | tr ',' '\n' | grep -o '"refused: re[a-z]*": *[1-9]' | indent || fail "the replay was not counted"
good "refused: a packet opens once, ever"

title "The daemon dies; the kernel shuts the door all the same"
prompt laptop "knock nas"
"${knock[@]}" nas 2>&1 | indent || fail "the knock failed"
prompt router "kill -9 spad"
{ pkill -KILL -x spad; wait "$daemon"; } 2>/dev/null || true
sleep 0.2
[ "$(page laptop)" = "the page of the LAN host" ] || fail "the door went with the daemon"
good "the page still comes, for its five seconds"
wait_shut 5
good "shut on time, and hidden as before, with no daemon there"

prompt router "spad down"
"${spad[@]}" down "${paths[@]}" 2>&1 | indent
[ -z "$(ip netns exec router nft list tables | grep spad || true)" ] || fail "spad left something in the firewall"
printf '\n%sAll of it on a real firewall, in %d seconds. Nothing is left of it on this machine.%s\n' "$bold" $((SECONDS - began)) "$off"
