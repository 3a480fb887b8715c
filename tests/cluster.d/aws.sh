# LocalStack inside the cluster, from the same manifests that users apply.

up_localstack() {
    local began
    began=$(now_ms)
    apply_localstack
    say "LocalStack listens at http://localstack.localstack:4566 after $(seconds_since "$began") s more"
}

apply_localstack() {
    kubectl apply -k "$REPO/deploy/localstack" >/dev/null
    wait_for 240 "LocalStack to be ready" kubectl -n localstack rollout status deployment/localstack --timeout 10s || {
        kubectl -n localstack describe pods >&2 || true
        kubectl -n localstack logs deployment/localstack --tail 30 >&2 || true
        die "LocalStack did not become ready"
    }
}
