#!/usr/bin/env bash
# images.sh [PROGRAM...]: makes an image of each program, all of the workspace by default, from the release build, and
# beside it a list of what it is made of. Prints one line an image: file, name, digest. Needs neither Docker nor root.
# SHOAL_TAG is the tag (default: the workspace's version). MODEL=FILE puts a model into the images of engine and gateway,
# as /models/ and its name.
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

# What the image of a program holds beside it, as image.sh takes it.
beside() {
    case $1 in
    shoal-engine | shoal-gateway) [[ -z ${MODEL:-} ]] || printf '%s\n' "$MODEL=/models/$(basename "$MODEL")" ;;
    esac
}

[[ -z ${MODEL:-} || -f $MODEL ]] || fail "MODEL=$MODEL is not a file"
command -v jq >/dev/null || need_packages jq
mkdir -p "$folder"
(($#)) || mapfile -t wanted < <(workspace_programs)
for program in "${@:-${wanted[@]}}"; do
    [[ -x $target/release/$program ]] || fail "$target/release/$program is missing; run: make build"
    name=localhost/$program:$tag
    mapfile -t files < <(beside "$program")
    digest=$(scripts/image.sh "$folder/$program.tar" "$name" "$target/release/$program" "${files[@]}")
    scripts/sbom.py "$program" "$target/release/$program" >"$folder/$program.cdx.json"
    printf '%s %s %s\n' "$folder/$program.tar" "$name" "$digest"
done
