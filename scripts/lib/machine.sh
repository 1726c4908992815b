# shellcheck shell=bash
# A virtual bare-metal machine for a person to play with, and the way into it.
#
# Needs log.sh and qemu.sh, and ROOT. Sets MACHINE_DIR, MACHINE_PORT and LODGE_CONFIG_DIR.

# machine_start ACCEL FIRMWARE MEDIUM MEMORY_MIB PASSWORD
machine_start() {
    local accel=$1 firmware=$2 medium=$3 memory=$4 password=$5
    MACHINE_DIR=$(mktemp -d -t lodge-machine.XXXXXX)
    MACHINE_PORT=$(machine_free_port)
    export LODGE_CONFIG_DIR=$MACHINE_DIR/config
    machine_seed "$password"
    local options=(
        -name lodge -machine q35 -accel "$accel" -cpu "$(qemu_cpu "$accel")" -smp "$(qemu_processors "$accel")" -m "$memory"
        -nodefaults -display none -vga std -rtc base=utc
        -serial "file:$MACHINE_DIR/console.log"
        -qmp "unix:$MACHINE_DIR/qmp,server=on,wait=off" -pidfile "$MACHINE_DIR/pid"
        -netdev "user,id=net0,hostfwd=tcp:127.0.0.1:$MACHINE_PORT-:443" -device "virtio-net-pci,netdev=net0"
        -device "qemu-xhci,id=usb"
        -drive "if=none,id=seed,format=raw,readonly=on,file=$MACHINE_DIR/seed.img"
        -device "usb-storage,bus=usb.0,drive=seed,removable=on"
        -drive "if=none,id=medium,format=raw,readonly=on,file=$ROOT/build/lodge.iso$([[ $medium == cd ]] && echo ,media=cdrom)"
    )
    case $medium in
        cd) options+=(-device "ide-cd,drive=medium,bootindex=0") ;;
        usb) options+=(-device "usb-storage,bus=usb.0,drive=medium,removable=on,bootindex=0") ;;
    esac
    [[ $firmware == bios ]] || options+=(-bios /usr/share/ovmf/OVMF.fd)
    say "Booting the ISO ($firmware, $medium, $accel)"
    qemu-system-x86_64 "${options[@]}" -daemonize
    note "the console is in $MACHINE_DIR/console.log"
}

# machine_free_port : a TCP port of the loopback address that nobody uses now.
machine_free_port() {
    local port
    while :; do
        port=$((20000 + RANDOM % 20000))
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
    done
    echo "$port"
}

# machine_seed PASSWORD : a stick that names the host and sets the administrator's password.
machine_seed() {
    local image=$MACHINE_DIR/seed.img
    printf 'hostname = "lodge-demo"\n[admin]\npassword = "%s"\n' "$1" >"$MACHINE_DIR/seed.toml"
    truncate -s 4M "$image"
    mkfs.vfat -n LODGE-SEED "$image" >/dev/null
    mcopy -i "$image" "$MACHINE_DIR/seed.toml" ::/seed.toml
    MACHINE_PASSWORD=$1
}

# machine_alive : whether the machine is still on.
machine_alive() {
    [[ -s $MACHINE_DIR/pid ]] && kill -0 "$(<"$MACHINE_DIR/pid")" 2>/dev/null
}

# machine_follow PATTERN : waits until the console says it; gives up when the console is silent for two minutes.
machine_follow() {
    local line console reader status=0
    # tail ends when the machine does.
    exec {console}< <(exec tail -n +1 -f --pid="$(<"$MACHINE_DIR/pid")" "$MACHINE_DIR/console.log")
    reader=$!
    while read -r -t 120 line <&"$console" || { status=$? && false; }; do
        [[ ! $line =~ $1 ]] || break
    done
    exec {console}<&-
    kill "$reader" 2>/dev/null || true
    [[ $status -ne 1 ]] || machine_failed "the machine ended"
    # What `read` says when its time is over.
    [[ $status -le 128 ]] || machine_failed "the console is silent"
}

# machine_failed WHY : ends with the console's last words.
machine_failed() {
    tail -n 30 "$MACHINE_DIR/console.log" >&2
    die "$1 before Lodge was ready"
}

# machine_wait_ready : waits for the API and adds the machine as the default remote.
machine_wait_ready() {
    local fingerprint
    machine_follow 'URL: *https://'
    # The line after it.
    machine_follow 'Certificate: *[0-9A-F:]{95}'
    fingerprint=$(sed -n 's/.*Certificate: *\([0-9A-F:]\{95\}\).*/\1/p' "$MACHINE_DIR/console.log" | tail -n 1)
    "$ROOT/build/lodge" remote add demo "https://127.0.0.1:$MACHINE_PORT" --fingerprint "$fingerprint" \
        --password-stdin <<<"$MACHINE_PASSWORD"
}

# machine_wait_guest VM PATTERN : waits until the guest's console says it.
machine_wait_guest() {
    say "Waiting for the guest"
    # grep ends at the first match, and the console then for want of a reader: only grep's answer counts.
    grep -m 1 -a "$2" < <(timeout 600 "$ROOT/build/lodge" vm console "$1" </dev/null 2>/dev/null) ||
        die "the guest did not say $2 within ten minutes"
}

# machine_shutdown : in order, through the API.
machine_shutdown() {
    say "Shutting down"
    "$ROOT/build/lodge" system shutdown --yes
    ! machine_alive || timeout 180 tail -f --pid="$(<"$MACHINE_DIR/pid")" /dev/null ||
        die "the machine is still on three minutes after the shutdown began"
}

# machine_stop : what a trap calls.
machine_stop() {
    machine_alive && kill "$(<"$MACHINE_DIR/pid")"
    rm -rf "$MACHINE_DIR"
}

# machine_say_how : how to reach the machine from another terminal.
machine_say_how() {
    cat <<TEXT
In another terminal:
  export LODGE_CONFIG_DIR=$LODGE_CONFIG_DIR
  $ROOT/build/lodge vm list              # and vm --help, event monitor, system show
  $ROOT/build/lodge tui                  # the full-screen console
  curl -k https://127.0.0.1:$MACHINE_PORT/v1       # user admin, password $MACHINE_PASSWORD
TEXT
}

# machine_say_end : for --keep.
machine_say_end() {
    echo "The machine runs on. To end it: $ROOT/build/lodge system shutdown --yes, or kill $(<"$MACHINE_DIR/pid")"
}
