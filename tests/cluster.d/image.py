#!/usr/bin/env python3
"""Writes an OCI image archive of one layer, as `ctr images import` takes it, without a container engine.

The layer is made of single files (--file SOURCE=/path), of a folder's tree (--tree FOLDER), or of both. Owners and
times are set to fixed values so that the same content gives the same image; nothing is held in memory whole.
"""
import argparse
import hashlib
import io
import json
import os
import sys
import tarfile
import tempfile


def main():
    a = arguments()
    with tempfile.TemporaryFile(dir=os.path.dirname(os.path.abspath(a.out))) as layer:
        write_layer(layer, a)
        digest, size = digest_of(layer)
        config = json.dumps(image_config(a, digest)).encode()
        write_archive(a.out, a.name, config, layer, digest, size)


def arguments():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("out")
    p.add_argument("--name", required=True, help="repository:tag")
    p.add_argument("--file", action="append", default=[], metavar="SOURCE=/path")
    p.add_argument("--tree", metavar="FOLDER")
    p.add_argument("--keep-owners", action="store_true", help="keep the uids of the tree instead of making all of it root's")
    p.add_argument("--user", default="")
    p.add_argument("--entrypoint", action="append", default=[])
    p.add_argument("--env", action="append", default=[])
    p.add_argument("--workdir", default="/")
    return p.parse_args()


def write_layer(out, a):
    def settle(entry):
        if not a.keep_owners:
            entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        entry.mtime = 0
        return entry

    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        if a.tree:
            for name in sorted(os.listdir(a.tree)):
                tar.add(os.path.join(a.tree, name), arcname=name, filter=settle)
        for pair in a.file:
            source, _, target = pair.partition("=")
            tar.add(os.path.realpath(source), arcname=target.lstrip("/"), filter=settle)


def digest_of(stream):
    stream.seek(0)
    h, size = hashlib.sha256(), 0
    while block := stream.read(1 << 20):
        h.update(block)
        size += len(block)
    return h.hexdigest(), size


def image_config(a, layer):
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine)
    if machine is None:
        sys.exit(f"image.py: no name known for this processor in OCI's terms: {os.uname().machine}")
    run = {"User": a.user, "Entrypoint": a.entrypoint, "Env": a.env, "WorkingDir": a.workdir}
    return {
        "architecture": machine,
        "os": "linux",
        "config": {k: v for k, v in run.items() if v},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + layer]},
    }


def write_archive(path, name, config, layer, digest, size):
    oci = "application/vnd.oci.image."

    def described(kind, data):
        return {"mediaType": oci + kind, "digest": "sha256:" + hashlib.sha256(data).hexdigest(), "size": len(data)}

    manifest = json.dumps({
        "schemaVersion": 2,
        "mediaType": oci + "manifest.v1+json",
        "config": described("config.v1+json", config),
        "layers": [{"mediaType": oci + "layer.v1.tar", "digest": "sha256:" + digest, "size": size}],
    }).encode()
    names = {"io.containerd.image.name": full_name(name), "org.opencontainers.image.ref.name": name.rpartition(":")[2]}
    index = json.dumps({"schemaVersion": 2, "manifests": [{**described("manifest.v1+json", manifest), "annotations": names}]}).encode()
    with tarfile.open(path + ".part", "w") as tar:
        def add(entry, data, length):
            info = tarfile.TarInfo(entry)
            info.size = length
            tar.addfile(info, data)

        for entry, data in (
            ("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'),
            ("index.json", index),
            ("blobs/sha256/" + hashlib.sha256(config).hexdigest(), config),
            ("blobs/sha256/" + hashlib.sha256(manifest).hexdigest(), manifest),
        ):
            add(entry, io.BytesIO(data), len(data))
        layer.seek(0)
        add("blobs/sha256/" + digest, layer, size)
    os.replace(path + ".part", path)


def full_name(name):
    """A name as the kubelet asks for it: `localstack/localstack:4.9.2` means docker.io's."""
    first, slash, _ = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return name
    return "docker.io/" + (name if slash else "library/" + name)


main()
