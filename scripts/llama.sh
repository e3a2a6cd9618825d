#!/usr/bin/env bash
# Prints a Python that has llama.cpp, compiled for this processor: the yardstick of make bench. The wheels
# that are published leave AVX-512 out, so it is built from its verified source, once, into the cache.
set -euo pipefail
# shellcheck source=scripts/environment.sh
source "$(dirname "$0")/environment.sh"
cd "$root"

tools=$(venv llama scripts/requirements/llama-build.txt)
lock_cache
built=$tools/built-$(sha256sum <scripts/requirements/llama.txt | cut -c1-12)
if [[ ! -e $built ]]; then
    command -v c++ >/dev/null || need_packages g++
    say "building llama.cpp for this processor (about ten minutes of one core, once)"
    PATH=$tools/bin:$PATH "$tools/bin/python" -m pip install --quiet --disable-pip-version-check \
        --require-hashes --no-build-isolation --only-binary=:all: --no-binary=llama-cpp-python \
        -r scripts/requirements/llama.txt >&2
    touch "$built"
fi
printf '%s\n' "$tools/bin/python"
