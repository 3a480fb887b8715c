# Builds what a cluster runs, once, into the cache: every result is a folder named by version and by a hash of its
# sources, built under another name first, so that an interrupted build is never taken for a complete one.

# Package paths whose programs go into each folder; "." is the folder's own main package.
declare -A PACKAGES=(
    [kubernetes]="."
    [etcd]="go.etcd.io/etcd/server/v3"
    [containerd]=". github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2 github.com/containerd/containerd/v2/cmd/ctr"
    [coredns]="."
    [helm]="helm.sh/helm/v4/cmd/helm"
    [pause]="."
    [kind]="./kindcheck sigs.k8s.io/kind"
)
declare -A MODULES=(
    [kubernetes]=k8s.io/kubernetes [etcd]=go.etcd.io/etcd/server/v3 [containerd]=github.com/containerd/containerd/v2
    [coredns]=github.com/coredns/coredns [helm]=helm.sh/helm/v4 [kind]=sigs.k8s.io/kind
)
PROGRAMS="kubernetes etcd containerd coredns helm kind pause"

# The version that a folder's go.mod pins for the module it is about; pause has none.
version_of() {
    local module=${MODULES[$1]:-}
    [ -n "$module" ] || { echo v1; return; }
    awk -v m="$module" '$1 == "require" && $2 == m {print $3; exit} $1 == m && $2 ~ /^v/ {print $2; exit}' "$HERE/programs/$1/go.mod"
}

# Where the programs of one folder end up.
program_dir() {
    local hash
    hash=$(find "$HERE/programs/$1" -type f | sort | xargs cat | sha256sum | cut -c1-10)
    echo "$CACHE/$1-$(version_of "$1")-$hash"
}

linker_flags() {
    local version=$2 major minor
    printf -- '-s -w'
    [ "$1" = kubernetes ] || return 0
    IFS=. read -r major minor _ <<<"${version#v}"
    printf ' -X k8s.io/component-base/version.%s' "gitVersion=$version" "gitMajor=$major" "gitMinor=$minor"
}

build_program() {
    local name=$1 dir temp began package
    dir=$(program_dir "$name")
    [ -d "$dir" ] && return
    command -v go >/dev/null || die "Go is needed to build $name: install Go 1.26 or later (https://go.dev/dl) and try again"
    began=$(now_ms)
    say "building $name $(version_of "$name") (once; it stays in $CACHE)"
    temp=$dir.building
    rm -rf "$temp"
    mkdir -p "$temp"
    for package in ${PACKAGES[$name]}; do
        (cd "$HERE/programs/$name" && CGO_ENABLED=0 GOFLAGS="-buildvcs=false" GOWORK=off \
            go build -trimpath -mod=readonly -ldflags "$(linker_flags "$name" "$(version_of "$name")")" -o "$temp/" "$package") ||
            die "$name did not build; the lines above say why"
    done
    name_programs "$name" "$temp"
    mv -T "$temp" "$dir"
    forget_older "$name" "$dir"
    say "built $name in $(seconds_since "$began") s"
}

# go build names a program after its package or module; here each gets the name it is called by.
name_programs() {
    local name=$1 dir=$2 program
    case $name in
    kubernetes)
        mv "$dir/kubernetes" "$dir/hyperkube"
        for program in kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet kubectl; do
            ln -s hyperkube "$dir/$program"
        done ;;
    etcd) [ -e "$dir/etcd" ] || mv "$dir/server" "$dir/etcd" ;;
    pause)
        python3 "$HERE/image.py" --name "$PAUSE_IMAGE" --user 65535:65535 --entrypoint /pause --file "$dir/pause=/pause" "$dir/pause.tar" ;;
    esac
}

# Removes results of other versions, unless a cluster runs, which may be using them.
forget_older() {
    local other
    [ ! -e "$RUNS" ] || return 0
    for other in "$CACHE/$1"-v*; do
        [ ! -d "$other" ] || [ "$other" = "$2" ] || rm -rf "$other"
    done
}

# All programs and the toolbox, or the given programs. One build at a time per cache.
build_all() {
    mkdir -p "$CACHE"
    need runc runc /usr/lib/cni/bridge containernetworking-plugins nft nftables ip iproute2 openssl openssl \
        nsenter util-linux python3 python3-minimal /etc/ssl/certs/ca-certificates.crt ca-certificates
    local name lock
    exec {lock}>"$CACHE/build.lock"
    flock -n "$lock" || { say "another build is running in $CACHE; waiting for it"; flock "$lock"; }
    for name in ${*:-$PROGRAMS}; do
        build_program "$name"
    done
    [ $# -gt 0 ] || build_toolbox
    exec {lock}>&-
}
