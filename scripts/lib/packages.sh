# shellcheck shell=bash
# Pinned Debian packages, fetched through a private apt configuration, so that the machine's own package
# sources stay as they are and the same inputs come out anywhere.
#
#   packages_tree LOCK NAME          # prints the folder that holds NAME's files
#   packages_version LOCK NAME       # prints its pinned version
#   packages_update_lock LIST LOCK   # pins what the mirror has now
#
# LOCK has a line per package: name, version, sha256. LIST has a line per package: name and suite; a name that
# starts with "kernel:" is a metapackage of which the one kernel it depends on is pinned.
# Needs log.sh, and CACHE (a folder for everything that can be fetched again).

PACKAGES_SUITES=(bookworm bookworm-backports bookworm-security)

# packages_mirror SUITE... : the URI which this machine's apt uses for one of the suites.
packages_mirror() {
    local suite
    for suite in "$@"; do
        # The single quotes are meant: apt-get expands these. No `head`: it would end the pipe early and fail apt-get.
        # shellcheck disable=SC2016
        apt-get indextargets --format '$(CREATED_BY) $(RELEASE) $(COMPONENT) $(REPO_URI)' 2>/dev/null |
            awk -v suite="$suite" '!found && $1 == "Packages" && $2 == suite && $3 == "main" { print $4; found = 1 }'
    done | sed -n 1p
}

# packages_sources : the lines of the private sources list.
packages_sources() {
    local main security keyring=/usr/share/keyrings/debian-archive-keyring.gpg options=""
    main=${LODGE_DEBIAN_MIRROR:-$(packages_mirror bookworm stable oldstable bookworm-updates)}
    [[ -n $main ]] || die "this machine's apt has no Debian 'bookworm' source to learn the mirror from; set LODGE_DEBIAN_MIRROR=http://…/debian"
    security=${LODGE_DEBIAN_SECURITY_MIRROR:-$(packages_mirror bookworm-security stable-security oldstable-security)}
    security=${security:-${main%/}-security}
    [[ -r $keyring ]] && options="[signed-by=$keyring] "
    local suite uri
    for suite in "${PACKAGES_SUITES[@]}"; do
        uri=$main
        [[ $suite == bookworm-security ]] && uri=$security
        printf 'deb %s%s %s main\n' "$options" "$uri" "$suite"
    done
}

# packages_apt COMMAND ARGUMENT... : apt-get or apt-cache in the private configuration. The user's proxy and
# transport settings still apply; sources, pins and state do not.
packages_apt() {
    local command=$1 dir=$CACHE/apt
    shift
    "$command" -q \
        -o Dir::State="$dir/state" -o Dir::Cache="$dir/cache" \
        -o Dir::Etc::SourceList="$dir/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts=/dev/null \
        -o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false \
        -o APT::Architecture=amd64 -o APT::Sandbox::User=root -o Acquire::Retries=3 "$@"
}

# packages_refresh : reads the mirror's indexes, once per run of a script.
packages_refresh() {
    local dir=$CACHE/apt log
    # A file and not a variable: the functions here mostly run in subshells, which all see the script's own $$.
    [[ ! -e $dir/refreshed.$$ ]] || return 0
    mkdir -p "$dir/state/lists/partial" "$dir/cache/archives/partial"
    packages_sources >"$dir/sources.list"
    log=$(mktemp)
    if ! packages_apt apt-get update >"$log" 2>&1; then
        tail -n 10 "$log" >&2
        rm -f "$log"
        die "the Debian mirror's indexes could not be read (sources: $dir/sources.list)"
    fi
    rm -f "$log" "$dir"/refreshed.*
    touch "$dir/refreshed.$$"
}

# packages_field LOCK NAME FIELD : field 2 (version) or 3 (sha256) of a locked package.
packages_field() {
    local value
    value=$(awk -v name="$2" -v field="$3" '$1 == name { print $field }' "$1")
    [[ -n $value ]] || die "$1 does not pin the package '$2'; add it to the list beside it and run scripts/build --update-lock"
    printf '%s\n' "$value"
}

packages_version() {
    packages_field "$1" "$2" 2
}

# packages_kernel LOCK : the name of the one kernel package in a lock file.
packages_kernel() {
    awk '/^linux-image-/ { print $1 }' "$1"
}

# packages_fetch LOCK NAME : prints the path of the checked .deb, fetched only when the cache does not have it.
packages_fetch() {
    local lock=$1 name=$2 version sum file
    version=$(packages_field "$lock" "$name" 2)
    sum=$(packages_field "$lock" "$name" 3)
    file=$CACHE/debs/${name}_${version//:/%3a}_$sum.deb
    if [[ ! -e $file ]]; then
        packages_refresh
        packages_download "$lock" "$name" "$version" "$file"
        if ! printf '%s  %s\n' "$sum" "$file.part" | sha256sum --check --status; then
            rm -f "$file.part"
            die "$name $version from the mirror is not the file that $lock pins (sha256 differs); if the mirror is trusted, run scripts/build --update-lock"
        fi
        mv "$file.part" "$file"
    fi
    printf '%s\n' "$file"
}

# packages_download LOCK NAME VERSION FILE : leaves FILE.part.
packages_download() {
    local lock=$1 name=$2 version=$3 file=$4 dir
    mkdir -p "$CACHE/debs"
    dir=$(mktemp -d "$CACHE/debs/fetch.XXXXXX")
    note "fetching $name $version"
    if ! (cd "$dir" && packages_apt apt-get download "$name=$version") >"$dir/log" 2>&1; then
        tail -n 5 "$dir/log" >&2
        rm -rf "$dir"
        die "the mirror no longer has $name $version, which $lock pins.
       Pin the current versions with: scripts/build --update-lock (then look at the difference and commit it)"
    fi
    mv "$dir"/*.deb "$file.part"
    rm -rf "$dir"
}

# packages_tree LOCK NAME : prints the folder with the package's files, unpacked once.
packages_tree() {
    local lock=$1 name=$2 file tree
    file=$(packages_fetch "$lock" "$name")
    tree=$CACHE/trees/$(basename "$file" .deb)
    if [[ ! -d $tree ]]; then
        rm -rf "$tree.part"
        mkdir -p "$tree.part"
        dpkg-deb -x "$file" "$tree.part"
        mv "$tree.part" "$tree"
    fi
    printf '%s\n' "$tree"
}

# packages_resolve NAME SUITE : prints "name version sha256" of what the mirror has.
packages_resolve() {
    local name=$1 suite=$2 version meta
    if [[ $name == kernel:* ]]; then
        meta=${name#kernel:}
        name=$(packages_apt apt-cache depends "$meta/$suite" | awk '$1 == "Depends:" && $2 ~ /^linux-image-/ { print $2 }')
        [[ -n $name ]] || die "$suite has no kernel metapackage '$meta'"
    fi
    # The suite decides between several versions; libraries of a point release are often in two suites at once.
    version=$(packages_apt apt-cache madison "$name" | awk -F' *[|] *' -v suite="$suite" '!found && index($3, " " suite "/main ") { print $2; found = 1 }')
    version=${version// /}
    [[ -n $version ]] || die "$suite has no package '$name'"
    packages_pin "$name" "$version"
}

# packages_pin NAME VERSION : prints the line of a lock file.
packages_pin() {
    local sum
    sum=$(packages_apt apt-cache show "$1=$2" | awk '!found && $1 == "SHA256:" { print $2; found = 1 }')
    [[ -n $sum ]] || die "the mirror has no package '$1' in version $2"
    printf '%s %s %s\n' "$1" "$2" "$sum"
}

# packages_update_lock LIST LOCK : replaces LOCK as a whole or not at all.
packages_update_lock() {
    local list=$1 lock=$2 name suite
    packages_refresh
    {
        printf '# Written by scripts/build --update-lock from %s: name, version, sha256.\n' "$(basename "$list")"
        while read -r name suite; do
            [[ -z $name || $name == \#* ]] || packages_resolve "$name" "$suite"
        done <"$list"
    } >"$lock.new"
    mv "$lock.new" "$lock"
    note "wrote $lock"
}
