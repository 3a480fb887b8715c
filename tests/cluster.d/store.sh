# The images that every cluster starts with, unpacked once into the cache. A starting cluster lays them into its own
# containerd folder by mounts that only it sees: nothing is copied, and nothing but a name is removed when it ends.
# (Importing LocalStack's image took 8 s of every start, and removing its files up to a minute of every end.)

# The archives that a cluster needs: base, or localstack.
store_archives() {
    echo "$(program_dir pause)/pause.tar"
    echo "$(toolbox_dir)/toolbox.tar"
    [ "$1" = base ] || echo "$(localstack_dir)/localstack.tar"
}

store_dir() {
    local hash
    hash=$({ store_archives "$1"; program_dir containerd; cat "$HERE/store.sh"; } | sha256sum | cut -c1-10)
    echo "$CACHE/images-$1-v1-$hash"
}

build_store() {
    local dir temp began lock
    dir=$(store_dir "$1")
    [ -d "$dir" ] && return
    exec {lock}>"$CACHE/store.lock"
    flock "$lock"
    [ -d "$dir" ] && { exec {lock}>&-; return 0; }
    began=$(now_ms)
    temp=$dir.building
    rm -rf "$temp"
    mkdir -p "$temp/root" "$temp/state"
    cat >"$temp/containerd.toml" <<E
version = 3
root = "$temp/root"
state = "$temp/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime"]
[grpc]
  address = "$temp/state/containerd.sock"
[plugins.'io.containerd.internal.v1.opt']
  path = "$temp/state/opt"
[plugins.'io.containerd.nri.v1.nri']
  disable = true
E
    store_archives "$1" | unshare --pid --mount --fork --kill-child --mount-proc bash -euo pipefail -c '
        bin=$1 temp=$2
        mount -t tmpfs tmpfs /run
        "$bin/containerd" -c "$temp/containerd.toml" >"$temp/log" 2>&1 </dev/null &
        for _ in $(seq 600); do [ -S "$temp/state/containerd.sock" ] && break; sleep 0.1; done
        while read -r archive; do
            "$bin/ctr" -a "$temp/state/containerd.sock" -n k8s.io images import --local "$archive"
        done >>"$temp/log" 2>&1
        kill %1
        wait || true
    ' store "$(program_dir containerd)" "$temp" {lock}>&- || { tail -20 "$temp/log" >&2; die "the images could not be unpacked; the whole log is $temp/log"; }
    rm -rf "$temp/state"
    mv -T "$temp" "$dir"
    forget_older "images-$1" "$dir"
    exec {lock}>&-
    say "unpacked the images that clusters start with in $(seconds_since "$began") s"
}

# A shell and the small programs, for tests that look at a pod from within; the project's image has none.
TOOLBOX_IMAGE=localhost/streampress-toolbox:1

toolbox_dir() {
    local hash
    hash=$(cat "$HERE/image.py" "$HERE/store.sh" | sha256sum | cut -c1-10)
    echo "$CACHE/toolbox-v1-$hash"
}

# Debian's busybox with the C library; a static one could not look up names. The package is only
# unpacked, so that the machine keeps the busybox that it has.
build_toolbox() {
    local dir temp name root library
    dir=$(toolbox_dir)
    [ -d "$dir" ] && return
    temp=$dir.building
    root=$temp/root
    rm -rf "$temp"
    mkdir -p "$temp/package" "$root/bin" "$root/tmp"
    (cd "$temp" && { fetch_busybox || { apt-get update -qq && fetch_busybox; }; }) >"$temp/log" 2>&1 ||
        { cat "$temp/log" >&2; die "Debian's package busybox cannot be fetched"; }
    dpkg-deb -x "$temp"/busybox_*.deb "$temp/package"
    cp "$(find "$temp/package" -type f -path '*/bin/busybox')" "$root/bin/busybox"
    for library in $(ldd "$root/bin/busybox" | awk '/=> \// {print $3} /^[ \t]*\// {print $1}'); do
        mkdir -p "$root$(dirname "$library")"
        cp -L "$library" "$root$library"
    done
    for name in $("$root/bin/busybox" --list); do
        [ "$name" = busybox ] || ln -s busybox "$root/bin/$name"
    done
    chmod 1777 "$root/tmp"
    python3 "$HERE/image.py" --name "$TOOLBOX_IMAGE" --tree "$root" --env PATH=/bin --entrypoint /bin/sh "$temp/toolbox.tar"
    rm -rf "$root" "$temp/package" "$temp"/*.deb
    mv -T "$temp" "$dir"
    forget_older toolbox "$dir"
}

fetch_busybox() { apt-get download -qq -o APT::Sandbox::User=root busybox; }
