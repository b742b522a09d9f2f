# shellcheck shell=sh
# The emulated ARM machine of scripts/machine: its kernel and tools from Debian, its disks, its
# start and its end, and what it prints. Sourced after scripts/lib.sh, never run.

QEMU_PID='' PAUSE_PID=''

# machine_of BOARD: which machine all that follows is about. qemu's plain machine has some of the
# processors that boards name; the binaries for others run on the oldest of these as well.
machine_of() {
    TARGET=$(board_show "$1" .target)
    case "$TARGET" in
    "$ARMV7")
        ARCHITECTURE=armhf
        # Kernel and tools, fetched once.
        CACHE=${TOOLS_DIR%/*}/machine
        KERNEL=linux-image-armmp
        LOADER=ld-linux-armhf.so.3
        QEMU='qemu-system-arm -cpu cortex-a7'
        ;;
    "$AARCH64")
        ARCHITECTURE=arm64
        CACHE=${TOOLS_DIR%/*}/machine-arm64
        KERNEL=linux-image-arm64
        LOADER=ld-linux-aarch64.so.1
        QEMU='qemu-system-aarch64 -cpu cortex-a53'
        ;;
    *) die "board $1: no machine is known for $TARGET" ;;
    esac
    # Cortex-A72 has what a board's binary may use beyond that.
    [ "$(board_show "$1" .cpu)" != cortex-a72 ] || QEMU="${QEMU% *} cortex-a72"
    # shellcheck disable=SC2034  # read by scripts/machine-figures.sh
    memory_idle=$(board_show "$1" .budget.memory_idle_bytes_max)
    # shellcheck disable=SC2034
    memory_busy=$(board_show "$1" .budget.memory_busy_bytes_max)
}

# --- results --------------------------------------------------------------------------------

passed() {
    printf 'ok       %s\n' "$*"
}

skipped() {
    printf 'SKIPPED  %s\n' "$*"
}

# Says what went wrong, with the end of the machine's console, and ends the part. The console of
# the last machine is $console.
failed() {
    # shellcheck disable=SC2154  # seed and console are set by scripts/machine
    printf 'FAIL     %s (SEED=%s)\n' "$*" "$seed"
    # shellcheck disable=SC2154
    for file in "$console.qemu" "$console"; do
        [ ! -s "$file" ] || tail -n 20 "$file" | tr -d '\r' | sed 's/^/         /'
    done
    exit 1
}

# Prints what the machine found.
results() {
    tr -d '\r' <"$console" | sed -n 's/^MOONLET-RESULT //p' >"$WORK/results"
    failures='' count=0
    while read -r verdict text; do
        case "$verdict" in
        ok) passed "$1: $text" ;;
        fail)
            count=$((count + 1))
            [ "$count" -gt 3 ] || failures="$failures$text; "
            ;;
        esac
    done <"$WORK/results"
    [ "$count" -eq 0 ] || failed "$1: $count failures: $failures"
    grep -q '^done 0' "$WORK/results" || failed "$1: the machine did not come to its end"
}

# --- the machine ----------------------------------------------------------------------------

# apt's programs with lists of their own, in the cache: no second architecture for this system.
foreign() {
    program=$1
    shift
    "$program" -o Dir::State::Lists="$CACHE/apt/lists" -o Dir::State::status="$CACHE/apt/status" \
        -o Dir::Cache="$CACHE/apt/cache" -o APT::Architecture="$ARCHITECTURE" \
        -o APT::Architectures="$ARCHITECTURE" \
        -o APT::Sandbox::User=root -o Debug::NoLocking=1 "$@"
}

# Fetches kernel, busybox and tools of Debian's into ROOT, once.
fetch() {
    ROOT=$CACHE/root
    [ ! -d "$ROOT" ] || return 0
    say "fetching Debian's kernel and tools for $ARCHITECTURE into $CACHE"
    rm -rf "$CACHE"
    mkdir -p "$CACHE/apt/lists/partial" "$CACHE/apt/cache/archives/partial" "$CACHE/new"
    : >"$CACHE/apt/status"
    # Of the lists some may be missing on a mirror; whether the packages are there counts.
    foreign apt-get update -qq >&2 || true
    kernel=$(foreign apt-cache depends "$KERNEL" 2>/dev/null |
        sed -n 's/.*Depends: \(linux-image-[0-9][^ ]*\).*/\1/p' | head -n 1)
    [ -n "$kernel" ] || return 1
    # The kernel alone: what it depends on is for making initramfs images.
    (cd "$CACHE/apt/cache/archives" && foreign apt-get download -qq "$kernel") >&2 || return 1
    foreign apt-get install -y -qq --download-only --no-install-recommends \
        busybox-static mtd-utils dmsetup >&2 || return 1
    for package in "$CACHE"/apt/cache/archives/*.deb; do
        dpkg -x "$package" "$CACHE/new" || return 1
    done
    depmod -b "$CACHE/new" "$(ls "$CACHE/new/lib/modules")" || return 1
    rm -rf "$CACHE/apt"
    mv "$CACHE/new" "$ROOT"
}

# module NAME...: copies kernel modules, with those they want, into GUEST.
module() {
    for name in "$@"; do
        line=$(grep "/$name\.ko:" "$ROOT/lib/modules/$release/modules.dep") || return 1
        for file in $(printf '%s' "$line" | tr -d :); do
            mkdir -p "$GUEST/lib/modules/$release/${file%/*}"
            cp "$ROOT/lib/modules/$release/$file" "$GUEST/lib/modules/$release/$file"
        done
    done
}

# guest MODULE...: a new tree GUEST for a part, which loads those modules at its start. The
# part puts its configurations into GUEST/part, and `pack` makes the initramfs of it.
guest() {
    GUEST=$WORK/guest
    mkdir -p "$GUEST/bin" "$GUEST/lib" "$GUEST/part"
    cp "$ROOT/bin/busybox" "$GUEST/bin/"
    cp scripts/machine-init "$GUEST/init"
    cp "$MOONLET" "$GUEST/moonlet"
    ln -s busybox "$GUEST/bin/sh"
    chmod 755 "$GUEST/init" "$GUEST/moonlet"
    release=$(ls "$ROOT/lib/modules")
    mkdir -p "$GUEST/lib/modules/$release"
    cp "$ROOT/lib/modules/$release"/modules.order "$ROOT/lib/modules/$release"/modules.builtin* \
        "$GUEST/lib/modules/$release/"
    set -- virtio_mmio virtio_net virtio_blk "$@"
    module "$@" || return 1
    printf '%s\n' "$@" >"$GUEST/part/modules"
}

# tools NAME...: programs of Debian's into GUEST, with the libraries these want.
tools() {
    for name in "$@"; do
        cp "$(find "$ROOT/sbin" "$ROOT/usr/sbin" -name "$name")" "$GUEST/bin/"
    done
    for library in "$LOADER" libc.so.6 libm.so.6 libgcc_s.so.1 libdevmapper.so.1.02.1 \
        libselinux.so.1 libudev.so.1 libpcre2-8.so.0; do
        cp -L "$(find "$ROOT/lib" "$ROOT/usr/lib" -name "$library" | head -n 1)" "$GUEST/lib/"
    done
}

pack() {
    depmod -b "$GUEST" "$release"
    # Not compressed: unpacking would take longer than copying.
    # What root made is root's, or was given to somebody.
    owner='-R 0:0'
    [ "$(id -u)" -ne 0 ] || owner=
    # shellcheck disable=SC2086  # two words or none
    (cd "$GUEST" && find . | cpio -o -H newc $owner --quiet) >"$GUEST.cpio"
}

# boot PARAMETERS QEMU-OPTION...: starts the machine; sets QEMU_PID. Its console is $console.
boot() {
    parameters=$1
    shift
    : >"$console"
    # shellcheck disable=SC2086  # words
    $QEMU -M virt -m 512 -nodefaults -display none -no-reboot \
        -serial "file:$console" -kernel "$ROOT/boot/vmlinuz-$release" -initrd "$GUEST.cpio" \
        -append "console=ttyAMA0 panic=-1 quiet $parameters" "$@" >"$console.qemu" 2>&1 &
    QEMU_PID=$!
}

# drive FILE SERIAL: options for a disk of the machine. Its writes go to the host's page cache.
drive() {
    printf '%s' "-drive if=none,id=$2,file=$1,format=raw,cache=writeback" \
        " -device virtio-blk-device,drive=$2,serial=$2,discard=off,write-zeroes=off"
}

halt_quietly() {
    [ -z "$QEMU_PID" ] || signal "$QEMU_PID" KILL
    [ -z "$PAUSE_PID" ] || signal "$PAUSE_PID" TERM
}

halt() {
    stop "$QEMU_PID" KILL
    QEMU_PID=
}

# pause SECONDS: a sleep that a signal ends, so that what was set up is taken down at once.
pause() {
    sleep "$1" &
    PAUSE_PID=$!
    wait "$PAUSE_PID"
    PAUSE_PID=
}

# await SECONDS COMMAND ...: repeats the command until it succeeds, while the machine runs.
await() {
    until=$(($(date +%s) + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        kill -0 "$QEMU_PID" 2>/dev/null && [ "$(date +%s)" -lt "$until" ] || return 1
        sleep 0.1
    done
}

ended() {
    ! kill -0 "$QEMU_PID" 2>/dev/null
}

# Waits until the machine has switched itself off; $1 is the number of seconds it may take.
power_off() {
    tries=$(($1 * 5))
    until ended; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || failed "not done after $1 s"
        sleep 0.2
    done
    wait "$QEMU_PID" || failed "qemu: $(cat "$console.qemu")"
    QEMU_PID=
}

# Sets `number` to a pseudo-random number below $1: the seed determines all of them.
random() {
    SEED=$(((SEED * 1103515245 + 12345) % 2147483648))
    # shellcheck disable=SC2034  # read by the caller
    number=$((SEED / 65536 % $1))
}

milliseconds() {
    echo $(($(now) / 1000000))
}

# guest_config FILE REGISTRY_PORT STORE IMAGE...: as the machine sees it, where the host is
# 10.0.2.2. STORE is a device, or anything else for the directory.
guest_config() {
    config=$1
    registry_port=$2
    kind=$3
    shift 3
    moonlet_config "$config.host" /data/moonlet "$registry_port" 8585 8586 "$@"
    where='path = "/data/moonlet"'
    case "$kind" in
    /dev/*) where="device = \"$kind\"" ;;
    esac
    sed -e "s#^url = .*#url = \"http://10.0.2.2:$registry_port\"#" -e "s#^path = .*#$where#" \
        -e 's/^poll_interval = .*/poll_interval = "1s"/' \
        -e '/^listen/s#127\.0\.0\.1#0.0.0.0#' -e '/^\[serve\]/a insecure = true' "$config.host" >"$config"
    rm "$config.host"
}
