#!/usr/bin/env bash
# Gives a local volume back when its claim is gone: empties the folder and lets the next claim have it.
# (kind's provisioner makes and removes folders instead; to a claim the two look the same.) Waits on a watch: at rest it costs nothing.
set -uo pipefail
kubectl() { "$BIN_KUBE/kubectl" --kubeconfig "$RUN/kubeconfig" "$@"; }

while :; do
    kubectl get pv --watch --output-watch-events=false -o 'jsonpath={.metadata.name} {.status.phase}{"\n"}' |
        while read -r volume phase; do
            [ "$phase" = Released ] || continue
            folder=$RUN/volumes/${volume#folder-}
            find "$folder" -mindepth 1 -delete
            chmod 777 "$folder" && chown 0:0 "$folder"
            kubectl patch pv "$volume" --type json -p '[{"op": "remove", "path": "/spec/claimRef"}]'
        done
    sleep 1
done
