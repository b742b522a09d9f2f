# shellcheck shell=sh
# shellcheck disable=SC2034,SC2119,SC2120,SC2154  # scripts/machine and its parts share variables
# The part `enrol` of scripts/machine: a device's first days, from a clock in 1970 to a network that
# is gone. Sourced after scripts/machine-lib.sh, never run.

# link_up: makes the machine's network. As root it is a tap device that carries LINK_RATE (8mbit) to
# the machine; otherwise qemu's own network, and Moonlet keeps to a rate by itself. Sets HOST, the
# host as the machine sees it, LISTEN, where servers listen for that, SEEN, where the host finds the
# machine's ports, ADDRESS, the machine's own, and NETDEV, qemu's options.
link_up() {
    LINK_RATE=${LINK_RATE:-8mbit}
    free_port && tap=mlt$PORT
    # A network of four addresses of its own for each run.
    network=10.213.$((PORT / 64 % 256)).$((PORT % 64 * 4))
    if [ "$(id -u)" -eq 0 ] && ip tuntap add dev "$tap" mode tap 2>/dev/null; then
        TAP=$tap
        HOST=${network%.*}.$((${network##*.} + 1))
        SEEN=${network%.*}.$((${network##*.} + 2))
        LISTEN=$HOST ADDRESS=$SEEN/30
        serve_port=8585 admin_port=8586
        NETDEV="tap,id=net,ifname=$tap,script=no,downscript=no"
        ip address add "$HOST/30" dev "$tap"
        ip link set "$tap" up
        if tc qdisc add dev "$tap" root tbf rate "$LINK_RATE" burst 16kb latency 400ms; then
            RATE=
            return
        fi
        skipped "enrol: this kernel has no tbf: Moonlet keeps to a rate by itself"
    else
        skipped "enrol: no tap device, which is root's: Moonlet keeps to a rate by itself"
        HOST=10.0.2.2 SEEN=127.0.0.1 LISTEN=127.0.0.1 ADDRESS=10.0.2.15/24
        free_port && serve_port=$PORT
        free_port && admin_port=$PORT
        NETDEV="user,id=net,hostfwd=tcp:$SEEN:$serve_port-:8585,hostfwd=tcp:$SEEN:$admin_port-:8586"
    fi
    RATE=1MiB/s
}

link_down() {
    [ -z "${TAP:-}" ] || ip link del "$TAP"
}

# certificates: a private authority, and Ground Control's certificate of it: older than the binary,
# whose time the machine takes for the present as long as its clock was not set.
certificates() {
    mkdir -p "$WORK/authority"
    : >"$WORK/authority/index"
    cat >"$WORK/authority/settings" <<SETTINGS
[ca]
default_ca = here
[here]
database = $WORK/authority/index
new_certs_dir = $WORK/authority
rand_serial = yes
default_md = sha256
policy = any
copy_extensions = copy
[any]
commonName = supplied
SETTINGS
    signed authority "basicConstraints=critical,CA:TRUE" -selfsign
    signed server "subjectAltName=IP:$HOST,IP:$LISTEN" -cert "$WORK/authority.pem"
}

# signed NAME EXTENSION OPTION...: a key and a certificate of the authority.
signed() {
    name=$1
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$name" -addext "$2" \
        -keyout "$WORK/$name.key" -out "$WORK/$name.csr" 2>"$WORK/openssl.log"
    shift 2
    openssl ca -batch -notext -config "$WORK/authority/settings" -keyfile "$WORK/authority.key" \
        -startdate 20240101000000Z -enddate 20440101000000Z -in "$WORK/$name.csr" \
        -out "$WORK/$name.pem" "$@" 2>>"$WORK/openssl.log" ||
        failed "openssl: $(tail -n 3 "$WORK/openssl.log")"
}

# Builds Ground Control for this host.
ground_build() {
    need_rust
    say "building Ground Control"
    cargo build --locked --features ground-control --bin ground-control
    GROUND_CONTROL=${CARGO_TARGET_DIR:-target}/debug/ground-control
}

# Ground Control with TLS; sets GROUND_PID.
ground_start() {
    free_port && ground=https://$LISTEN:$PORT
    ground_seen=https://$HOST:$PORT
    password=Machine-$(od -An -N8 -tx1 /dev/urandom | tr -d ' \n')-1
    GROUND_CONTROL_ADMIN_PASSWORD=$password "$GROUND_CONTROL" serve --data "$WORK/ground" \
        --listen "$LISTEN:$PORT" --url "$ground_seen" --tls-cert "$WORK/server.pem" \
        --tls-key "$WORK/server.key" >>"$WORK/ground.log" 2>&1 &
    GROUND_PID=$!
    started "$GROUND_PID"
    wait_for 30 curl -sf --cacert "$WORK/authority.pem" "$ground/health" ||
        failed "ground-control: $(tail -n 3 "$WORK/ground.log")"
}

# api METHOD PATH [BODY]
api() {
    curl -sf --cacert "$WORK/authority.pem" -u "admin:$password" -X "$1" "$ground/api/$2" \
        ${3:+-d "$3"}
}

# fleet_new IMAGE...: a group of these images, and a satellite in it; sets `token`.
fleet_new() {
    intervals 2s
    group_set "$@"
    satellite_new
}

# intervals LENGTH: how often satellites look and report.
intervals() {
    lengths="{\"app_config\":{\"state_replication_interval\":\"@every $1\",
        \"heartbeat_interval\":\"@every $1\"}}"
    api POST configs "{\"config_name\":\"default\",\"config\":$lengths}" >/dev/null ||
        api PATCH configs/default "$lengths" >/dev/null
}

# group_set IMAGE...: these and no others are wanted.
group_set() {
    artifacts=$(printf '{"repository":"demo/%s","tag":["1"],"type":"IMAGE"}\n' "$@" | paste -s -d ,)
    api POST groups/sync "{\"group\":\"field\",\"registry\":\"http://$HOST:$registry_port\",
        \"artifacts\":[$artifacts]}" >/dev/null
}

satellite_new() {
    token=$(api POST satellites "{\"name\":\"${1:-gateway-1}\",\"groups\":[\"field\"],
        \"config_name\":\"default\"}" | jq -r .token)
}

# image_seed NAME MEBIBYTES...: demo/NAME:1 with a layer of each size, in the registry, and its
# manifest in WORK.
image_seed() {
    name=$1
    shift
    image_new "$WORK/layout" "$name" arm
    for size in "$@"; do
        random_file "$WORK/files/srv/$name" "$size"
        image_layer "$WORK/layout" "$name" "$WORK/files"
    done
    push "$WORK/layout" "$name" "$LISTEN:$registry_port/demo/$name:1"
    skopeo inspect --raw --tls-verify=false "docker://$LISTEN:$registry_port/demo/$name:1" \
        >"$WORK/$name.json"
    rm -rf "$WORK/files" "$WORK/layout"
}

# boot_enrol WORD...: the machine with these words on the kernel's command line, its clock in 1970.
boot_enrol() {
    # shellcheck disable=SC2046  # words
    boot "MOONLET_PART=enrol MOONLET_STORE=ext4 MOONLET_ADDRESS=$ADDRESS moonlet.token=$token $*" \
        $(drive "$WORK/disk" data) -rtc base=1970-01-01T00:00:00 \
        -netdev "$NETDEV" -device virtio-net-device,netdev=net
}

# What the machine says of an image: "STATE HELD-BYTES", "- 0" while it does not know of it.
image_state() {
    curl -sf -m 2 "http://$SEEN:$admin_port/status" | jq -r --arg name "demo/$1:1" '
        [.images[] | select(.reference | endswith($name))][0] // {state: "-", held_bytes: 0} |
        "\(.state) \(.held_bytes)"'
}

is_held() {
    case "$(image_state "$1")" in
    held*) ;;
    *) return 1 ;;
    esac
}

# Ground Control knows of both images from the satellite.
is_reported() {
    api GET satellites/gateway-1/images | jq -e 'map(.Reference) | any(contains("demo/app:1")) and
        any(contains("demo/big:1"))' >/dev/null
}

part_enrol() {
    KILLS=${KILLS:-20}
    registry_port='' small_held='' in_flight=0 kill=0 TAP=
    trap 'halt_quietly; cleanup; link_down' EXIT
    link_up
    certificates
    free_port && registry_port=$PORT
    REGISTRY_LISTEN=$LISTEN
    registry_start "$WORK" "$registry_port"
    image_seed app 1
    # For as long as the machine is killed, and a while.
    layers=
    while [ ${#layers} -lt $((2 * KILLS / 3 + 4)) ]; do
        layers="${layers}3 "
    done
    # shellcheck disable=SC2086  # words
    image_seed big $layers
    ground_start
    fleet_new app big
    if ! guest_for ext4; then
        skipped "enrol: this kernel has no ext4"
        return
    fi
    cp "$WORK/authority.pem" "$GUEST/part/ca.pem"
    cat >"$GUEST/part/moonlet.toml" <<CONFIGURATION
name = "gateway-1"
[serve]
listen = ["0.0.0.0:8585"]
insecure = true
[admin]
listen = "0.0.0.0:8586"
[store]
path = "/data/moonlet"
size_max = "160MiB"
${RATE:+[link]
rate_max = \"$RATE\"}
[ground_control]
url = "$ground_seen"
ca_file = "/part/ca.pem"
CONFIGURATION
    pack
    system=ext4
    disk_new "$WORK/disk"
    begun=$(date +%s)
    while [ "$kill" -lt "$KILLS" ]; do
        kill=$((kill + 1))
        enrol_round
    done
    passed "enrol: $kill kills in $(($(date +%s) - begun)) s, seed $seed, $in_flight while bytes" \
        "were in flight, the link ${RATE:-$LINK_RATE}; what was held was held at every start"
    boot_enrol MOONLET_DOCTOR=yes
    await 400 is_held big || failed "demo/big:1 is not held: $(image_state big)"
    await 60 is_reported || failed "Ground Control does not know what the satellite holds"
    await 60 grep -q '^MOONLET-RESULT doctor-end' "$console" || failed "doctor does not end"
    enrol_check_guest
    halt
    enrol_alone
}

# Starts the machine, lets it enrol or download for a while, and kills it.
enrol_round() {
    boot_enrol
    random 4000
    # Some before Moonlet is there, and while it enrols.
    if [ $((kill % 5)) -eq 2 ]; then
        await 60 grep -q '^MOONLET-RESULT start' "$console" || failed "kill $kill: no start"
        random 1500
        sleep "0.$(printf '%03d' "$((number % 1000))")"
        halt
        return
    fi
    await 60 curl -sf -m 2 "http://$SEEN:$admin_port/healthz" ||
        failed "kill $kill: moonlet does not start"
    check_mount
    if [ -n "$small_held" ] && ! enrol_has app; then
        failed "kill $kill: demo/app:1 was held and is not any more"
    fi
    deadline=$(($(milliseconds) + 500 + number))
    first=$(image_state big) last=$first
    while [ "$(milliseconds)" -lt "$deadline" ]; do
        ! ended || failed "kill $kill: the machine ended"
        ! grep -q '^MOONLET-RESULT moonlet ended' "$console" || failed "kill $kill: moonlet ended"
        last=$(image_state big) || last=$first
        ! is_held app || small_held=yes
        sleep 0.2
    done
    halt
    [ "${last#* }" -le "${first#* }" ] || in_flight=$((in_flight + 1))
}

# enrol_has NAME: the machine serves the manifest and all blobs of demo/NAME:1.
enrol_has() {
    served=$SEEN:$serve_port
    [ "$(served_digest "$1")" = "$(digest_of "$1" '')" ] && has_blobs "$1" "$WORK/$1.json"
}

# What the machine saw of itself.
enrol_check_guest() {
    clock=$(sed -n 's/^MOONLET-RESULT clock \([0-9]*\).*/\1/p' "$console")
    [ "${clock:-9999999999}" -lt 31536000 ] || failed "the machine's clock shows ${clock:-nothing}"
    clock_line=$(tr -d '\r' <"$console" |
        sed -n 's/^MOONLET-RESULT doctor *\(warn  *clock .*\)/\1/p')
    case "$clock_line" in
    *1970-01-01*'is over already'*) passed "enrol: doctor: $clock_line" ;;
    *) failed "doctor does not say that the clock is not set" ;;
    esac
    ! grep '^MOONLET-RESULT doctor .*FAIL' "$console" || failed "doctor finds something wrong"
    passed "enrol: enrolled over TLS by a private authority with the clock in 1970, both images" \
        "held and reported to Ground Control"
    passed "enrol: $ARCHITECTURE: $(memory_line)"
}

# Memory and time of the processor of the last start, read inside the machine.
memory_line() {
    tr -d '\r' <"$console" | awk '$1 == "MOONLET-RESULT" && $2 == "memory" {
        now = $3; peak = $4; ticks = $5; up = $6
    } END { printf "%d KiB resident, at most %d KiB, %.2f s of the processor in %d s\n",
        now, peak, ticks / 100, up }'
}

# Nothing of the world is left but the machine and its flash.
enrol_alone() {
    stop "$REGISTRY_PID"
    stop "$GROUND_PID"
    boot_enrol
    await 60 curl -sf -m 2 "http://$SEEN:$admin_port/readyz" || failed "not ready without upstreams"
    for wanted in app big; do
        timeout 180 skopeo copy --quiet --src-tls-verify=false \
            "docker://$SEEN:$serve_port/demo/$wanted:1" "dir:$WORK/pulled-$wanted" ||
            failed "skopeo cannot copy demo/$wanted:1"
        verify_dir "$WORK/pulled-$wanted"
        cmp -s "$WORK/pulled-$wanted/manifest.json" "$WORK/$wanted.json" ||
            failed "demo/$wanted:1 is not what the registry had"
    done
    passed "enrol: registry and Ground Control gone, the machine started again: skopeo copies" \
        "both images, all digests are the registry's"
    sleep 2
    passed "enrol: $ARCHITECTURE: served: $(memory_line)"
    halt
}
