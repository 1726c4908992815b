# shellcheck shell=bash
# Installs the Debian packages that the scripts need, and only those that are missing.
#
#   install_packages build run      # groups: build, guests, kernel, fuzz, jail, sign, run, bench, test
#
# Needs log.sh.

# What each group is for. A package may be in several groups.
declare -A INSTALL_GROUPS=(
    # scripts/build: the static binary (C parts of the TLS library need a compiler) and the ISO.
    [build]="binutils ca-certificates cpio file gcc git grub-common kmod libc6-dev mtools pkg-config xorriso xz-utils zstd"
    # guest-images/build: a kernel, an initramfs with a small program in C, and a Debian disk.
    [guests]="binutils cpio debootstrap e2fsprogs gcc grub-common kmod libc6-dev lz4 mtools qemu-utils xz-utils zstd"
    # buildroot-config/check-fragment: the kernel's configuration programs.
    [kernel]="bison flex gcc libc6-dev make xz-utils"
    # scripts/fuzz: libFuzzer is C++.
    [fuzz]="g++ gcc libc6-dev"
    # scripts/jail-usage: sees what monitors ask of the kernel.
    [jail]="strace"
    # scripts/sign: signatures that updates are checked by.
    [sign]="minisign"
    # scripts/run: a virtual bare-metal machine and its firmware.
    [run]="curl dosfstools iproute2 jq mtools ovmf qemu-system-x86 qemu-utils seabios socat"
    # scripts/bench: beside what scripts/run needs.
    [bench]="binutils bsdextrautils cpio e2fsprogs fio gzip iperf3 jq ovmf qemu-system-x86 seabios xorriso zstd"
    # scripts/test: what drives the machine from outside.
    [test]="busybox-static cpio curl dnsmasq-base dosfstools e2fsprogs fdisk iproute2 jq libjpeg-turbo-progs minisign mtools nfs-ganesha nfs-ganesha-vfs openssl procps python3 python3-botocore qemu-utils shellcheck socat tmux vncsnapshot xfsprogs xorriso"
)

# install_missing PACKAGE... : prints those that are not installed, one a line.
install_missing() {
    local package status
    for package in "$@"; do
        status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
        [[ $status == installed ]] || printf '%s\n' "$package"
    done
}

# install_packages GROUP... : makes sure that every package of the groups is there.
# Nothing missing: needs neither root nor the network, and says nothing.
install_packages() {
    local group packages=() missing=()
    for group in "$@"; do
        [[ -n ${INSTALL_GROUPS[$group]:-} ]] || die "install_packages: no group '$group'"
        read -r -a group_packages <<<"${INSTALL_GROUPS[$group]}"
        packages+=("${group_packages[@]}")
    done
    command -v dpkg-query >/dev/null || die "this script sets up Debian 12 machines; on another system install by hand: ${packages[*]}"
    mapfile -t missing < <(install_missing "${packages[@]}" | sort -u)
    [[ ${#missing[@]} -gt 0 ]] || return 0
    install_check_machine "${missing[@]}"
    say "Installing ${#missing[@]} Debian packages: ${missing[*]}"
    install_apt "${missing[@]}"
    # A package from elsewhere may have had to go for them: a newer qemu-utils goes for Debian's qemu-system-x86.
    mapfile -t missing < <(install_missing "${packages[@]}" | sort -u)
    [[ ${#missing[@]} -eq 0 ]] || install_apt "${missing[@]}"
}

# install_check_machine PACKAGE... : ends with advice where installing cannot work.
install_check_machine() {
    local id=""
    # shellcheck source=/dev/null
    [[ -r /etc/os-release ]] && id=$(. /etc/os-release && printf '%s %s' "${ID:-}" "${VERSION_ID:-}")
    [[ $id == "debian 12" ]] || note "this is '${id:-unknown}', not Debian 12: package names may differ"
    [[ $(id -u) -eq 0 ]] || die "these Debian packages are missing and installing them needs root: $*
       run as root, or: sudo apt-get install --no-install-recommends $*"
}

# install_apt PACKAGE... : one index refresh, then the installation, without questions and without starting services: tests
# start those that they need.
install_apt() {
    local log policy=/usr/sbin/policy-rc.d ours=no failed=no
    log=$(mktemp)
    export DEBIAN_FRONTEND=noninteractive
    if [[ ! -e $policy ]]; then
        ours=yes
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod +x "$policy"
    fi
    { apt-get -q update && apt-get -q -y install --no-install-recommends "$@"; } >"$log" 2>&1 </dev/null || failed=yes
    [[ $ours == no ]] || rm -f "$policy"
    [[ $failed == no ]] || tail -n 20 "$log" >&2
    rm -f "$log"
    [[ $failed == no ]] || die "apt-get could not install: $*"
}

# install_check_rust : Rust is the one thing the scripts do not install.
install_check_rust() {
    if ! command -v cargo >/dev/null && [[ -r $HOME/.cargo/env ]]; then
        # shellcheck source=/dev/null
        . "$HOME/.cargo/env"
    fi
    command -v cargo >/dev/null || die "no cargo: install the Rust toolchain with rustup (https://rustup.rs), then run this again"
}
