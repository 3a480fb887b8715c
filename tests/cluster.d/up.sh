# Starts a cluster: writes its keys and settings into its folder, starts node.sh in new namespaces, and waits until the
# node is Ready and cluster DNS answers.

PAUSE_IMAGE=localhost/streampress-pause:1
NODE_IP=10.89.0.1
POD_NET=10.244.0.0/24
VOLUMES=20

up() {
    local node=node1 localstack=yes store=base began
    while [ $# -gt 0 ]; do
        case $1 in
        --control-plane) node=none localstack=no ;;
        --no-localstack) localstack=no ;;
        --kind) shift; up_kind "$@"; return ;;
        *) die "up takes --control-plane, --no-localstack and --kind, not $1" ;;
        esac
        shift
    done
    [ "$(id -u)" = 0 ] || die "namespaces and cgroups need root: run it with sudo"
    refuse_second_up
    build_all
    [ $localstack = no ] || { build_localstack; store=localstack; }
    [ "$node" = none ] || build_store $store
    began=$(now_ms)
    mkdir -p "$RUNS"
    mkdir "$RUN" 2>/dev/null || refuse_second_up
    echo "$$ $(start_time $$)" >"$RUN/up.pid"
    say "starting cluster $NAME"
    write_state "$node"
    make_cgroup
    start_node "$node" "$(store_dir $store)"
    WATCHDOG=nothing_has_ended
    wait_for 300 "the API server" kubectl get --raw /readyz || give_up
    wait_for 180 "the default service account" kubectl get serviceaccount default || give_up
    if [ "$node" != none ]; then
        wait_for 300 "node $node to be Ready" node_is_ready || give_up
        wait_for 180 "cluster DNS to answer for kubernetes.default" dns_answers || give_up
    fi
    WATCHDOG=
    say "cluster $NAME is up after $(seconds_since "$began") s ($([ "$node" = none ] && echo "control plane only" || echo "node Ready, DNS answers"))"
    [ $localstack = no ] || up_localstack
    rm "$RUN/up.pid"
    say "use it: tests/cluster$(name_option) kubectl get pods -A · tests/cluster$(name_option) shell · tests/cluster$(name_option) down"
}

name_option() { [ "$NAME" = default ] || echo " --name $NAME"; }

refuse_second_up() {
    [ -e "$RUN" ] || return 0
    [ -e "$RUN/up.pid" ] && alive $(cat "$RUN/up.pid") && die "cluster $NAME is already coming up, by process $(cut -d' ' -f1 "$RUN/up.pid")"
    node_runs && die "cluster $NAME is already up; end it with: tests/cluster$(name_option) down"
    die "cluster $NAME was left half-way by an up that was ended; clean it with: tests/cluster$(name_option) down"
}

give_up() {
    say "--- the last lines of what did not come up:"
    tail -n 5 "$RUN"/log/*.log >&2 || true
    die "cluster $NAME did not come up. Logs: $RUN/log. Clean up with: tests/cluster$(name_option) down"
}

# Waiting is useless once a program has ended.
nothing_has_ended() {
    local name pid
    node_runs || { say "the cluster's first process has ended:"; tail -n 5 "$RUN/log/node.log" >&2; return 1; }
    [ -e "$RUN/components" ] || return 0
    while read -r name pid; do
        in_node kill -0 "$pid" 2>/dev/null && continue
        say "$name has ended. The end of its log:"
        tail -n 15 "$RUN/log/$name.log" >&2
        return 1
    done <"$RUN/components"
}

write_state() {
    local node=$1 user n file
    mkdir -p "$RUN"/{pki,users,config,cni,containerd,kubelet,log/pods,volumes}
    chmod 700 "$RUN/pki" "$RUN/users"
    write_keys
    write_kubeconfig admin "$RUN/kubeconfig"
    for user in kube-controller-manager kube-scheduler kube-proxy kubelet coredns; do
        write_kubeconfig $user "$RUN/users/$user"
    done
    echo "nameserver $NODE_IP" >"$RUN/resolv.conf"
    for file in containerd.toml kubelet.yaml proxy.yaml Corefile first-objects.yaml; do
        fill "$node" 0 <"$HERE/config/$file" >"$RUN/config/$file"
    done
    fill "$node" 0 <"$HERE/config/cni.conflist" >"$RUN/cni/10-bridge.conflist"
    for n in $(seq $VOLUMES); do
        mkdir -m 777 "$RUN/volumes/$n"
        chmod 777 "$RUN/volumes/$n"
        fill "$node" "$n" <"$HERE/config/volume.yaml"
    done >"$RUN/config/volumes.yaml"
}

fill() {
    sed -e "s|@RUN@|$RUN|g; s|@NODE@|$1|g; s|@N@|$2|g; s|@NODE_IP@|$NODE_IP|g; s|@POD_NET@|$POD_NET|g" \
        -e "s|@PAUSE_IMAGE@|$PAUSE_IMAGE|g; s|@CGROUP@|/$CGROUP|g"
}

# Keys and certificates of one run; elliptic ones, because they are made in a moment.
write_keys() {
    local key='-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes'
    (
        cd "$RUN/pki"
        openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:prime256v1 -out sa.key
        openssl pkey -in sa.key -pubout -out sa.pub
        openssl req -x509 $key -keyout ca.key -out ca.crt -subj /CN=streampress-test-ca -days 30
        certificate apiserver /CN=kube-apiserver \
            "subjectAltName=IP:$NODE_IP,IP:10.96.0.1,IP:127.0.0.1,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc
extendedKeyUsage=serverAuth"
        certificate kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client "extendedKeyUsage=clientAuth"
    ) 2>"$RUN/log/openssl.log" || { cat "$RUN/log/openssl.log" >&2; die "openssl could not make the cluster's keys"; }
    local user
    while read -r user rest; do
        openssl rand -hex 24 >"$RUN/users/$user.token"
        echo "$(cat "$RUN/users/$user.token"),$rest"
    done >"$RUN/pki/tokens.csv" <<E
admin admin,admin,"system:masters"
kube-controller-manager system:kube-controller-manager,kube-controller-manager
kube-scheduler system:kube-scheduler,kube-scheduler
kube-proxy system:kube-proxy,kube-proxy
kubelet system:node:node1,kubelet,"system:nodes"
coredns system:coredns,coredns
E
}

certificate() {
    openssl req $key -keyout "$1.key" -out "$1.csr" -subj "$2"
    openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -out "$1.crt" -days 30 -extfile <(echo "$3")
}

write_kubeconfig() {
    cat >"$2" <<E
apiVersion: v1
kind: Config
clusters: [{name: local, cluster: {server: "https://127.0.0.1:6443", certificate-authority-data: $(base64 -w0 "$RUN/pki/ca.crt")}}]
users: [{name: $1, user: {token: $(cat "$RUN/users/$1.token")}}]
contexts: [{name: local, context: {cluster: local, user: $1}}]
current-context: local
E
    chmod 600 "$2"
}

start_node() {
    local node=$1 store=$2 self
    export HERE RUN NODE=$node NODE_IP STORE=$store BIN_KUBE BIN_ETCD BIN_CONTAINERD BIN_COREDNS
    BIN_KUBE=$(program_dir kubernetes) BIN_ETCD=$(program_dir etcd)
    BIN_CONTAINERD=$(program_dir containerd) BIN_COREDNS=$(program_dir coredns)
    # The pid is recorded before the process has any effect: exec keeps the pid and the start time.
    (
        self=$BASHPID               # in $(…) it would be the subshell's
        echo "$self $(start_time "$self")" >"$RUN/node.pid"
        # A down that kills this up looks for the pid afterwards: either it finds it, or this finds up gone.
        alive $(cat "$RUN/up.pid") || exit 1
        # The shim is looked for in the path; the rest of it is what Debian's own programs need.
        export PATH=$BIN_CONTAINERD:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
        unset KUBECONFIG
        exec setsid unshare --pid --mount --net --fork --kill-child --mount-proc bash "$HERE/node.sh" >"$RUN/log/node.log" 2>&1 </dev/null
    ) &
    disown
    wait_for 60 "the cluster's first process" node_runs || give_up
    namespace_of "$(first_process)" >"$RUN/namespace"
}

import() {
    local said
    said=$(in_node "$(program_dir containerd)/ctr" -a "$RUN/containerd/containerd.sock" -n k8s.io images import --local "$1" 2>&1) ||
        { say "$said"; return 1; }
}

node_is_ready() {
    kubectl wait node/node1 --for condition=Ready --timeout 5s
}

# Asks for the address of kubernetes.default as a pod would: one query, over UDP, of the node's own DNS.
dns_answers() {
    in_net python3 - "$NODE_IP" <<'E'
import socket, sys
name = b"".join(bytes([len(p)]) + p.encode() for p in "kubernetes.default.svc.cluster.local".split(".")) + b"\0"
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(2)
s.sendto(b"\x07\x07\x01\0\0\x01\0\0\0\0\0\0" + name + b"\0\1\0\1", (sys.argv[1], 53))
answer = s.recv(512)
code, count = answer[3] & 15, int.from_bytes(answer[6:8], "big")
if code or not count:
    sys.exit(f"DNS answered with code {code} and {count} addresses")
E
}
