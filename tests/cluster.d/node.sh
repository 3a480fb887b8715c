#!/usr/bin/env bash
# The first process of a cluster's own pid, mount and network namespaces: it starts every program and waits.
# When it ends, the kernel ends every process under it, pods too, and removes its mounts and devices. `down` therefore
# ends one process only, and an interrupted `up` leaves nothing behind.
# up.sh passes its settings in environment variables.
set -euo pipefail

main() {
    export KUBECACHEDIR=$RUN/kubectl-cache
    cover_machine_folders
    raise_network
    cd "$RUN"
    start etcd "$BIN_ETCD/etcd" --data-dir "$RUN/etcd" --unsafe-no-fsync --log-level warn
    start kube-apiserver "$BIN_KUBE/kube-apiserver" --etcd-servers=http://127.0.0.1:2379 --advertise-address="$NODE_IP" \
        --service-cluster-ip-range=10.96.0.0/16 --secure-port=6443 --allow-privileged=true \
        --service-account-issuer=https://kubernetes.default.svc --service-account-key-file=pki/sa.pub \
        --service-account-signing-key-file=pki/sa.key --client-ca-file=pki/ca.crt --token-auth-file=pki/tokens.csv \
        --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction \
        --tls-cert-file=pki/apiserver.crt --tls-private-key-file=pki/apiserver.key \
        --kubelet-client-certificate=pki/kubelet-client.crt --kubelet-client-key=pki/kubelet-client.key \
        --kubelet-preferred-address-types=InternalIP
    [ "$NODE" = none ] || lay_in_images
    [ "$NODE" = none ] || start containerd "$BIN_CONTAINERD/containerd" -c "$RUN/config/containerd.toml"
    until "$BIN_KUBE/kubectl" --kubeconfig "$RUN/kubeconfig" get --raw /readyz >/dev/null 2>&1; do sleep 0.2; done
    start kube-controller-manager "$BIN_KUBE/kube-controller-manager" --kubeconfig users/kube-controller-manager \
        --service-account-private-key-file=pki/sa.key --use-service-account-credentials=true --root-ca-file=pki/ca.crt --leader-elect=false
    start kube-scheduler "$BIN_KUBE/kube-scheduler" --kubeconfig users/kube-scheduler --leader-elect=false
    if [ "$NODE" != none ]; then
        "$BIN_KUBE/kubectl" --kubeconfig "$RUN/kubeconfig" apply -f config/first-objects.yaml -f config/volumes.yaml
        start coredns "$BIN_COREDNS/coredns" -conf config/Corefile
        start kubelet "$BIN_KUBE/kubelet" --kubeconfig users/kubelet --config config/kubelet.yaml --root-dir "$RUN/kubelet" \
            --cert-dir "$RUN/kubelet/pki" --hostname-override "$NODE" --node-ip "$NODE_IP"
        start kube-proxy "$BIN_KUBE/kube-proxy" --config config/proxy.yaml
        start volumes bash "$HERE/volumes.sh"
    fi
    # As the first process it also becomes the parent of orphaned processes of containers; bash reaps them.
    while :; do wait -n || true; sleep 1; done
}

# Nothing of the machine is written to: the folders that the programs have built in are covered by empty ones in memory,
# and the kernel settings that the kubelet would change by files that already hold its values.
cover_machine_folders() {
    mount --make-rprivate /
    mount --make-rshared /
    local folder setting
    for folder in /run /var/log /var/lib; do
        mount -t tmpfs -o mode=755 tmpfs "$folder"
    done
    mkdir -p /run/netns "$RUN/settings" /var/log/containers
    for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
        kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
        echo "${setting#*=}" >"$RUN/settings/$(basename "${setting%=*}")"
        mount --bind "$RUN/settings/$(basename "${setting%=*}")" "/proc/sys/${setting%=*}"
    done
}

# The images of the cache, which this cluster's containerd sees as its own: its two small databases are copies, and the
# layers are mounted read-only where it expects them: a kubelet that is short of disk removes images, and must not empty the cache.
lay_in_images() {
    local content=io.containerd.content.v1.content/blobs/sha256 layers=io.containerd.snapshotter.v1.overlayfs
    local from=$STORE/root to=$RUN/containerd/root path
    mkdir -p "$to/$content" "$to/$layers/snapshots" "$to/io.containerd.metadata.v1.bolt"
    chmod 711 "$to" "$to/$layers"
    cp "$from/io.containerd.metadata.v1.bolt/meta.db" "$to/io.containerd.metadata.v1.bolt/"
    cp "$from/$layers/metadata.db" "$to/$layers/"
    for path in "$from/$content"/*; do
        : >"$to/$content/${path##*/}"
        mount -o bind,ro "$path" "$to/$content/${path##*/}"
    done
    for path in "$from/$layers/snapshots"/*; do
        mkdir "$to/$layers/snapshots/${path##*/}"
        mount -o bind,ro "$path" "$to/$layers/snapshots/${path##*/}"
    done
}

# No packet leaves: the only devices are loopback, which also carries the node's address, and the pods' bridge.
raise_network() {
    ip link set lo up
    ip addr add "$NODE_IP/32" dev lo
    ip route add default dev lo
    echo 1 >/proc/sys/net/ipv4/ip_forward
}

start() {
    local name=$1
    shift
    "$@" >"$RUN/log/$name.log" 2>&1 </dev/null &
    echo "$name $!" >>"$RUN/components"
}

main
