# Entering a running cluster: its network only (kubectl, tests) or all its namespaces (ctr); logs and status.

# True while the cluster's first process lives.
node_runs() {
    [ -e "$RUN/node.pid" ] && alive $(cat "$RUN/node.pid") && [ -n "$(first_process)" ]
}

# The pid of node.sh in the machine's pid namespace; no process before it has another pid namespace.
first_process() {
    local parent child _
    read -r parent _ <"$RUN/node.pid"
    child=$(tr -d ' ' <"/proc/$parent/task/$parent/children") 2>/dev/null || return 0
    [ -n "$child" ] || return 0
    [ "$(namespace_of "$child")" = "$(namespace_of self)" ] || echo "$child"
}

namespace_of() { readlink "/proc/$1/ns/pid" || readlink /proc/self/ns/pid; } 2>/dev/null

require_cluster() {
    [ -e "$RUN" ] || die "there is no cluster $NAME; start it with: tests/cluster$(name_option) up"
    [ -e "$RUN/kind" ] || node_runs || die "cluster $NAME has ended; clean up with: tests/cluster$(name_option) down"
}

in_net() {
    if [ -e "$RUN/kind" ]; then "$@"; else nsenter --target "$(first_process)" --net "$@"; fi
}

in_node() { nsenter --target "$(first_process)" --net --mount --pid "$@"; }

# kubectl with a timeout, for loops that run while the API server may be down.
kubectl() { KUBECACHEDIR=$RUN/kubectl-cache in_net "$(program_dir kubernetes)/kubectl" --kubeconfig "$RUN/kubeconfig" --request-timeout=20s "$@"; }

# Replaces this process by the command, which so has its signals, its exit code and its terminal.
become() {
    local tools
    tools=$(program_dir kubernetes):$(program_dir helm)
    export PATH=$tools:$PATH KUBECONFIG=$RUN/kubeconfig STREAMPRESS_CLUSTER=$RUN STREAMPRESS_CLUSTER_NAME=$NAME
    STREAMPRESS_IMAGE=${STREAMPRESS_IMAGE:-$(project_image)}
    export STREAMPRESS_IMAGE
    # Their caches belong to this cluster, not to the user's home.
    export KUBECACHEDIR=$RUN/kubectl-cache HELM_CACHE_HOME=$RUN/helm/cache HELM_CONFIG_HOME=$RUN/helm/config HELM_DATA_HOME=$RUN/helm/data
    [ -e "$RUN/kind" ] && exec "$@"
    exec nsenter --target "$(first_process)" --net "$@"
}

run_kubectl() { become "$(program_dir kubernetes)/kubectl" "$@"; }
run_helm() { become "$(program_dir helm)/helm" "$@"; }
run_exec() { [ $# -gt 0 ] || die "exec needs a command"; become "$@"; }
run_shell() { say "inside cluster $NAME; leave with exit"; become "${SHELL:-/bin/bash}"; }

build() {
    if [ "${1:-}" = kind ]; then build_all kind; program_dir kind; return; fi
    build_all
    build_localstack
    build_store base
    build_store localstack
}

logs() {
    require_cluster
    [ -n "${1:-}" ] || { ls "$RUN/log" | sed -n 's/\.log$//p'; return; }
    [ -e "$RUN/log/$1.log" ] || die "there is no program $1; these have logs: $(ls "$RUN/log" | sed -n 's/\.log$//p' | tr '\n' ' ')"
    cat "$RUN/log/$1.log"
}

status() {
    [ -e "$RUN" ] || { echo "cluster $NAME: not there"; return 3; }
    [ -e "$RUN/kind" ] && { echo "cluster $NAME: on kind"; kubectl get nodes; return; }
    node_runs || { echo "cluster $NAME: ended, not cleaned"; return 4; }
    local name pid state
    while read -r name pid; do
        state=runs
        in_node kill -0 "$pid" 2>/dev/null || state="HAS ENDED (tests/cluster$(name_option) logs $name)"
        printf '%-26s %s\n' "$name" "$state"
    done <"$RUN/components"
    printf '%-26s %s\n' "memory, all processes" "$(memory_mib) MiB" "disk, outside the cache" "$(du -sxm "$RUN" | cut -f1) MiB"
    kubectl get nodes,pods -A 2>&1 || true
}

# The memory of the cluster's processes, pods' too; shared pages are counted once.
memory_mib() {
    local p sum=0 pss
    for p in $(node_processes); do
        pss=$(awk '/^Pss:/ {print $2}' "/proc/$p/smaps_rollup" 2>/dev/null) || true
        sum=$((sum + ${pss:-0}))
    done
    echo $((sum / 1024))
}

# All processes in the cluster's pid namespace and those made under it.
node_processes() {
    local init
    init=$(first_process)
    [ -n "$init" ] || return 0
    awk -v root="$init" '
        FNR == 1 { line = $0; sub(/^.*\) /, "", line); split(line, f, " "); split(FILENAME, n, "/"); parent[n[3]] = f[2] }
        END { for (p in parent) { q = p; while (q != "" && q != root && q > 1) q = parent[q]; if (q == root) print p } }
    ' /proc/[0-9]*/stat 2>/dev/null || true
}
