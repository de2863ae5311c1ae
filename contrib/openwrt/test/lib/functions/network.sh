# OpenWrt's functions for interfaces, as far as spad's init script uses them: the address of wan is in /tmp/wan.

network_flush_cache() { :; }
network_get_ipaddr() { [ "$2" = wan ] && [ -s /tmp/wan ] && eval "$1=$(cat /tmp/wan)"; }
network_get_ipaddr6() { return 1; }
