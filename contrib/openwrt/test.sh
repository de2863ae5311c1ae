#!/usr/bin/env bash
# Runs OpenWrt's init script with busybox's ash in a small root of its own, with the real spad on a real kernel firewall. What is
# OpenWrt's around it (rc.common, the functions for UCI, procd) is written anew in test/, as small as it can be. Needs root, for
# the user and the capabilities that procd gives; all is in namespaces of its own. Called by make installed.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
top=$(cd "$here/../.." && pwd)
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export PATH

if [ "${1-}" != inside ]; then
	"$top/contrib/setup.sh" nft busybox setpriv unshare
	if [ "$(id -u)" -ne 0 ]; then
		echo "openwrt: chroot and users need root: not tried" >&2
		[ "${CI-}" = true ] && exit 1
		exit 0
	fi
	make -s -C "$top" build
	work=$(mktemp -d "${TMPDIR:-/tmp}/spad-openwrt.XXXXXX")
	trap 'rm -rf "$work"' EXIT
	trap 'exit 130' INT TERM
	unshare --net --mount --pid --fork --kill-child --mount-proc "$0" inside "$work"
	exit
fi

work=$2
root=$work/root
log=$root/tmp/log
say() { printf '%s\n' "$*"; }
fail() {
	say "FAILED: $*"
	cat "$log" 2>/dev/null || true
	exit 1
}

# packages has the package Makefile install into FOLDER/spad and FOLDER/knock; what it includes of the build system is below.
packages() {
	mkdir -p "$1"/{include,feeds/packages/lang/golang,programs}
	cat >"$1/rules.mk" <<-'END'
		INSTALL_DIR := install -d -m0755
		INSTALL_BIN := install -m0755
		INSTALL_DATA := install -m0644
		INSTALL_CONF := install -m0600
		CP := cp -a
		INCLUDE_DIR := $(TOPDIR)/include
	END
	cat >"$1/include/package.mk" <<-'END'
		define BuildPackage
		all: $(1)
		$(1): ; $$(call Package/$(1)/install,$$(TOPDIR)/$(1))
		endef
	END
	cat >"$1/feeds/packages/lang/golang/golang-package.mk" <<-'END'
		GO_PKG_BUILD_BIN_DIR := $(TOPDIR)/programs
		print: ; @echo $(GO_PKG_BUILD_PKG)
	END
	local program
	for program in $(make -s -C "$here" TOPDIR="$1" print); do
		cp "$top/bin/${program#spad/}" "$1/programs/"
	done
	make -s -C "$here" TOPDIR="$1" all
}

# system makes the root: busybox, the files of the package, what stands for OpenWrt, and setpriv, which stands for ujail.
system() {
	mount --make-rprivate /
	mount -t tmpfs -o mode=755 tmpfs "$work"
	mkdir "$root"
	mkdir -p "$root"/{bin,sbin,dev,proc,tmp,usr/sbin,etc/rc.d}
	ln -s tmp "$root/var" # a RAM disk, as there
	mkdir "$root/tmp/run"
	mount -t proc proc "$root/proc"
	local file
	for file in null random urandom; do
		: >"$root/dev/$file"
		mount --bind "/dev/$file" "$root/dev/$file"
	done
	for file in "$(command -v busybox)" "$(command -v setpriv)"; do
		cp "$file" "$root/bin/"
		ldd "$file" | sed -n 's|.* \(/[^ ]*\) (.*|\1|p; s|^\t\(/[^ ]*\) (.*|\1|p'
	done | sort -u | while read -r file; do
		mkdir -p "$root${file%/*}"
		cp "$file" "$root$file"
	done
	mv "$root/bin/setpriv" "$root/sbin/"
	local applet
	for applet in awk basename cat chmod chown cut grep head id kill ln logger ls mkdir rm sed sh sleep sort tail touch tr uniq; do
		ln -s busybox "$root/bin/$applet"
	done
	packages "$work/packages"
	cp -r "$work/packages/spad/." "$root/"
	cp -r "$here/test/." "$root/"
	chmod 755 "$root/etc/rc.common"
	: >"$root/etc/openwrt_release"
	printf 'root:x:0:0::/root:/bin/sh\nspad:x:376:376::/:/bin/false\n' >"$root/etc/passwd"
	printf 'root:x:0:\nspad:x:376:\n' >"$root/etc/group"
}
within() { env -i PATH=/usr/sbin:/sbin:/bin chroot "$root" "$@"; }
# service ACTION runs the script by its first line, as OpenWrt does; what it says is in $said.
service() {
	local code=0
	said=$(within /etc/init.d/spad "$1" 2>&1) || code=$?
	return "$code"
}
says() { [[ $said == *"$1"* ]] || fail "it does not say '$1' but: $said"; }
uci() { sed -i "s/option $1 .*/option $1 '$2'/" "$root/etc/config/spad"; }
pid() { cat "$root/tmp/procd.pid"; }
running() { kill -0 "$(pid 2>/dev/null || echo none)" 2>/dev/null; }
rules() { nft list table inet spad 2>/dev/null || true; }
guarded() { [[ $(rules) == *tcp* ]]; }
# procd_got JSON compares what procd was told.
procd_got() { diff <(echo "$1") "$root/tmp/procd.json" >&2 || fail "procd gets something else (>) than it should (<)"; }
owners() { find "$root/etc/spad" -printf '%U\n' | sort -u | xargs; }

command='"command":["/usr/sbin/spad","run"],"respawn":["3600","5","0"],"stdout":true,"stderr":true,"limits":{"core":"0"},"term_timeout":30'
jail='"jail":{"name":"spad","mount":{}},"capabilities":"/etc/capabilities/spad.json","user":"spad","group":"spad","no_new_privs":true'
begin='{"name":"spad","script":"/etc/init.d/spad","instances":{'
changed='["config.change",["if",["eq","package","spad"],["run_script","/etc/init.d/spad","reload"]],1000]'
# of INTERFACE: the trigger on it.
of() { echo '["interface.*",["if",["eq","interface","'"$1"'"],["run_script","/etc/init.d/spad","reload"]],1000]'; }

system
diff - <(cd "$work/packages" && find spad knock -type f -printf '%m %p\n' | sort -k 2) <<-'END' || fail "the packages have other files (>) than they should (<)"
	755 knock/usr/bin/knock
	644 spad/etc/capabilities/spad.json
	600 spad/etc/config/spad
	755 spad/etc/init.d/spad
	644 spad/lib/upgrade/keep.d/spad
	755 spad/usr/sbin/spad
	644 spad/usr/share/nftables.d/chain-pre/forward/spad.nft
	644 spad/usr/share/nftables.d/chain-pre/input/spad.nft
END

# As it comes, and without a configuration: nothing is started, and what is missing is said.
service start || fail "start fails though nothing is asked for: $said"
says "not enabled; do that with: uci set spad.main.enabled=1"
procd_got "$begin},\"triggers\":[$changed]}"
uci enabled 1
service start || true
says "there is no /etc/spad/spad.toml; make one with: spad init"
procd_got "$begin},\"triggers\":[$changed,$(of wan)]}"
! guarded || fail "a guard without a configuration"
within spad init >/dev/null
say "not enabled, or not configured: nothing starts, and the script says what to do"

# Without ujail: root. The guard is up when start has returned.
service start || fail "start: $said"
guarded || fail "start returns before the guard is up"
procd_got "$begin\"instance1\":{$command}},\"triggers\":[$changed,$(of wan)]}"
[ "$(owners)" = 0 ] || fail "files of others than root: $(owners)"
[ -e "$root/etc/spad/state/journal" ] || fail "the state is not in /etc/spad/state"
service stop || fail "stop: $said"
! running || fail "it runs on"
guarded || fail "stop takes the guard away"
say "without ujail: root; the guard is up when start returns, and stays when it stops"

# With it: a user, one capability.
touch "$root/sbin/ujail" && chmod 755 "$root/sbin/ujail"
service boot || fail "boot: $said"
procd_got "$begin\"instance1\":{$command,$jail}},\"triggers\":[$changed,$(of wan)]}"
running || fail "it does not run: $said"
status=$(cat "/proc/$(pid)/status")
for line in 'Uid:	376	376	376	376' 'CapEff:	0000000000001000' 'CapBnd:	0000000000001000' 'NoNewPrivs:	1'; do
	grep -q "^$line\$" <<<"$status" || fail "it runs with other rights than $line: $(grep -E '^(Uid|Cap|NoNew)' <<<"$status")"
done
[ "$(owners)" = 376 ] || fail "files of others than the user: $(owners)"
within spad status >/dev/null || fail "root can't ask for the status"
say "with ujail: user spad and CAP_NET_ADMIN alone"

# Reload: by UCI, by the interface, by hand.
before=$(pid)
[[ $(rules) != *2222* ]] || fail "2222 is guarded already"
sed -i 's|^open = .*|open = ["tcp/2222"]|' "$root/etc/spad/spad.toml"
chown 0:0 "$root/etc/spad/spad.toml" # as root's editor leaves it
echo 192.0.2.7 >"$root/tmp/wan"
service reload || fail "reload: $said"
[[ $(rules) == *2222* ]] || fail "reload takes nothing over"
says "invites need a hostname in /etc/spad/spad.toml; wan has the address 192.0.2.7"
[ "$(pid)" = "$before" ] || fail "reload has restarted it"
uci interface wan6
service reload || fail "reload: $said"
procd_got "$begin\"instance1\":{$command,$jail}},\"triggers\":[$changed,$(of wan6)]}"
sed -i '1i hostname = "home.example.net"' "$root/etc/spad/spad.toml"
service reload || fail "reload: $said"
[[ $said != *hostname* ]] || fail "the hint comes though there is a hostname"
sed -i '1i nonsense = 1' "$root/etc/spad/spad.toml"
! service reload || fail "a bad configuration is taken over"
says "nonsense"
{ [ "$(pid)" = "$before" ] && running; } || fail "a bad configuration has ended it"
sed -i 1d "$root/etc/spad/spad.toml"
say "reload: changes are taken over without a restart, bad ones refused with the reason"

# Ended and started by UCI alone; the order of the start.
uci enabled 0
service reload || fail "reload: $said"
! running || fail "disabled by UCI, it runs on"
guarded || fail "disabling takes the guard away"
uci enabled 1
service reload || fail "reload: $said"
running || fail "enabled by UCI, it does not start"
kill -KILL "$(pid)"
service start || fail "start after a crash: $said"
running || fail "it does not start after a crash"
service enable
touch "$root/etc/rc.d/S19firewall" "$root/etc/rc.d/S20network"
[ "$(cd "$root/etc/rc.d" && echo S*)" = "S18spad S19firewall S20network" ] || fail "the order of the start: $(ls "$root/etc/rc.d")"
service disable
[ ! -e "$root/etc/rc.d/S18spad" ] || fail "disable leaves its link"
grep -qx /etc/spad/ "$root/lib/upgrade/keep.d/spad" || fail "sysupgrade does not keep /etc/spad"
within spad down >/dev/null || fail "spad down"
! guarded || fail "spad down leaves the guard"
say "UCI, enable and disable, the list of sysupgrade, spad down: as they should be"
