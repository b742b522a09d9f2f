# shellcheck shell=ash
# What the OpenWrt init script uses of its system, for scripts/package-test, which runs it with
# BusyBox ash. procd's calls are printed. The config_* functions read a UCI file, which is written as
# calls of `config`, `option` and `list`, just as OpenWrt's own do.
# shellcheck disable=SC2034,SC3043

sections=
section=

config() {
	section=${2:-anonymous$(($(echo "$sections" | wc -w) + 1))}
	sections="$sections $section"
	eval "type_$section=\$1"
}
option() { eval "option_${section}_$1=\$2"; }
list() {
	local count
	eval "count=\$((\${count_${section}_$1:-0} + 1))"
	eval "count_${section}_$1=$count item_${section}_$1_$count=\$2"
}
# shellcheck disable=SC1090
config_load() { . "$UCI_FILE"; }
config_get() { eval "$1=\${option_$2_$3:-\${4:-}}"; }
config_get_bool() {
	config_get "$@"
	eval "case \$$1 in 1 | on | true | yes | enabled) $1=1 ;; *) $1=0 ;; esac"
}
config_foreach() {
	local each kind
	for each in $sections; do
		eval "kind=\$type_$each"
		[ "$kind" != "$2" ] || "$1" "$each"
	done
}
config_list_foreach() {
	local count value at=1
	eval "count=\${count_$1_$2:-0}"
	while [ "$at" -le "$count" ]; do
		eval "value=\$item_$1_$2_$at"
		"$3" "$value"
		at=$((at + 1))
	done
}

procd_open_instance() { echo open; }
procd_set_param() { echo "set $*"; }
procd_close_instance() { echo close; }
procd_add_reload_trigger() { echo "trigger $*"; }
procd_running() { [ -n "${RUNNING:-}" ]; }
procd_send_signal() { echo "signal $*"; }
restart() { echo restart; }
stop() { echo stop; }
start() { echo start; }
# None of the machine below.
pidof() { return 1; }
logger() {
	if [ "$5" = -f ]; then cat "$6"; else shift 4 && echo "$*"; fi >>"$LOG_FILE"
}
