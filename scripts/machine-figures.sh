# shellcheck shell=sh
# shellcheck disable=SC2034,SC2119,SC2120,SC2154  # scripts/machine and its parts share variables
# The part `figures` of scripts/machine: what Moonlet takes of an ARM machine, read inside it.
# Sourced after scripts/machine-enrol.sh, never run.

# figure WHAT VALUE [LIMIT]: a line of the table. One above its limit by more than a tenth is a
# failure.
figure() {
    result=-
    if [ -n "${3:-}" ]; then
        result=$(verdict "$2" lt "$3")
        [ "$(verdict "$2" lt "$(($3 * 11 / 10))")" = ok ] || over=yes
    fi
    printf '%-52s %16s %10s %s\n' "$1" "$2" "${3:--}" "$result"
}

# sample: waits for the machine's next line on what Moonlet takes. Sets resident and peak in KiB,
# ticks in hundredths of a second of the processor, up in seconds, and sectors written to the disk.
sample() {
    lines=$(grep -c '^MOONLET-RESULT memory' "$console" || true)
    await 120 sampled_after "$lines" || failed "the machine says nothing more"
    # shellcheck disable=SC2046  # words
    set -- $(grep '^MOONLET-RESULT memory' "$console" | tail -n 1 | tr -d '\r')
    resident=$3 peak=$4 ticks=$5 up=$6 sectors=${7:-0}
}

sampled_after() {
    [ "$(grep -c '^MOONLET-RESULT memory.*'"$(printf '\r')" "$console")" -gt "$1" ]
}

# figures_config WHERE POLL: the configuration in GUEST of a satellite whose log lies there.
figures_config() {
    cat >"$GUEST/part/moonlet.toml" <<CONFIGURATION
name = "gateway-1"
[serve]
listen = ["0.0.0.0:8585"]
insecure = true
[admin]
listen = "0.0.0.0:8586"
[store]
$1
[link]
day_max = "8GiB"
[sync]
poll_interval = "$2"
[ground_control]
url = "$ground_seen"
ca_file = "/part/ca.pem"
CONFIGURATION
    cp "$WORK/authority.pem" "$GUEST/part/ca.pem"
    pack
}

# boot_figures PART OPTION...
boot_figures() {
    part=$1
    shift
    boot "MOONLET_PART=$part MOONLET_STORE=ext4 MOONLET_ADDRESS=$ADDRESS moonlet.token=$token
        MOONLET_URL=http://$HOST:$registry_port/v2/demo/app/blobs/$blob" \
        -netdev "$NETDEV" -device virtio-net-device,netdev=net "$@"
}

# written SECONDS: sectors written to the disk meanwhile in `wrote`, ticks in `used`, seconds in
# `took`.
written() {
    sample
    before=$sectors ticks_before=$ticks up_before=$up
    pause "$1"
    sample
    wrote=$((sectors - before)) used=$((ticks - ticks_before)) took=$((up - up_before))
}

per_day() {
    awk -v bytes="$1" -v took="$2" 'BEGIN { printf "%.0f\n", bytes * 86400 / took }'
}

part_figures() {
    IMAGE_MIB=${IMAGE_MIB:-1024} IDLE=${IDLE:-600}
    over='' TAP='' RATE=''
    trap 'halt_quietly; cleanup; link_down' EXIT
    # The emulated processor is the limit, never the link.
    LINK_RATE=8gbit
    link_up
    certificates
    free_port && registry_port=$PORT
    REGISTRY_LISTEN=$LISTEN
    registry_start "$WORK" "$registry_port"
    image_seed app 32
    blob=$(jq -r '.layers[0].digest' "$WORK/app.json")
    layers=
    while [ $((${#layers} * 32 / 3)) -lt "$IMAGE_MIB" ]; do
        layers="${layers}32 "
    done
    say "an image of $IMAGE_MIB MiB"
    # shellcheck disable=SC2086  # words
    image_seed big $layers
    image_seed more 64
    ground_start
    fleet_new app
    guest_for ext4 || failed "this kernel has no ext4"
    system=ext4
    disk_new "$WORK/disk"
    truncate -s $((IMAGE_MIB + 512))M "$WORK/disk"
    mke2fs -q -F -t ext4 "$WORK/disk"
    figures_config 'path = "/data/moonlet"
size_max = "'$((IMAGE_MIB + 128))'MiB"' 5m
    printf '%-52s %16s %10s %s\n' "$ARCHITECTURE, read inside the machine" value limit result
    for figures in ${FIGURES:-memory start stop idle nand}; do
        "figures_$figures"
    done
    [ -z "$over" ] || failed "over a limit by more than a tenth"
}

figures_memory() {
    # shellcheck disable=SC2046  # words
    boot_figures figures $(drive "$WORK/disk" data)
    await 120 is_held app || failed "demo/app:1 is not held: $(image_state app)"
    pause 5
    sample
    figure "resident, idle, KiB" "$resident" $((memory_idle / 1024))
    ticks_before=$ticks
    group_set app big
    say "a sync of $IMAGE_MIB MiB"
    await 1800 is_held big || failed "demo/big:1 is not held: $(image_state big)"
    sample
    figure "resident at most, syncing, KiB" "$peak" $((memory_busy / 1024))
    mine=$(awk -v ticks="$((ticks - ticks_before))" -v size="$IMAGE_MIB" \
        'BEGIN { printf "%.1f\n", ticks * 10 / size }')
    clients=
    for layer in $(jq -r '.layers[].digest' "$WORK/big.json" | head -n 8); do
        curl -sf -o /dev/null "http://$SEEN:$serve_port/v2/demo/big/blobs/$layer" &
        clients="$clients $!"
    done
    sleep 2
    sample
    serving=$resident
    for client in $clients; do
        wait "$client" || failed "a client was not served"
    done
    sample
    figure "resident, serving 8 clients, KiB" "$serving" $((memory_busy / 1024))
    figure "resident at most, KiB" "$peak" $((memory_busy / 1024))
    halt
    # shellcheck disable=SC2046
    boot_figures baseline $(drive "$WORK/disk" data)
    power_off 300
    # shellcheck disable=SC2046
    set -- $(sed -n 's/^MOONLET-RESULT baseline \([0-9 ]*\).*/\1/p' "$console")
    [ $# -eq 3 ] || failed "the machine has not measured sha256sum"
    theirs=$(awk -v ticks="$(($2 + $3))" 'BEGIN { printf "%.1f\n", ticks * 10 / 32 }')
    figure "processor, sync, ms per MiB" "$mine"
    figure "processor, cat to the disk and sha256sum, ms per MiB" "$theirs"
    figure "processor, wget to memory, ms per MiB" \
        "$(awk -v ticks="$1" 'BEGIN { printf "%.1f\n", ticks * 10 / 32 }')"
}

figures_start() {
    # shellcheck disable=SC2046
    boot_figures ready $(drive "$WORK/disk" data)
    power_off 120
    milliseconds=$(sed -n 's/^MOONLET-RESULT ready \([0-9]*\).*/\1/p' "$console")
    [ -n "$milliseconds" ] || failed "not ready"
    figure "from the start to /readyz, $IMAGE_MIB MiB held, ms" "$milliseconds" 1000
}

# While an image is fetched that the data plan and the store have room for.
figures_stop() {
    group_set app big more
    # shellcheck disable=SC2046
    boot_figures stop $(drive "$WORK/disk" data)
    power_off 180
    # shellcheck disable=SC2046
    set -- $(sed -n 's/^MOONLET-RESULT stop \([0-9 ]*\).*/\1/p' "$console")
    [ "${2:-none}" = 0 ] || failed "asked to stop, moonlet ended with ${2:-nothing}"
    figure "from SIGTERM in a download to the end, ms" "$1" 2000
    group_set app big
}

# Writes of a satellite with nothing to do: it looks for changes, reports, and logs to a file on the
# same disk. First many looks in a short time, which say what one costs; then as it is in the field.
figures_idle() {
    # shellcheck disable=SC2046
    boot_figures figures $(drive "$WORK/disk" data)
    await 60 is_held big || failed "demo/big:1 is not held: $(image_state big)"
    # The kernel writes what was logged at the start half a minute later.
    pause 60
    written 120
    figure "written by 60 looks and 60 reports in 2 min, bytes" "$((wrote * 512))"
    intervals 5m
    pause 60
    written "$IDLE"
    figure "written per day, a look and a report in 5 min, bytes" \
        "$(per_day $((wrote * 512)) "$took")" 1048576
    figure "processor, idle, per cent" \
        "$(awk -v used="$used" -v took="$took" 'BEGIN { printf "%.2f\n", used / took }')"
    halt
}

# The same on a UBI volume, by what Moonlet programs and what the chip erases.
figures_nand() {
    rm -rf "$GUEST"
    if ! guest || ! module nandsim ubi; then
        skipped "figures: this kernel has no nandsim or no ubi"
        return
    fi
    tools ubiattach ubidetach ubimkvol ubirmvol
    figures_config 'device = "/dev/ubi0_0"' 5m
    group_set app
    intervals 2s
    satellite_new gateway-2
    boot_figures figures_nand
    await 180 is_held app || failed "demo/app:1 is not held: $(image_state app)"
    intervals 5m
    pause 20
    chip_counts
    programmed_before=$programmed erases_before=$erases chip_erases_before=$chip_erases
    pause "$IDLE"
    chip_counts
    figure "programmed per day, UBI, the same, bytes" \
        "$(per_day $((programmed - programmed_before)) "$IDLE")" 1048576
    figure "erases of UBI's most erased block meanwhile" "$((erases - erases_before))"
    all=-
    [ -z "$chip_erases" ] || all=$((chip_erases - chip_erases_before))
    figure "erases of all blocks of the chip meanwhile" "$all"
    halt
}

# Sets `programmed`, `erases` and `chip_erases`: the satellite's own count, UBI's and the chip's, which
# may be none.
chip_counts() {
    sample
    programmed=$(curl -sf "http://$SEEN:$admin_port/metrics" |
        awk '$1 == "moonlet_flash_programmed_bytes_total" { print $2 }')
    # shellcheck disable=SC2046  # words
    set -- $(sed -n 's/^MOONLET-RESULT erases \([0-9 ]*\).*/\1/p' "$console" | tail -n 1)
    erases=$1 chip_erases=${2:-}
}
