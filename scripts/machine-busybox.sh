# shellcheck shell=sh
# shellcheck disable=SC2034,SC2154  # scripts/machine and its parts share variables
# The part `busybox` of scripts/machine: a board with BusyBox init, as Buildroot makes it. What is
# done there is tests/packages/busybox.sh. Sourced after scripts/machine-lib.sh, never run.

# payload VERSION: what scripts/install brings to a board, in the guest's /VERSION. The old version is
# the same program with a line behind it.
payload() {
    mkdir -p "$GUEST/$1"
    for file in install init toml service; do
        cp "boards/service/moonlet.$file" "$GUEST/$1/"
    done
    cp "$MOONLET" "$GUEST/$1/moonlet"
    [ "$1" = new ] || echo old >>"$GUEST/$1/moonlet"
}

# What Buildroot's skeleton has: an inittab, and scripts that are run in order, or backwards.
busybox_root() {
    rm "$GUEST/init" "$GUEST/moonlet"
    mkdir -p "$GUEST/sbin" "$GUEST/etc/init.d" "$GUEST/test" "$GUEST/var/lib/moonlet" \
        "$GUEST/var/run" "$GUEST/proc" "$GUEST/sys" "$GUEST/dev" "$GUEST/tmp" "$GUEST/usr/bin" "$GUEST/usr/sbin"
    ln -s ../bin/busybox "$GUEST/sbin/init"
    echo 'root:x:0:0:root:/:/bin/sh' >"$GUEST/etc/passwd"
    echo 'root:x:0:' >"$GUEST/etc/group"
    printf '::sysinit:/etc/init.d/rcS\n::shutdown:/etc/init.d/rcK\n' >"$GUEST/etc/inittab"
    cat >"$GUEST/etc/init.d/rcS" <<'END'
#!/bin/sh
for script in /etc/init.d/S??*; do "$script" start; done
END
    cat >"$GUEST/etc/init.d/rcK" <<'END'
#!/bin/sh
for script in $(ls -r /etc/init.d/S??*); do "$script" stop; done
sync
END
    cat >"$GUEST/etc/init.d/S10board" <<'END'
#!/bin/sh
[ "$1" = start ] || exit 0
/bin/busybox --install -s
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
while read -r name; do modprobe "$name"; done </part/modules
mount -t ext4 /dev/vda /var/lib/moonlet
ip link set lo up
ip link set eth0 up
ip address add 10.0.2.15/24 dev eth0
syslogd -O /tmp/log
END
    cat >"$GUEST/etc/init.d/S99test" <<'END'
#!/bin/sh
[ "$1" = start ] || exit 0
sh /test/busybox.sh "$MOONLET_START" </dev/null >/dev/console 2>&1
poweroff
END
    chmod 755 "$GUEST"/etc/init.d/*
    cp tests/packages/busybox.sh "$GUEST/test/"
}

part_busybox() {
    if [ "$(id -u)" -ne 0 ]; then
        skipped "busybox: needs root, for files of other users"
        return
    fi
    free_port && registry_port=$PORT
    registry_start "$WORK" "$registry_port"
    image_new "$WORK/layout" 1 arm
    random_file "$WORK/files/srv/file" 2
    image_layer "$WORK/layout" 1 "$WORK/files"
    push "$WORK/layout" 1 "127.0.0.1:$registry_port/demo/app:1"
    if ! guest_for ext4; then
        skipped "busybox: this kernel has no ext4"
        return
    fi
    busybox_root
    RATE='' SIZE_MAX=64MiB
    guest_config "$GUEST/test/settings" "$registry_port" file demo/app:1
    sed -i 's#/data/moonlet#/var/lib/moonlet#' "$GUEST/test/settings"
    payload old
    payload new
    scripts/install --binary "$GUEST/old/moonlet" "$TARGET" "$GUEST"
    # As an administrator edits it: whose it is stays.
    cat "$GUEST/test/settings" >"$GUEST/etc/moonlet/moonlet.toml"
    pack
    system=ext4
    disk_new "$WORK/disk"
    for start in 1 2; do
        # shellcheck disable=SC2046  # words
        boot "rdinit=/sbin/init MOONLET_START=$start" $(drive "$WORK/disk" data) \
            -netdev user,id=net -device virtio-net-device,netdev=net
        power_off 600
        results busybox
        [ "$start" -ne 1 ] || grep -q '^moonlet stopped' "$console" ||
            failed "busybox: switched off, and the service was not stopped"
    done
}
