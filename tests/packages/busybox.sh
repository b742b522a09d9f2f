# shellcheck shell=ash
# What an administrator does on a board with BusyBox init, run there by its rcS with the number of the
# start; scripts/machine reads what it prints. /old and /new are what scripts/install brings.
# shellcheck disable=SC3043

S=/etc/init.d/S80moonlet

result() { echo "MOONLET-RESULT $*"; }

# try WHAT COMMAND...: a line for the host.
try() {
	local what=$1
	shift
	if "$@" >/tmp/try 2>&1; then
		result "ok $what"
	else
		cat /tmp/try
		tail -n 5 /tmp/log
		result "fail $what"
	fi
}

# await COMMAND...: within two minutes.
await() {
	local left=600
	until "$@"; do
		left=$((left - 1))
		[ "$left" -gt 0 ] || return 1
		usleep 200000
	done
}

fetch() { wget -q -O "$2" "http://127.0.0.1:8586/$1" 2>/dev/null; }
healthy() { fetch healthz /tmp/healthz; }
metric() { fetch metrics /tmp/metrics && awk -v name="$1" '$1 == name { print $2 }' /tmp/metrics; }
holds() { [ "$(metric moonlet_images_held)" = 1 ]; }
satellite() { pidof moonlet; }
gone() { ! satellite && ! $S status; }
came_back() { healthy && [ "$(satellite)" != "$before" ]; }

# runs VERSION: that program is installed and the one that runs, as its user, and nothing was lost.
runs() {
	await healthy && await holds && cmp "/$1/moonlet" /usr/bin/moonlet &&
		cmp "/$1/moonlet" "/proc/$(satellite)/exe" &&
		[ "$(stat -c %U "/proc/$(satellite)")" = moonlet ] && cmp /test/settings /etc/moonlet/moonlet.toml
}

fetched_nothing() { [ "$(metric moonlet_fetch_body_bytes_total)" = 0 ]; }
stopped() { $S stop && gone; }
started() { $S start && await healthy && $S status; }
reloaded() {
	before=$(satellite)
	$S reload && await grep -q 'reloaded, 1 images' /tmp/log && [ "$(satellite)" = "$before" ]
}
killed() {
	before=$(satellite)
	kill -KILL "$before" && await came_back
}
installed() { sh "/$1/moonlet.install" && runs "$1" && fetched_nothing; }
# A program that does not run here.
refused() {
	mkdir -p /broken
	cp /new/moonlet.* /broken/ && echo 'no program' >/broken/moonlet
	before=$(satellite)
	! sh /broken/moonlet.install && [ "$(satellite)" = "$before" ] && runs new
}
removed() {
	sh /new/moonlet.install remove && ! pidof moonlet && [ ! -e /usr/bin/moonlet ] && [ ! -e $S ] &&
		[ -s /var/lib/moonlet/log ] && cmp /test/settings /etc/moonlet/moonlet.toml
}
purged() {
	sh /new/moonlet.install && await healthy && sh /new/moonlet.install purge && ! pidof moonlet &&
		[ ! -e /etc/moonlet ] && [ ! -e /var/lib/moonlet/log ] && ! grep moonlet /etc/passwd /etc/group
}

case "$1" in
1)
	try "installed into the initramfs, started by rcS as its user, an image is held" runs old
	try "stop, and status says so" stopped
	try "start" started
	try "reload" reloaded
	try "back after a kill" killed
	try "upgraded: image and configuration are kept, nothing is fetched" installed new
	try "a program that does not run here is refused, the service goes on" refused
	try "downgraded" installed old
	;;
2)
	try "switched off and on: the image is held" runs old
	try "nothing is fetched again" fetched_nothing
	try "removed: store and configuration stay" removed
	try "purged: nothing stays" purged
	;;
esac
result "done 0"
