# OpenWrt's functions for UCI, as far as spad's init script uses them, written anew for its test: no more than one section of
# lines "option NAME 'VALUE'".

config_load() { CONFIG_FILE=/etc/config/$1; }
config_get() {
	local value
	value=$(sed -n "s/^[[:space:]]*option $3 '\(.*\)'\$/\1/p" "$CONFIG_FILE" 2>/dev/null)
	eval "$1=\${value:-\$4}"
}
config_get_bool() {
	config_get "$@"
	eval "case \$$1 in 1 | on | true | yes | enabled) $1=1 ;; *) $1=0 ;; esac"
}
