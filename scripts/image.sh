#!/usr/bin/env bash
# image.sh TAR NAME:TAG PROGRAM [SOURCE=/DESTINATION...]: writes a container image that holds one program, the shared
# libraries it needs, certificates of public authorities and an unprivileged user; nothing else, no shell. Needs no
# Docker, no root. Prints the image's digest. The same files give the same digest.
#
# The archive is both an OCI layout and what `docker load` reads. Libraries are this machine's: build on the
# distribution that the image is meant to be of.
set -euo pipefail
# shellcheck source=scripts/environment.sh
source "$(dirname "$0")/environment.sh"

(($# >= 3)) || fail "usage: image.sh TAR NAME:TAG PROGRAM [SOURCE=/DESTINATION...]"
tar=$1 name=$2 program=$3
shift 3

folder=$(mktemp -d "${TMPDIR:-/tmp}/shoal-image-XXXXXX")
trap 'rm -rf "$folder"' EXIT
rootfs=$folder/rootfs image=$folder/image
authorities=/etc/ssl/certs/ca-certificates.crt

# place SOURCE DESTINATION [MODE]
place() {
    install -D -m "${3:-644}" "$1" "$rootfs$2"
}

# Paths of the shared libraries of $1, the loader among them; none for a static program.
libraries() {
    ldd "$1" 2>/dev/null | awk '$3 ~ "^/" { print $3 } $1 ~ "^/" { print $1 }'
}

fill_rootfs() {
    local library pair
    place "$program" "/usr/bin/$(basename "$program")" 755
    ! ldd "$program" 2>/dev/null | grep 'not found' >&2 || fail "$program needs libraries that are not installed"
    while read -r library; do place "$library" "$library" 755; done < <(libraries "$program")
    [[ -e $authorities ]] || need_packages ca-certificates
    place "$authorities" "$authorities"
    for pair in "$@"; do place "${pair%%=*}" "${pair#*=}"; done
    mkdir -p "$rootfs"/{etc,tmp}
    printf 'root:x:0:0:root:/:\nshoal:x:65532:65532:shoal:/tmp:\n' >"$rootfs/etc/passwd"
    printf 'root:x:0:\nshoal:x:65532:\n' >"$rootfs/etc/group"
    # Folders get the caller's umask otherwise, and with it another digest.
    find "$rootfs" -type d -exec chmod 755 {} +
    chmod 1777 "$rootfs/tmp"
}

# pack FOLDER TAR: owner, order and times of the entries depend on nothing but their names.
pack() {
    tar --create --file "$2" --directory "$1" --format=gnu --sort=name --mtime=@0 --owner=0 --group=0 \
        --numeric-owner -- .
}

# Moves FILE among the blobs and prints its digest.
blob() {
    local digest
    digest=$(sha256sum <"$1" | cut -d' ' -f1)
    mv "$1" "$image/blobs/sha256/$digest"
    printf '%s\n' "$digest"
}

# descriptor TYPE DIGEST
descriptor() {
    printf '"mediaType": "application/vnd.oci.image.%s", "digest": "sha256:%s", "size": %s' \
        "$1" "$2" "$(stat -c %s "$image/blobs/sha256/$2")"
}

fill_rootfs "$@"
mkdir -p "$image/blobs/sha256"
pack "$rootfs" "$folder/layer.tar"
layer=$(blob "$folder/layer.tar")
cat >"$folder/config.json" <<JSON
{"architecture": "amd64", "os": "linux", "created": "1970-01-01T00:00:00Z",
 "config": {"User": "65532:65532", "Entrypoint": ["/usr/bin/$(basename "$program")"], "WorkingDir": "/",
  "Env": ["PATH=/usr/bin", "HOME=/tmp", "SSL_CERT_FILE=$authorities"]},
 "rootfs": {"type": "layers", "diff_ids": ["sha256:$layer"]}}
JSON
config=$(blob "$folder/config.json")
cat >"$folder/manifest.json" <<JSON
{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
 "config": {$(descriptor config.v1+json "$config")}, "layers": [{$(descriptor layer.v1.tar "$layer")}]}
JSON
manifest=$(blob "$folder/manifest.json")
echo '{"imageLayoutVersion": "1.0.0"}' >"$image/oci-layout"
cat >"$image/index.json" <<JSON
{"schemaVersion": 2, "manifests": [{$(descriptor manifest.v1+json "$manifest"), "annotations": {
 "io.containerd.image.name": "$name", "org.opencontainers.image.ref.name": "${name##*:}"}}]}
JSON
cat >"$image/manifest.json" <<JSON
[{"Config": "blobs/sha256/$config", "RepoTags": ["$name"], "Layers": ["blobs/sha256/$layer"]}]
JSON
mkdir -p "$(dirname "$tar")"
pack "$image" "$folder/image.tar"
mv "$folder/image.tar" "$tar"
echo "sha256:$manifest"
