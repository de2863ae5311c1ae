#!/usr/bin/env bash
# Checks what make install puts where, and what systemd says of it: the list of files with their modes, that nothing else
# is written, and that the unit's exposure is low. Called by make installed.
set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export PATH
"$top/contrib/setup.sh" systemd-analyze
work=$(mktemp -d "${TMPDIR:-/tmp}/spad-installed.XXXXXX")
trap 'rm -rf "$work"' EXIT
fail() { printf 'installed: %s\n' "$*" >&2; exit 1; }

# The highest exposure that systemd-analyze security may report, times ten.
threshold=20

# want PREFIX: every file of an installation.
want() {
	cat <<-END
		644 $1/lib/systemd/system/spad.service
		644 $1/lib/sysusers.d/spad.conf
		644 $1/lib/tmpfiles.d/spad.conf
		644 $1/share/doc/spad/CHANGELOG.md
		644 $1/share/doc/spad/EVENTS.md
		644 $1/share/doc/spad/LICENSE
		644 $1/share/doc/spad/PROTOCOL.md
		644 $1/share/doc/spad/README.md
		644 $1/share/doc/spad/SECURITY.md
		644 $1/share/doc/spad/events.schema.json
		644 $1/share/doc/spad/iptables.conf
		644 $1/share/doc/spad/reference.toml
		755 $1/bin/knock
		755 $1/sbin/spad
	END
}

umask 077 # what others may read must not hang on who installs
for prefix in /usr/local /usr; do
	root=$work/$(basename "$prefix")
	make -s -C "$top" install DESTDIR="$root" PREFIX="$prefix"
	diff -u <(want "$prefix" | sort) <(cd "$root" && find . -type f -printf '%m /%P\n' | sort) ||
		fail "make install PREFIX=$prefix puts other files there (+) than it should (-)"
	unit=$root$prefix/lib/systemd/system/spad.service
	! grep -n '@[A-Z]*@' "$unit" || fail "$unit: something was not filled in"
	grep -q "^ExecStart=$prefix/sbin/spad run\$" "$unit" || fail "$unit does not start what is installed"
	"$root$prefix/sbin/spad" --version >/dev/null
	"$root$prefix/bin/knock" --version >/dev/null
done

# With the addition for iptables-legacy the exposure counts too.
mkdir "$unit.d"
for addition in '' iptables.conf; do
	[ -z "$addition" ] || cp "$root$prefix/share/doc/spad/$addition" "$unit.d/"
	said=$(systemd-analyze security --offline=true --no-pager --threshold="$threshold" "$unit") ||
		fail "spad.service $addition is too exposed: $said"
	printf 'spad.service %s%s\n' "${addition:+with $addition }" "$(tail -n 1 <<<"$said" | sed -E 's/.*: ([0-9.]+) .*/has an exposure of \1/')"
done
rm -r "$unit.d"
# verify wants the programs to be where the unit says.
sed -i "s|=$prefix/sbin/|=$root$prefix/sbin/|" "$unit"
said=$(systemd-analyze verify --man=no --recursive-errors=no "$unit" 2>&1) || fail "systemd-analyze verify: $said"
[ -z "$said" ] || fail "systemd-analyze verify: $said"
