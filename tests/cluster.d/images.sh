# The image of the project's programs with the layout of deploy/Dockerfile, made without a container engine.

# The default image of pipelines and chart; its tag is the workspace's version.
project_image() {
    echo "ghcr.io/streampress/streampress:$(sed -n 's/^version = "\(.*\)"/\1/p' "$REPO/Cargo.toml" | head -1)"
}

# The same as in deploy/Dockerfile; tests/image.rs compares them.
IMAGE_USER=65532:65532
IMAGE_ENTRYPOINT=/usr/local/bin/streampress
IMAGE_WORKDIR=/data
IMAGE_ENV="PATH=/usr/local/bin SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"

load_image() {
    local profile=release bin_dir= image= began
    while [ $# -gt 0 ]; do
        case $1 in
        --dist | --release | --debug) profile=${1#--} ;;
        --bin-dir) bin_dir=${2:?--bin-dir needs a folder}; shift ;;
        --image) image=${2:?--image needs a name}; shift ;;
        *) die "load-image takes --dist, --release, --debug, --bin-dir DIR and --image NAME:TAG, not $1" ;;
        esac
        shift
    done
    require_cluster
    began=$(now_ms)
    [ -n "$image" ] || image=$(project_image)
    [ -n "$bin_dir" ] || { build_project $profile; bin_dir=$(target_dir)/$profile; }
    make_project_image "$bin_dir" "$image" "$RUN/project.tar"
    if [ -e "$RUN/kind" ]; then
        run_kind load image-archive "$RUN/project.tar" --name "$(cat "$RUN/kind")"
    else
        import "$RUN/project.tar" >/dev/null
    fi
    rm "$RUN/project.tar"
    say "cluster $NAME has $image after $(seconds_since "$began") s"
}

# The workspace's own programs that go into the image: the worker, and the operator.
build_project() {
    local bins=(-p streampress --bin streampress --features streampress/aws,streampress/kubernetes,streampress/otlp)
    [ ! -d "$REPO/operator" ] || bins+=(-p streampress-operator --bin streampress-operator)
    (cd "$REPO" && cargo build --profile "${1/debug/dev}" "${bins[@]}") || die "the programs did not build"
}

target_dir() { echo "${CARGO_TARGET_DIR:-$REPO/target}"; }

make_project_image() {
    local bin_dir=$1 image=$2 out=$3 root programs=("$1/streampress") variable env=()
    [ -x "$bin_dir/streampress" ] || die "there is no program streampress in $bin_dir"
    [ ! -x "$bin_dir/streampress-operator" ] || programs+=("$bin_dir/streampress-operator")
    root=$(mktemp -d "$RUN/image.XXXXXX")
    "$REPO/deploy/image-root.sh" "$root" "${programs[@]}" || die "the image's root could not be laid out"
    for variable in $IMAGE_ENV; do env+=(--env "$variable"); done
    chmod 755 "$root"
    python3 "$HERE/image.py" --name "$image" --tree "$root" --keep-owners --user $IMAGE_USER --workdir $IMAGE_WORKDIR \
        --entrypoint $IMAGE_ENTRYPOINT "${env[@]}" "$out" || die "the image could not be written"
    rm -rf "$root"
}
