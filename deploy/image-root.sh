#!/bin/sh
# Lays out the root of Streampress's image: the programs, the C library they were linked with and its loader, the CA
# certificates, and one user without rights. Nothing else: no shell, no package manager.
#   deploy/image-root.sh ROOT PROGRAM…
# deploy/Dockerfile and `tests/cluster load-image` both call it, so that what is tested is what is shipped.
set -eu
root=$1
shift
mkdir -p "$root/usr/local/bin" "$root/etc/ssl/certs" "$root/tmp" "$root/data"
for program in "$@"; do
    cp "$program" "$root/usr/local/bin/"
    chmod 755 "$root/usr/local/bin/$(basename "$program")"
    # The libraries and the loader, each under the path by which the program asks for it.
    for library in $(ldd "$program" | awk '/=> \// {print $3} /^[ \t]*\// {print $1}'); do
        [ -e "$root$library" ] && continue
        mkdir -p "$root$(dirname "$library")"
        cp -L "$library" "$root$library"
    done
done
cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
echo 'streampress:x:65532:65532:streampress:/data:/sbin/nologin' >"$root/etc/passwd"
echo 'streampress:x:65532:' >"$root/etc/group"
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
chown 65532:65532 "$root/data"
chmod 1777 "$root/tmp"
