# The same commands on kind, for machines that have Docker. kind is built from its Go module, so that its version and
# the node image of kind-config.yaml go together.

up_kind() {
    [ $# = 0 ] || die "up --kind takes nothing more, not $1"
    docker info >/dev/null 2>&1 || die "kind needs Docker, and no Docker engine answers here; tests/cluster up needs none"
    refuse_second_up
    build_all kind
    build_program kubernetes
    build_program helm
    mkdir -p "$RUN"
    echo "streampress-$NAME" >"$RUN/kind"
    run_kind create cluster --name "streampress-$NAME" --config "$REPO/kind-config.yaml" --kubeconfig "$RUN/kubeconfig" --wait 120s ||
        die "kind could not start a cluster; clean up with: tests/cluster$(name_option) down"
    run_kind load image-archive "$(toolbox_dir)/toolbox.tar" --name "streampress-$NAME"
    apply_localstack
}

run_kind() { "$(program_dir kind)/kind" "$@"; }

down_kind() { run_kind delete cluster --name "$(cat "$RUN/kind")" --kubeconfig "$RUN/kubeconfig"; }
