# Tests of `up` and `down`: clusters side by side, a second up, a killed up, nothing left behind.

self_test() {
    [ $# = 0 ] || die "self-test takes no arguments"
    local one=selftest-one two=selftest-two said pid mark
    trap "wait; as $one down; as $two down" EXIT
    traces >"${TMPDIR:-/tmp}/streampress-traces.$$"

    say "# two clusters of different names come up at once"
    as $one up --no-localstack &
    pid=$!
    as $two up --no-localstack || failed "the second cluster did not come up"
    wait $pid || failed "the first cluster did not come up"
    as $one kubectl create namespace only-here >/dev/null
    ! as $two kubectl get namespace only-here >/dev/null 2>&1 || failed "the two clusters are one"
    runs_a_pod $one
    runs_a_pod $two

    say "# a second up of the same name is refused and harms nothing"
    said=$(as $one up --no-localstack 2>&1) && failed "a second up went through"
    [[ $said == *"already up"* ]] || failed "a second up prints: $said"
    [ "$(as $one kubectl get nodes --no-headers | wc -l)" = 1 ] || failed "the cluster is gone after a second up"

    say "# ending one leaves the other alone"
    as $one down
    runs_a_pod $two

    say "# down cleans up after an up that was killed half-way"
    # After what up has written, not after a time: on a busy machine a time would kill it before it began.
    for mark in up.pid node.pid namespace components; do
        "$HERE/../cluster" --name $one up --no-localstack >/dev/null 2>&1 &
        pid=$!
        wait_for 120 "up to write $mark" test -e "$RUNS/$one/$mark"
        kill -KILL $pid 2>/dev/null || true
        wait $pid 2>/dev/null || true
        as $one down || failed "down after an up killed when it had written $mark"
    done

    say "# down while up runs ends both"
    "$HERE/../cluster" --name $one up --no-localstack >/dev/null 2>&1 &
    pid=$!
    wait_for 120 "up to start its first process" test -e "$RUNS/$one/node.pid"
    as $one down || failed "down while up was running"
    ! wait $pid 2>/dev/null || failed "up ended with 0"

    say "# a cluster whose first process was killed is reported as ended, and down cleans it"
    kill -KILL "$(cut -d' ' -f1 "$RUNS/$two/node.pid")"
    wait_for 20 "the status to say that it ended" ended $two || failed "status"
    as $two down

    say "# a control plane alone comes up and responds"
    as $one up --control-plane
    as $one kubectl create configmap there --from-literal=a=b >/dev/null || failed "the control plane takes no objects"
    as $one down

    say "# nothing is left"
    traces | diff "${TMPDIR:-/tmp}/streampress-traces.$$" - >&2 || failed "the lines above were not there before, or are gone"
    rm "${TMPDIR:-/tmp}/streampress-traces.$$"
    trap - EXIT
    say "self-test passed"
}

failed() { die "self-test failed: $*"; }
as() { local name=$1; shift; "$HERE/../cluster" --name "$name" "$@"; }
ended() { [[ $(as "$1" status || true) == *"ended, not cleaned"* ]]; }

runs_a_pod() {
    local pod=try-$RANDOM
    as "$1" kubectl run $pod --image="$TOOLBOX_IMAGE" --image-pull-policy=Never --restart=Never --command -- true >/dev/null
    as "$1" kubectl wait pod/$pod --for=jsonpath='{.status.phase}'=Succeeded --timeout=60s >/dev/null || {
        as "$1" kubectl describe pod $pod >&2
        failed "a pod did not run on $1"
    }
}

# Everything outside the cache that a cluster might leave; other clusters' folders are not looked at.
traces() {
    grep selftest /proc/mounts || true
    find /sys/fs/cgroup -maxdepth 3 -name 'streampress-selftest*' 2>/dev/null
    ls -d "$RUNS"/selftest* 2>/dev/null || true
    ls -A /run/netns /run/containerd /var/lib/cni /var/lib/kubelet /var/log/pods /var/log/containers /opt/containerd 2>/dev/null || true
    grep -l selftest /proc/[0-9]*/cmdline 2>/dev/null | grep -v -e /self/ | sed 's/.*/a process/' | sort -u || true
    sysctl -n vm.overcommit_memory vm.panic_on_oom kernel.panic kernel.panic_on_oops kernel.keys.root_maxkeys kernel.keys.root_maxbytes
    ip -o link | awk '{print $2}'
}
