# shellcheck shell=sh
# shellcheck disable=SC2034,SC2086,SC2154  # shared with the script that sources it; words
# The figures of the serving side, `serve` and `through` of scripts/bench, which sources this file.
#
# The same wrk asks Moonlet, nginx with the same bytes as files, and docker-registry, one after the
# other in each round; each server has one core and wrk the other one. Digests are not checked here.

# wrk_figures URL CONNECTIONS: requests a second, the 99th percentile in ms, and MB a second: those of
# requests that did not end as well, of which there may be no other.
wrk_figures() {
    taskset -c "$client_core" wrk -t 1 -c "$2" -d "${SECONDS_EACH}s" --latency \
        -H 'Accept: application/vnd.oci.image.manifest.v1+json' "$1" >"$WORK/wrk.out"
    ! grep -q 'Non-2xx' "$WORK/wrk.out" || die "$1: $(grep Non-2xx "$WORK/wrk.out")"
    awk '$1 == "99%" {
            p99 = $2 + 0
            if ($2 ~ /us$/) p99 /= 1000; else if ($2 !~ /ms$/) p99 *= 1000
        }
        $1 == "Requests/sec:" { rate = $2 }
        $1 == "Transfer/sec:" {
            bytes = $2 + 0
            if ($2 ~ /GB$/) bytes *= 1024
            else if ($2 ~ /KB$/) bytes /= 1024
            else if ($2 !~ /MB$/) bytes /= 1048576
        }
        END { printf "%.2f %.3f %.3f\n", rate, p99, bytes * 1.048576 }' "$WORK/wrk.out"
}

# CPU seconds that process $1 and its children have taken, in hundredths.
cpu_time() {
    for pid in "$1" $(cat "/proc/$1/task/$1/children" 2>/dev/null); do
        sed 's/^.*) //' "/proc/$pid/stat"
    done | awk '{ sum += $12 + $13 } END { print sum }'
}

# side_by_side CONNECTIONS MOONLET_URL NGINX_URL [REGISTRY_URL]: medians of rates, of 99th percentiles,
# of MB a second and of ms of CPU time a GB, in `rate_*`, `p99_*`, `speed_*` and `cpu_*`.
side_by_side() {
    rm -f "$WORK"/side.*
    for _ in $(seq "$ROUNDS"); do
        for peer in "moonlet $2 $serving_pid" "nginx $3 $nginx_pid" ${4:+"registry $4 $REGISTRY_PID"}; do
            set -- "$1" "$2" "$3" "${4:-}" $peer
            before=$(cpu_time "$7")
            figures=$(wrk_figures "$6" "$1")
            spent=$(($(cpu_time "$7") - before))
            echo "$figures $spent" | awk -v seconds="$SECONDS_EACH" \
                '{ print $1, $2, $3, ($3 > 0) ? $4 * 10000 / ($3 * seconds) : 0 }' >>"$WORK/side.$5"
        done
    done
    for peer in moonlet nginx registry; do
        [ -e "$WORK/side.$peer" ] || continue
        eval "rate_$peer=$(cut -d ' ' -f 1 "$WORK/side.$peer" | median)"
        eval "p99_$peer=$(cut -d ' ' -f 2 "$WORK/side.$peer" | median)"
        eval "speed_$peer=$(cut -d ' ' -f 3 "$WORK/side.$peer" | median)"
        eval "cpu_$peer=$(cut -d ' ' -f 4 "$WORK/side.$peer" | median)"
    done
}

# nginx's own certificate serves all.
serve_certificate() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=bench \
        -addext 'subjectAltName = IP:127.0.0.1' -keyout "$WORK/tls.key" -out "$WORK/tls.pem" \
        2>/dev/null
}

# serve_moonlet TLS IMAGE...: a store of its own in place of the one before.
serve_moonlet() {
    tls=$1
    shift
    configure "$@"
    more="connections_max = 2000"
    [ "$tls" = plain ] || more="$more\ntls_cert = \"$WORK/tls.pem\"\ntls_key = \"$WORK/tls.key\""
    sed -i "s|^\[serve\]\$|&\n$more|" "$WORK/moonlet.toml"
    start_moonlet
    await_held
    serving_pid=$MOONLET_PID
}

serve_rows() {
    for name in tag digest; do
        reference=1
        [ "$name" = tag ] || reference=$digest
        for connections in 1 8 64; do
            side_by_side "$connections" "$scheme://127.0.0.1:$serve_port/v2/bench/app/manifests/$reference" \
                "$scheme://127.0.0.1:$1/manifest" ${2:+"http://$registry/v2/bench/app/manifests/$reference"}
            what="manifest by $name, $connections conn"
            if [ -n "${2:-}" ]; then
                compare "$what (registry)" "$rate_moonlet" "$rate_registry" gt 25
                compare "$what (nginx)" "$rate_moonlet" "$rate_nginx" gt 0.7
            else
                compare "$what (nginx)" "$rate_moonlet" "$rate_nginx" gt 0.9
            fi
            [ "$connections" != 64 ] ||
                compare "$what, p99 ms (nginx)" "$p99_moonlet" "$p99_nginx" lt 2
        done
    done
    target=1.0
    [ -n "${2:-}" ] || target=0.9
    for size in 3 100; do
        layer=$blob
        [ "$size" = 3 ] || layer=$big
        for connections in 1 8 64; do
            side_by_side "$connections" "$scheme://127.0.0.1:$serve_port/v2/bench/app/blobs/$layer" \
                "$scheme://127.0.0.1:$1/blob-$size" ${2:+"http://$registry/v2/bench/app/blobs/$layer"}
            what="$size MiB blob, $connections conn, MB/s"
            compare "$what (nginx)" "$speed_moonlet" "$speed_nginx" gt "$target"
            [ -z "${2:-}" ] || row "$what (registry)" "$speed_moonlet" "$speed_registry" \
                "$(ratio "$speed_moonlet" "$speed_registry")" - -
            compare "  CPU ms per GB (nginx)" "$cpu_moonlet" "$cpu_nginx" lt 1.0
        done
    done
}

# Seconds of a command, appended to FILE.
stopwatch() (
    out=$1
    shift
    begun=$(now)
    "$@" >"$WORK/stopwatch.log" 2>&1 || die "$*: $(tail -n 3 "$WORK/stopwatch.log")"
    awk -v wall="$(($(now) - begun))" 'BEGIN { printf "%.3f\n", wall / 1e9 }' >>"$out"
)

# Of a 300 MB image that a client has fetched on demand, against straight from its registry, which has a
# core of its own in all of them. What is asked has nothing at first, and so has the client. By the
# loopback device, clients and servers have both cores busy all the time; then as over a link.
figure_through_inside() {
    start_registry
    seed sync 6 50
    clients=skopeo
    if have containerd && have ctr; then
        clients="skopeo containerd"
    fi
    through "300 MB pulled through by"
    if link_limit; then
        through "over a link of $LINK_RATE by"
    else
        echo "over a link: left out, it needs tc and a kernel with htb"
    fi
    stop "$REGISTRY_PID"
    rm -rf "$WORK/store" "$WORK/mirror" "$WORK/registry"
    [ "$clients" != skopeo ] || echo "by containerd: left out, it needs containerd and ctr"
}

figure_through() {
    inside through "unshare --net --"
}

# Lets LINK_RATE of what the registry sends through, in this network namespace; false where that cannot be
# had. A packet of the loopback device has up to 64 KiB.
link_limit() {
    have tc && tc qdisc add dev lo root handle 1: htb 2>/dev/null &&
        tc class add dev lo parent 1: classid 1:1 htb rate "$LINK_RATE" \
            burst 128kb quantum 65536 &&
        tc filter add dev lo parent 1: protocol ip u32 match ip sport "$registry_port" 0xffff flowid 1:1
}

# through WHAT: by each of the clients.
through() {
    rm -f "$WORK"/pull.*
    for _ in $(seq "$ROUNDS"); do
        for client in $clients; do
            through_start
            for way in "direct $registry" "moonlet 127.0.0.1:$serve_port" "mirror 127.0.0.1:$mirror_port"; do
                sync
                "pull_by_$client" "${way#* }" "$WORK/pull.$client.${way%% *}"
            done
            stop "$MOONLET_PID"
            stop "$mirror_pid"
        done
    done
    for client in $clients; do
        direct=$(median <"$WORK/pull.$client.direct")
        mirror=$(median <"$WORK/pull.$client.mirror")
        title "$1 $client, s (direct)"
        compare "moonlet" "$(median <"$WORK/pull.$client.moonlet")" "$direct" lt 1.05
        row "docker-registry as a mirror" "$mirror" "$direct" "$(ratio "$mirror" "$direct")" - -
    done
}

# Both proxies, with nothing held.
through_start() {
    rm -rf "$WORK/store" "$WORK/mirror"
    free_port && mirror_port=$PORT
    mkdir -p "$WORK/mirror"
    sed "s|$WORK/registry\$|$WORK/mirror|; s|:$registry_port|:$mirror_port|" \
        "$WORK/registry.yml" >"$WORK/mirror.yml"
    printf 'proxy:\n  remoteurl: http://%s\n' "$registry" >>"$WORK/mirror.yml"
    docker-registry serve "$WORK/mirror.yml" >"$WORK/mirror.log" 2>&1 &
    mirror_pid=$!
    started "$mirror_pid"
    wait_for 20 curl -s "http://127.0.0.1:$mirror_port/v2/" || die "$(tail -n 3 "$WORK/mirror.log")"
    configure
    printf 'pull_through = true\n' >>"$WORK/moonlet.toml"
    moonlet_start "$WORK/moonlet.toml" "$admin_port" "$WORK/moonlet.log"
}

# pull_by_skopeo HOST FILE: the seconds go to FILE.
pull_by_skopeo() {
    rm -rf "$WORK/copy"
    stopwatch "$2" skopeo copy --quiet --src-tls-verify=false \
        "docker://$1/bench/sync:1" "dir:$WORK/copy"
    rm -rf "$WORK/copy"
}

# The same by a containerd with nothing in it, layers unpacked. It says for which registry it asks.
pull_by_containerd() {
    place=$WORK/containerd
    mkdir -p "$place/hosts/registry.test"
    printf 'server = "http://%s"\n[host."http://%s"]\ncapabilities = ["pull", "resolve"]\n' \
        "$1" "$1" >"$place/hosts/registry.test/hosts.toml"
    cat >"$place/config.toml" <<END
version = 2
root = "$place/root"
state = "$place/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
[grpc]
address = "$place/sock"
END
    containerd -c "$place/config.toml" >"$place/log" 2>&1 &
    containerd_pid=$!
    started "$containerd_pid"
    wait_for 20 ctr -a "$place/sock" version || die "containerd: $(tail -n 3 "$place/log")"
    stopwatch "$2" ctr -a "$place/sock" images pull --hosts-dir "$place/hosts" \
        --snapshotter native --platform linux/amd64 registry.test/bench/sync:1
    stop "$containerd_pid"
    rm -rf "$place"
}

# 50 clients that ask for one cold blob at once.
serve_herd() {
    rm -rf "$WORK/store"
    configure
    printf 'pull_through = true\n' >>"$WORK/moonlet.toml"
    start_moonlet
    quiet=$(memory_now "$MOONLET_PID")
    size=$(curl -sfI "http://$registry/v2/bench/app/blobs/$big" |
        awk 'tolower($1) == "content-length:" { print $2 + 0 }')
    clients=
    for _ in $(seq 50); do
        curl -sf -o /dev/null "http://127.0.0.1:$serve_port/v2/bench/app/blobs/$big" &
        clients="$clients $!"
    done
    failed=0
    for client in $clients; do
        wait "$client" || failed=$((failed + 1))
    done
    [ "$failed" -eq 0 ] || die "herd: $failed of 50 clients were not served"
    fetched=$(moonlet_metric "$admin_port" moonlet_fetch_body_bytes_total)
    title "50 clients and one cold 100 MiB blob"
    limit "bytes from the registry per byte" "$(ratio "$fetched" "$size")" "" 1.00
    limit "resident at most (VmHWM)" "$(in_mebibytes "$(memory_peak "$MOONLET_PID")")" MiB 12
    row "before the first client" "$(in_mebibytes "$quiet") MiB" - - - -
}

# Connections that do nothing, and heads that do not end.
serve_idle() {
    title "1,000 idle connections and 200 slow heads"
    python3 tests/bench/idle.py "$serving_pid" "$serve_port" \
        "/v2/bench/app/manifests/1" >"$WORK/idle" || die "idle.py failed"
    while IFS="$(printf '\t')" read -r name value unit target; do
        if [ -n "$target" ]; then
            limit "$name" "$value" "$unit" "$target"
        else
            row "$name" "$value $unit" - - - -
        fi
    done <"$WORK/idle"
}

figure_serve() {
    start_registry
    seed app 2 3
    # Another layer, of 100 MiB.
    layout=$WORK/layout
    skopeo copy --quiet --src-tls-verify=false "docker://$registry/bench/app:1" "oci:$layout:app"
    random_file "$WORK/root/srv/big" 100
    image_layer "$layout" app "$WORK/root"
    rm -rf "$WORK/root"
    push "$layout" app "$registry/bench/app:1"
    rm -rf "$layout"
    serve_certificate
    start_nginx
    digest=$(remote_digest "$registry/bench/app:1")
    digest=sha256:$digest
    big=$(jq -r '.layers[-1].digest' "$WORK/www/manifest")
    mv "$WORK/www/blob" "$WORK/www/blob-3"
    curl -sf -o "$WORK/www/blob-100" "http://$registry/v2/bench/app/blobs/$big"

    for part in ${PARTS:-plain idle tls herd}; do
        case "$part" in
        plain)
            serve_moonlet plain bench/app:1
            scheme=http
            title "requests/s and MB/s"
            serve_rows "$nginx_port" registry
            ;;
        idle)
            serve_moonlet plain bench/app:1
            serve_idle
            ;;
        tls)
            serve_moonlet tls bench/app:1
            scheme=https
            title "the same with TLS 1.3"
            serve_rows "$nginx_tls_port"
            printf '%-36s %s\n' "TLS in the kernel" "$(kernel_tls)"
            ;;
        herd) serve_herd ;;
        *) die "PARTS: $part: expected plain, idle, tls or herd" ;;
        esac
        stop "$MOONLET_PID"
        rm -rf "$WORK/store"
    done
    stop "$nginx_pid"
    stop "$REGISTRY_PID"
    rm -rf "$WORK/store" "$WORK/registry" "$WORK/www"
}

# Whether this kernel could encrypt what sendfile sends.
kernel_tls() {
    if modprobe --quiet tls 2>/dev/null || grep -qs tls /proc/sys/net/ipv4/tcp_available_ulp; then
        echo "is there: not used by any of them"
    else
        echo "is not in this kernel (no module tls): not measured"
    fi
}
