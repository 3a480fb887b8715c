#!/usr/bin/env bash
# Recycles a local volume when its claim is deleted: empties the folder and makes the volume available again.
# (kind's provisioner creates and removes folders instead; a claim cannot tell the difference.) Waits on a watch, which
# costs nothing at rest.
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
