# OpenWrt's procd.sh and procd itself, as far as spad's init script uses them, written anew for its test. What procd would get is
# written to /tmp/procd.json, as one line; then it is done: an instance that is new or has changed is started, one that is gone
# is ended, and one that is as it was goes on.

# add TEXT puts TEXT behind what is there, with a comma where one belongs.
add() {
	case $JSON in *[{[]) ;; *) JSON=$JSON, ;; esac
	JSON=$JSON$1
}
# strings VALUE...: as JSON strings; none here holds a quote.
strings() {
	local all=
	for value; do all="$all${all:+,}\"$value\""; done
	printf %s "$all"
}

procd_open_service() {
	JSON="{\"name\":\"$1\",\"script\":\"$2\",\"instances\":{"
	INSTANCE='' COMMAND='' ACCOUNT='' CAPABILITY_FILE=''
}
procd_open_instance() {
	add "\"instance1\":{"
	INSTANCE=1
}
procd_set_param() {
	local type=$1
	shift
	case $type in
	command | respawn) add "\"$type\":[$(strings "$@")]" ;;
	limits) add "\"limits\":{\"${1%%=*}\":\"${1#*=}\"}" ;;
	term_timeout) add "\"$type\":$1" ;;
	stdout | stderr | no_new_privs) add "\"$type\":true" ;;
	user | group | capabilities) add "\"$type\":\"$1\"" ;;
	*) echo "procd_set_param does not know $type" >&2 && exit 1 ;;
	esac
	case $type in
	command) COMMAND=$* ;;
	user) ACCOUNT=$1 ;;
	capabilities) CAPABILITY_FILE=$1 ;;
	esac
}
procd_add_jail() { add "\"jail\":{\"name\":\"$1\",\"mount\":{}}"; }
procd_close_instance() { JSON="$JSON}"; }

procd_add_reload_trigger() { add "[\"config.change\",[\"if\",[\"eq\",\"package\",\"$1\"],[\"run_script\",\"$initscript\",\"reload\"]],1000]"; }
procd_add_reload_interface_trigger() {
	add "[\"interface.*\",[\"if\",[\"eq\",\"interface\",\"$1\"],[\"run_script\",\"$initscript\",\"reload\"]],1000]"
}

procd_close_service() {
	JSON="$JSON},\"triggers\":["
	service_triggers
	JSON="$JSON]}"
	local before
	before=$(cat /tmp/procd.json 2>/dev/null)
	printf '%s\n' "$JSON" >/tmp/procd.json
	if [ -z "$INSTANCE" ]; then
		end
	elif [ "${before%%\"triggers\"*}" != "${JSON%%\"triggers\"*}" ] || ! running; then
		end
		begin
	fi
}
procd_kill() { end && rm -f /tmp/procd.json; }

running() { [ -s /tmp/procd.pid ] && kill -0 "$(cat /tmp/procd.pid)" 2>/dev/null; }

# begin starts the command as ujail would: the user, the capabilities of the file, no more of them.
begin() {
	local capabilities
	if [ -n "$ACCOUNT" ]; then
		capabilities=-all$(sed -n 's/.*"bounding": \[ \(.*\) \].*/\1/p' "$CAPABILITY_FILE" | tr -d '" ' | tr A-Z a-z | sed 's/\(^\|,\)cap_/,+/g')
		COMMAND="setpriv --reuid $ACCOUNT --regid $ACCOUNT --clear-groups --no-new-privs --inh-caps $capabilities --ambient-caps $capabilities --bounding-set $capabilities $COMMAND"
	fi
	# shellcheck disable=SC2086 # a list of words
	$COMMAND >>/tmp/log 2>&1 </dev/null &
	echo $! >/tmp/procd.pid
}
end() {
	running || return 0
	kill "$(cat /tmp/procd.pid)"
	while running; do sleep 0.1; done
}
