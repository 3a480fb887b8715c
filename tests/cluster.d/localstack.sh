# The LocalStack image, under the name of the public one, from PyPI and npm packages in a small Debian root:
# where there is no registry to pull from, the same manifests then run.

LOCALSTACK_VERSION=4.9.2
LOCALSTACK_IMAGE=localstack/localstack:$LOCALSTACK_VERSION
KINESIS_LOCAL_VERSION=0.5.2
LOCALSTACK_SUITE=bookworm          # whose Python 3.11 is the newest that this release runs on

localstack_dir() {
    local hash
    hash=$(cat "$HERE/localstack.sh" "$HERE/image.py" "$HERE"/localstack/* | sha256sum | cut -c1-10)
    echo "$CACHE/localstack-v$LOCALSTACK_VERSION-$hash"
}

build_localstack() {
    local dir temp root began lock
    dir=$(localstack_dir)
    [ -d "$dir" ] && return
    mkdir -p "$CACHE"
    need debootstrap debootstrap npm npm python3 python3-minimal /usr/share/keyrings/debian-archive-keyring.gpg debian-archive-keyring
    exec {lock}>"$CACHE/localstack.lock"
    flock -n $lock || { say "another build of LocalStack is at work; waiting for it"; flock $lock; }
    [ -d "$dir" ] && { exec {lock}>&-; return 0; }
    began=$(now_ms)
    say "building the image $LOCALSTACK_IMAGE (once; it stays in $CACHE)"
    temp=$dir.building
    rm -rf "$temp"
    mkdir -p "$temp"
    root=$temp/root
    localstack_root "$root" >"$temp/log" 2>&1 || { tail -30 "$temp/log" >&2; die "LocalStack's image did not build; the whole log is $temp/log"; }
    python3 "$HERE/image.py" --name "$LOCALSTACK_IMAGE" --tree "$root" --keep-owners --entrypoint /usr/local/bin/docker-entrypoint.sh \
        --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin --env PYTHONPATH=/opt/code/localstack \
        --env KINESIS_MOCK_VERSION="$KINESIS_LOCAL_VERSION" --env SKIP_SSL_CERT_DOWNLOAD=1 \
        --workdir /opt/code/localstack "$temp/localstack.tar"
    rm -rf "$root"
    mv -T "$temp" "$dir"
    forget_older localstack "$dir"
    exec {lock}>&-
    say "built $LOCALSTACK_IMAGE in $(seconds_since "$began") s"
}

localstack_root() {
    set -e
    local root=$1 kinesis
    debootstrap --variant=minbase --include=python3,python3-pip,nodejs,ca-certificates "$LOCALSTACK_SUITE" "$root"
    # What the machine trusts, so that packages come through a proxy of its own if it has one; Debian's own set goes back in after.
    mv "$root/etc/ssl/certs/ca-certificates.crt" "$root/etc/ssl/certs/ca-certificates.crt.debian"
    cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
    cp -L /etc/resolv.conf "$root/etc/resolv.conf"
    cp "$HERE/localstack/constraints.txt" "$root/tmp/constraints.txt"
    [ -e /etc/pip.conf ] && cp -L /etc/pip.conf "$root/etc/pip.conf"
    env -u PIP_FIND_LINKS -u PYTHONDONTWRITEBYTECODE chroot "$root" /usr/bin/python3 -m pip install --no-cache-dir --disable-pip-version-check \
        --target /opt/code/localstack -c /tmp/constraints.txt "localstack-core[base-runtime]==$LOCALSTACK_VERSION"
    # Where LocalStack looks before it would download; not in /var/lib/localstack, over which a volume may be mounted.
    kinesis=$root/usr/lib/localstack/kinesis-local/$KINESIS_LOCAL_VERSION
    mkdir -p "$kinesis"
    npm install --prefix "$kinesis" --no-audit --no-fund "kinesis-local@$KINESIS_LOCAL_VERSION"
    install -m 755 "$HERE/localstack/docker-entrypoint.sh" "$root/usr/local/bin/docker-entrypoint.sh"
    mv "$root/etc/ssl/certs/ca-certificates.crt.debian" "$root/etc/ssl/certs/ca-certificates.crt"
    rm -rf "$root"/etc/pip.conf "$root"/etc/resolv.conf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,man,locale,info} \
        "$root"/tmp/* "$root"/root/.cache "$root"/root/.npm "$root"/dev/* "$root"/usr/lib/python3/dist-packages/pip* "$root"/var/log/*
    mkdir -p "$root/var/lib/localstack"
    chmod -R a+rX "$root/opt/code" "$root/usr/lib/localstack"
    chmod 1777 "$root/tmp"
}
