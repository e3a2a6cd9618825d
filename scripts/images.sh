#!/usr/bin/env bash
# images.sh [PROGRAM...]: makes an image of each program, all of the workspace by default, from the release build, and
# beside it a list of what it is made of. Prints one line an image: file, name, digest. Needs neither Docker nor root.
# SHOAL_TAG is the tag (default: the workspace's version).
set -euo pipefail
# shellcheck source=scripts/environment.sh
source "$(dirname "$0")/environment.sh"
cd "$root"

tag=${SHOAL_TAG:-$(awk -F '"' '/^version = / { print $2; exit }' Cargo.toml)}
folder=$target/images

# Names of the workspace's programs that run in a cluster; each is built by a package of the same name.
workspace_programs() {
    cargo metadata --locked --no-deps --format-version 1 |
        jq -r '.packages[] | select(.metadata.image != false) | .targets[] | select(.kind == ["bin"]) | .name' | sort
}

command -v jq >/dev/null || need_packages jq
mkdir -p "$folder"
(($#)) || mapfile -t wanted < <(workspace_programs)
for program in "${@:-${wanted[@]}}"; do
    [[ -x $target/release/$program ]] || fail "$target/release/$program is missing; run: make build"
    name=localhost/$program:$tag
    digest=$(scripts/image.sh "$folder/$program.tar" "$name" "$target/release/$program")
    scripts/sbom.py "$program" "$target/release/$program" >"$folder/$program.cdx.json"
    printf '%s %s %s\n' "$folder/$program.tar" "$name" "$digest"
done
