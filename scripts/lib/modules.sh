# shellcheck shell=bash
# Chooses kernel modules by name, with everything they depend on, from the tree of a Debian kernel package.
#
#   modules_index TREE                      # prints a folder with modules.dep and its kin for the whole package
#   modules_install TREE LIST DESTINATION   # copies the modules which LIST names, and their own indexes
#
# Needs log.sh, packages.sh and CACHE.

# modules_release TREE : the kernel release, such as 6.12.95+deb12-amd64.
modules_release() {
    local dir
    for dir in "$1"/lib/modules/*/ "$1"/usr/lib/modules/*/; do
        [[ -d $dir/kernel ]] && basename "$dir" && return 0
    done
    die "no kernel modules in $1"
}

# modules_dir TREE : the folder that holds the module tree of that release.
modules_dir() {
    local release dir
    release=$(modules_release "$1")
    for dir in "$1/lib/modules/$release" "$1/usr/lib/modules/$release"; do
        [[ -d $dir ]] && printf '%s\n' "$dir" && return 0
    done
}

# modules_index TREE : Debian leaves running depmod to the installed machine, so it is done here, once per package.
modules_index() {
    local tree=$1 release index
    release=$(modules_release "$tree")
    index=$CACHE/depmod/$(basename "$tree")
    if [[ ! -d $index ]]; then
        note "indexing the modules of $release"
        rm -rf "$index.part"
        mkdir -p "$index.part/lib/modules"
        ln -s "$(modules_dir "$tree")" "$index.part/source"
        cp -rs "$(modules_dir "$tree")" "$index.part/lib/modules/$release"
        depmod -b "$index.part" "$release" || die "depmod failed on $tree"
        mv "$index.part" "$index"
    fi
    printf '%s\n' "$index/lib/modules/$release"
}

# modules_names LIST [WORD] : the names in a list file, or only those of groups whose header has the word. A leading "!"
# means the groups that do not have it.
modules_names() {
    awk -v word="${2:-}" '
        BEGIN { without = sub(/^!/, "", word) }
        { sub(/#.*/, "") }
        /^\[/ { gsub(/[][]/, " "); group = $0 " "; next }
        NF && (word == "" || (index(group, " " word " ") > 0) != without) { print $1 }' "$1"
}

# modules_resolve INDEX : reads names on stdin, prints the files that are needed, relative to the module tree,
# sorted. Follows modules.dep and both kinds of soft dependency, whose names may be aliases.
modules_resolve() {
    awk -v index_dir="$1" '
        function key(name) { gsub(/-/, "_", name); return name }
        function base(path) { sub(/.*\//, "", path); sub(/\.ko.*/, "", path); return key(path) }
        function want(name,    i, parts, n) {
            name = key(name)
            if (name in seen) return
            seen[name] = 1
            if (!(name in file)) return
            print file[name]
            n = split(depends[name], parts, " ")
            for (i = 1; i <= n; i++) want(base(parts[i]))
            n = split(soft[name], parts, " ")
            for (i = 1; i <= n; i++) want_soft(parts[i])
        }
        # A soft dependency that does not exist is allowed to be missing.
        function want_soft(name,    i, parts, n) {
            if (key(name) in file) { want(name); return }
            n = split(alias[name], parts, " ")
            for (i = 1; i <= n; i++) want(parts[i])
        }
        BEGIN {
            while ((getline line < (index_dir "/modules.dep")) > 0) {
                split(line, halves, ":")
                name = base(halves[1])
                file[name] = halves[1]
                depends[name] = halves[2]
            }
            while ((getline line < (index_dir "/modules.alias")) > 0) {
                split(line, words, " ")
                if (words[1] == "alias") alias[words[2]] = alias[words[2]] " " words[3]
            }
            while ((getline line < (index_dir "/modules.softdep")) > 0) {
                n = split(line, words, " ")
                if (words[1] != "softdep") continue
                for (i = 3; i <= n; i++) if (words[i] !~ /:$/) soft[key(words[2])] = soft[key(words[2])] " " words[i]
            }
            while ((getline line < (index_dir "/modules.builtin")) > 0) builtin[base(line)] = 1
        }
        {
            name = key($1)
            if (name in file) want(name)
            else if (!(name in builtin)) { print "missing: " $1 > "/dev/stderr"; failed = 1 }
        }
        END { exit failed }' | sort -u
}

# modules_slim FILE : takes out of a module what only costs time when it is loaded. Counted in instructions, these three
# are most of it: checking the signature (nothing relies on it, because the image is trusted or not as a whole, and the
# kernel takes modules without one), parsing BTF, and writing names for numbers into the texts of trace points.
modules_slim() {
    objcopy --remove-section=.BTF --remove-section=_ftrace_eval_map "$1"
}

# modules_copy INDEX TARGET : copies the modules whose paths are read on stdin, unpacked.
modules_copy() {
    local index=$1 target=$2 path
    while read -r path; do
        mkdir -p "$target/$(dirname "$path")"
        case $path in
            *.xz) xz -dc "$index/$path" >"$target/${path%.xz}" ;;
            *) cat "$index/$path" >"$target/$path" ;;
        esac
        modules_slim "$target/${path%.xz}"
    done
}

# modules_copy_cold INDEX TARGET : copies them as the package has them, except those that are there already.
modules_copy_cold() {
    local index=$1 target=$2 path
    while read -r path; do
        [[ ! -e $target/${path%.xz} ]] || continue
        mkdir -p "$target/$(dirname "$path")"
        cat "$index/$path" >"$target/$path"
    done
}

# modules_install TREE LIST DESTINATION : fills DESTINATION/lib/modules/RELEASE.
# Modules are stored unpacked: loading one at boot is then a plain finit_module, and the archive around them is compressed
# as a whole. Those of a "cold" group stay packed as Debian packs them, because most machines load none of them, and
# what is unpacked costs every machine time at boot and memory ever after; the kernel itself unpacks what it is given.
modules_install() {
    local tree=$1 list=$2 destination=$3 index release target
    index=$(modules_index "$tree")
    release=$(modules_release "$tree")
    target=$destination/lib/modules/$release
    mkdir -p "$target"
    if ! modules_names "$list" '!cold' | modules_resolve "$index" >"$destination.hot" ||
        ! modules_names "$list" cold | modules_resolve "$index" >"$destination.cold"; then
        die "$list names modules that kernel $release does not have (above)"
    fi
    modules_copy "$index" "$target" <"$destination.hot"
    modules_copy_cold "$index" "$target" <"$destination.cold"
    cp "$index/modules.builtin" "$index/modules.builtin.modinfo" "$index/modules.order" "$target/"
    depmod -b "$destination" "$release"
    # The binary indexes are for kmod; `lodge init` and busybox read the text. depmod writes some empty ones too.
    rm -f "$target"/*.bin "$target"/modules.{order,symbols,devname,weakdep} "$destination".{hot,cold}
    note "modules for $release: $(find "$target" -name '*.ko' | wc -l) unpacked, $(find "$target" -name '*.ko.xz' | wc -l) packed, $(du -sm "$target" | cut -f1) MiB in all"
}
