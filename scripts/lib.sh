# shellcheck shell=sh
# What the scripts share: messages, ports, images, registries and waiting.
# Sourced, never run: `. scripts/lib.sh` from the project's root.

# Programs of the system (nginx) live here on Debian, and are not on every user's path.
PATH="$PATH:/usr/sbin:/sbin"
export PATH

# shellcheck disable=SC2034  # read by the scripts that source this file
ARMV7=armv7-unknown-linux-musleabihf
# shellcheck disable=SC2034
AARCH64=aarch64-unknown-linux-musl
# shellcheck disable=SC2034
X86_64=x86_64-unknown-linux-musl

# Where scripts/cross keeps the compiler it installs.
TOOLS_DIR="${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/moonlet/tools"
export TOOLS_DIR

# --- messages -------------------------------------------------------------------------------

say() {
    printf '== %s\n' "$*" >&2
}

die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 2
}

# Prints the comment at the head of the running script, without its marks: its help.
usage() {
    sed -n '2,/^[^#]/ { /^#/ { s/^# \{0,1\}//; p; } }' "$0"
}

have() {
    command -v "$1" >/dev/null 2>&1
}

# --- packages -------------------------------------------------------------------------------

# Runs a command as root: as it is, or through sudo.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif have sudo; then
        sudo "$@"
    else
        die "needs root for: $* (run as root, or install sudo)"
    fi
}

# The time that what is built here carries: SOURCE_DATE_EPOCH, or that of the last commit.
source_date() {
    printf '%s\n' "${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y Cargo.toml)}"
}

need_rust() {
    # shellcheck disable=SC1091  # written by rustup
    have cargo || [ ! -r "${HOME:-/root}/.cargo/env" ] || . "${HOME:-/root}/.cargo/env"
    have cargo || die "cargo is not installed: see https://rustup.rs (Rust 1.95 or newer)"
    scripts/setup rust
}

# The features of Cargo.toml's default: what a device may be built without.
default_features() {
    sed -n 's/^default = \[\(.*\)\]$/\1/p' Cargo.toml | tr -d '",'
}

# board_show BOARD KEY: one value of a board, as Moonlet built for this machine resolves the files in
# boards/; nothing where it has none. KEY is a path of jq's, such as .budget.binary_bytes_max.
board_show() {
    scripts/setup json
    need_rust
    board_json=$(cargo run --quiet --locked --bin moonlet -- board show "$1" --json) || exit 2
    printf '%s\n' "$board_json" | jq --raw-output "$2 // empty"
}

# log_program OPTION...: builds the program of the blob log's figures (tests/bench) and prints its
# path. Options are those of `cargo bench`.
log_program() {
    cargo bench --locked --bench log --no-run --message-format=json "$@" |
        jq -r 'select(.target.name? == "log") | .executable | select(.)' | tail -n 1
}

# --- numbers --------------------------------------------------------------------------------

# The median of the numbers on stdin, one a line; the lower middle of an even count.
median() {
    sort -g | awk '{ value[NR] = $1 } END { if (NR) print value[int((NR + 1) / 2)] }'
}

# ratio A B: A / B with two digits.
ratio() {
    awk -v a="$1" -v b="$2" 'BEGIN { if (b > 0) printf "%.2f\n", a / b; else print "-" }'
}

# mebibytes BYTES
mebibytes() {
    awk -v bytes="$1" 'BEGIN { printf "%.2f MiB\n", bytes / 1048576 }'
}

# verdict VALUE lt|gt LIMIT: "ok", or "MISSED".
verdict() {
    awk -v value="$1" -v how="$2" -v limit="$3" 'BEGIN {
        good = (how == "lt") ? value + 0 <= limit + 0 : value + 0 >= limit + 0
        print (value == "" || value == "-" || !good) ? "MISSED" : "ok"
    }'
}

# Nanoseconds since 1970.
now() {
    date +%s%N
}

# --- processes ------------------------------------------------------------------------------

# Processes to end when the script ends, and directories to remove. The script sets
# `trap cleanup EXIT` and `trap 'exit 130' INT TERM`.
STARTED=
REMOVE=

started() {
    STARTED="$STARTED $1"
}

# signal PID SIGNAL: through sudo where the process is root's.
signal() {
    kill "-$2" "$1" 2>/dev/null || [ ! -d "/proc/$1" ] || as_root kill "-$2" "$1" || true
}

# stop PID [SIGNAL]: signals a process that this script started and waits for its end.
stop() {
    signal "$1" "${2:-TERM}"
    wait "$1" 2>/dev/null || true
}

cleanup() {
    for pid in $STARTED; do
        signal "$pid" TERM
    done
    for pid in $STARTED; do
        wait "$pid" 2>/dev/null || true
    done
    for disk in $DISKS; do
        umount "$disk" 2>/dev/null || true
        losetup --detach "$disk" 2>/dev/null || true
    done
    if [ -n "$disk_group" ]; then
        echo $$ >"${disk_group%/*}/cgroup.procs" || true
        rmdir "$disk_group" || true
    fi
    for dir in $REMOVE; do
        # podman and containerd run as root leave files of root.
        rm -rf "$dir" 2>/dev/null || as_root rm -rf "$dir"
    done
}

# Makes WORK, a directory that is removed at the end.
work_dir() {
    WORK=$(mktemp -d "${TMPDIR:-/tmp}/moonlet-$1.XXXXXX")
    REMOVE="$REMOVE $WORK"
}

# Sets PORT to a TCP port on which nothing listens. Not by command substitution: the next port
# has to be remembered.
PORT=$((20000 + $$ % 20000))
free_port() {
    while PORT=$((PORT + 1)) && grep -qs "$(printf ':%04X 0' "$PORT")" /proc/net/tcp /proc/net/tcp6; do
        :
    done
}

# wait_for SECONDS COMMAND ...: repeats the command until it succeeds.
wait_for() {
    tries=$(($1 * 10))
    shift
    until "$@" >/dev/null 2>&1; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || return 1
        sleep 0.1
    done
}

# The largest resident size that process $1 ever had, in KiB.
memory_peak() {
    sed -n 's/^VmHWM:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$1/status"
}

# The resident size of process $1 now, in KiB.
memory_now() {
    sed -n 's/^VmRSS:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$1/status"
}

# --- disks, for root ------------------------------------------------------------------------

DISKS=
disk_group=

# disk_new BYTES: a block device over a sparse file in WORK; sets DISK.
disk_new() {
    disk_file=$(mktemp "$WORK/disk.XXXXXX")
    truncate -s "$1" "$disk_file"
    # Without a page cache of its own, where the file's file system allows that.
    DISK=$(losetup --find --show --direct-io=on "$disk_file" 2>/dev/null) ||
        DISK=$(losetup --find --show "$disk_file")
    DISKS="$DISKS $DISK"
}

# disk_end DISK: releases one, with its file.
disk_end() {
    disk_file=$(losetup --noheadings --output BACK-FILE "$1")
    losetup --detach "$1"
    rm -f "$disk_file"
}

# disk_throttle DISK BYTES: holds what this process and its children read of a disk, and what they
# write past the page cache, to so many bytes a second, by the cgroups of version 1 or 2; false where
# that cannot be had.
disk_throttle() {
    disk_number=$(cat "/sys/block/${1#/dev/}/dev")
    if [ -d /sys/fs/cgroup/blkio ]; then
        disk_group=/sys/fs/cgroup/blkio/moonlet-$$
        mkdir "$disk_group" &&
            echo "$disk_number $2" >"$disk_group/blkio.throttle.read_bps_device" &&
            echo "$disk_number $2" >"$disk_group/blkio.throttle.write_bps_device" || return 1
    else
        disk_group=/sys/fs/cgroup/moonlet-$$
        mkdir "$disk_group" && echo +io >/sys/fs/cgroup/cgroup.subtree_control &&
            echo "$disk_number rbps=$2 wbps=$2" >"$disk_group/io.max" || return 1
    fi
    echo $$ >"$disk_group/cgroup.procs"
}

# can_format TYPE: whether the tools and the kernel know this file system.
can_format() {
    have "mkfs.$1" || return 1
    grep -qw "$1" /proc/filesystems || modprobe --quiet "$1" 2>/dev/null
}

# disk_format DISK TYPE [OPTION...]: makes a file system and mounts it on MOUNT. Nothing of it is
# left for the kernel to write later on.
disk_format() {
    format_disk=$1 format_type=$2
    shift 2
    case "$format_type" in
    ext4) mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 "$@" "$format_disk" ;;
    xfs) mkfs.xfs -q -f "$@" "$format_disk" ;;
    f2fs) mkfs.f2fs -q -f "$@" "$format_disk" ;;
    esac >&2
    MOUNT=$WORK/mount
    mkdir -p "$MOUNT"
    mount -t "$format_type" "$format_disk" "$MOUNT"
    sync -f "$MOUNT"
}

# Bytes that DISK $1 was given to write since the kernel knows it.
disk_written() {
    read -r _ _ _ _ _ _ sectors _ <"/sys/block/${1#/dev/}/stat"
    echo $((sectors * 512))
}

# --- a database ------------------------------------------------------------------------------

# postgres_start DIR: Debian's PostgreSQL on a loopback port, with its data in DIR and without a
# disk's patience: it is thrown away. Sets POSTGRES_URL, a server's URL without a database.
postgres_start() {
    set -- "$1" /usr/lib/postgresql/*/bin
    [ -x "$2/initdb" ] || die "no PostgreSQL under /usr/lib/postgresql"
    free_port
    mkdir -p "$1"
    postgres_as=
    if [ "$(id -u)" -eq 0 ]; then
        # PostgreSQL does not run as root.
        chown postgres "$1"
        chmod a+x "$WORK"
        postgres_as="setpriv --reuid=postgres --regid=postgres --clear-groups"
    fi
    # shellcheck disable=SC2086  # words
    (cd "$1" && $postgres_as "$2/initdb" --auth=trust --username=test --no-sync \
        --pgdata="$1/data" >"$WORK/initdb.log" 2>&1) || die "initdb: $(tail -n 3 "$WORK/initdb.log")"
    # shellcheck disable=SC2086
    (cd "$1" && exec $postgres_as "$2/postgres" -D "$1/data" -p "$PORT" -k "$1" -c fsync=off \
        -c listen_addresses=127.0.0.1 -c max_connections=300) >"$WORK/postgres.log" 2>&1 &
    started "$!"
    POSTGRES_URL=postgres://test@127.0.0.1:$PORT
    wait_for 30 psql "$POSTGRES_URL/postgres" -c 'SELECT 1' ||
        die "postgres: $(tail -n 3 "$WORK/postgres.log")"
}

# --- the registry that images come from ------------------------------------------------------

# registry_start DIR PORT [core]: Debian's docker-registry on loopback, its access log in
# DIR/registry.log; sets REGISTRY_PID. `core` ties it to that CPU and turns the access log off.
# REGISTRY_LISTEN is another address for it, REGISTRY_MORE more of its configuration, from within the
# section http.
registry_start() {
    mkdir -p "$1/registry"
    quiet=false
    [ -z "${3:-}" ] || quiet=true
    cat >"$1/registry.yml" <<END
version: 0.1
log:
  level: error
  accesslog:
    disabled: $quiet
storage:
  cache:
    blobdescriptor: inmemory
  filesystem:
    rootdirectory: $1/registry
http:
  addr: ${REGISTRY_LISTEN:-127.0.0.1}:$2
${REGISTRY_MORE:-}
END
    ${3:+taskset -c "$3"} docker-registry serve "$1/registry.yml" >>"$1/registry.log" 2>&1 &
    REGISTRY_PID=$!
    started "$REGISTRY_PID"
    # Any answer will do: some want credentials, or TLS.
    wait_for 20 curl -s "http://${REGISTRY_LISTEN:-127.0.0.1}:$2/v2/" || die "docker-registry: $(tail -n 3 "$1/registry.log")"
}

# Body bytes of blobs and manifests that docker-registry sent, by its access log $1.
registry_sent() {
    awk '/"GET \/v2\/[^"]*\/(blobs|manifests)\// {
        for (i = 1; i < NF; i++) if ($i ~ /^HTTP\//) { sum += $(i + 2); break }
    } END { printf "%d\n", sum }' "$1"
}

# --- images ---------------------------------------------------------------------------------

umoci_rootless() {
    if [ "$(id -u)" -eq 0 ]; then umoci "$@"; else umoci "$@" --rootless; fi
}

# image_new LAYOUT TAG ARCHITECTURE: an OCI image layout with an empty image.
image_new() {
    [ -d "$1" ] || umoci init --layout "$1"
    umoci new --image "$1:$2"
    umoci config --image "$1:$2" --os linux --architecture "$3" --config.cmd /bin/sh
}

# image_layer LAYOUT TAG DIRECTORY: adds the directory's files as a gzip tar layer.
image_layer() {
    umoci_rootless insert --image "$1:$2" "$3" / >/dev/null
}

# random_file FILE MEBIBYTES: bytes that no compression makes smaller.
random_file() {
    mkdir -p "${1%/*}"
    head -c "$(($2 * 1048576))" /dev/urandom >"$1"
}

# push LAYOUT TAG DESTINATION: copies an image into a registry on loopback.
push() {
    skopeo copy --quiet --dest-tls-verify=false "oci:$1:$2" "docker://$3"
}

# The digest a registry on loopback has under $1 (host:port/name:tag).
remote_digest() {
    skopeo inspect --raw --tls-verify=false "docker://$1" | sha256sum | cut -d ' ' -f 1
}

# verify_dir DIR: every blob of a `skopeo copy ... dir:` has the digest of its name.
verify_dir() {
    for blob in "$1"/*; do
        name=${blob##*/}
        case "$name" in
        manifest.json | version | signature-*) continue ;;
        esac
        [ "$(sha256sum <"$blob" | cut -d ' ' -f 1)" = "$name" ] || die "$blob has another digest"
    done
}

# --- Moonlet --------------------------------------------------------------------------------

# moonlet_config FILE DIR REGISTRY_PORT SERVE_PORT ADMIN_PORT IMAGE...: a configuration whose
# images come from the registry on loopback, which it calls registry.test. RATE and SIZE_MAX may
# be set by the caller.
moonlet_config() {
    cat >"$1" <<END
name = "moonlet-test"

[serve]
listen = ["127.0.0.1:$4"]

[admin]
listen = "127.0.0.1:$5"

[store]
path = "$2"
size_max = "${SIZE_MAX:-1GiB}"

[sync]
poll_interval = "5s"
${RATE:+
[link]
rate_max = \"$RATE\"}

[[upstream]]
registry = "registry.test"
url = "http://127.0.0.1:$3"
END
    config_file=$1
    shift 5
    for image in "$@"; do
        printf '\n[[image]]\nreference = "registry.test/%s"\n' "$image" >>"$config_file"
        [ -z "${PLATFORM:-}" ] || printf 'platforms = ["%s"]\n' "$PLATFORM" >>"$config_file"
    done
}

# moonlet_start CONFIG ADMIN_PORT LOG: `moonlet run`; sets MOONLET_PID. MOONLET is the binary;
# RUNNER what goes before it, an emulator or taskset.
moonlet_start() {
    # shellcheck disable=SC2086  # RUNNER is words
    ${RUNNER:-} "$MOONLET" --config "$1" run >>"$3" 2>&1 &
    MOONLET_PID=$!
    started "$MOONLET_PID"
    if ! wait_for 30 curl -sf "http://127.0.0.1:$2/healthz"; then
        die "moonlet did not start: $(tail -n 5 "$3")"
    fi
}

# moonlet_metric ADMIN_PORT NAME: the value of one metric.
moonlet_metric() {
    curl -sf "http://127.0.0.1:$1/metrics" | awk -v name="$2" '$1 == name { print $2 }'
}

# moonlet_held ADMIN_PORT: succeeds once every desired image is held.
moonlet_held() {
    desired=$(moonlet_metric "$1" moonlet_images_desired)
    [ "${desired:-0}" -gt 0 ] && [ "$(moonlet_metric "$1" moonlet_images_held)" = "$desired" ]
}
