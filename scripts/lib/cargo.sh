# shellcheck shell=bash
# Compiles for the image: the same flags and the same folder for everything, so that nothing is compiled twice.
#
#   cargo_image ARGUMENT...              # cargo build; what it makes is in $CARGO_IMAGE
#   cargo_checked COMMAND ARGUMENT...    # cargo COMMAND for tests: of our own crates with lints and documentation
#
# Needs log.sh, install.sh and ROOT.

CARGO_TARGET=x86_64-unknown-linux-gnu
# The date that compiled C code may see: any fixed one. With that of the last commit, which the image takes, every commit
# would have the C libraries compiled anew, because their build scripts look at it.
CARGO_EPOCH=1767225600
# A folder of its own: with these flags in the common one, every change between a plain `cargo build` and this would
# compile everything anew.
CARGO_IMAGE_FOLDER=${CARGO_TARGET_DIR:-$ROOT/target}/image
# Read by the scripts.
# shellcheck disable=SC2034
CARGO_IMAGE=$CARGO_IMAGE_FOLDER/$CARGO_TARGET/release

# cargo_for_image COMMAND ARGUMENT...
cargo_for_image() {
    install_check_rust
    # Paths of this machine must not end up in the program: neither the tree's nor cargo's, neither from Rust nor from C.
    local command=$1 cargo_home=${CARGO_HOME:-$HOME/.cargo} rust c
    shift
    # The program relocates itself at every start of a monitor: packed, these relocations are a megabyte and a half less to
    # hold in memory and to read through.
    # Functions that came out the same are kept once, which is half a megabyte.
    rust="-C target-feature=+crt-static -C link-arg=-Wl,-z,pack-relative-relocs -C link-arg=-Wl,--icf=all --remap-path-prefix=$ROOT=/lodge --remap-path-prefix=$cargo_home=/cargo"
    c="-ffile-prefix-map=$ROOT=/lodge -ffile-prefix-map=$cargo_home=/cargo"
    (cd "$ROOT" && SOURCE_DATE_EPOCH=$CARGO_EPOCH RUSTFLAGS=$rust CFLAGS=$c \
        cargo "$command" --release --locked --target "$CARGO_TARGET" --target-dir "$CARGO_IMAGE_FOLDER" "$@")
}

# cargo_image ARGUMENT...
cargo_image() {
    cargo_for_image build "$@" >&2
}

# cargo_own : options with which our own crates are compiled fast, and with every check. Libraries of others stay as they are
# in the image, and so does the name of the profile, which is the folder of what it makes: they are compiled once for both.
cargo_own() {
    local manifest name setting
    for manifest in "$ROOT"/src/*/Cargo.toml "$ROOT"/tests/{,*/}Cargo.toml; do
        name=$(sed -n '/^name = /{s/.*"\(.*\)"/\1/p;q}' "$manifest")
        for setting in opt-level=0 codegen-units=16 debug-assertions=true; do
            printf '%s\n' --config "profile.release.package.$name.$setting"
        done
    done
}

# cargo_checked COMMAND ARGUMENT...
cargo_checked() {
    local tools own
    tools=$(rustc --print sysroot)/bin
    mapfile -t own < <(cargo_own)
    # Warnings are errors; the separator is clippy's own. Without CHECKED_INCREMENTAL=1 nobody compiles a second time.
    CHECKED_CLIPPY=$tools/clippy-driver CHECKED_RUSTDOC=$tools/rustdoc CHECKED_DOC=$CARGO_IMAGE_FOLDER/doc \
        CARGO_INCREMENTAL=${CHECKED_INCREMENTAL:-0} CLIPPY_ARGS="-D__CLIPPY_HACKERY__warnings__CLIPPY_HACKERY__" \
        RUSTC_WORKSPACE_WRAPPER=$ROOT/scripts/lib/rustc-checked \
        cargo_for_image "$1" "${own[@]}" "${@:2}"
}
