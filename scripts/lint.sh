#!/usr/bin/env bash
# Everything that can be said about the sources without running them.
set -euo pipefail
# shellcheck source=scripts/environment.sh
source "$(dirname "$0")/environment.sh"
cd "$root"
need_rust
tools=$(venv lint scripts/requirements/lint.txt)

say "-- format"
cargo fmt --all --check

say "-- shell scripts"
"$tools/bin/shellcheck" --external-sources scripts/*.sh scripts/cluster/*.sh .ci/run

say "-- links of the documentation"
python3 scripts/links.py

scripts/chart.sh
scripts/monitoring.sh

# Advisories are left out: their database is a git repository, which this check must not depend on.
say "-- licences, banned crates, sources"
CARGO=$root/scripts/cargo-metadata.py "$tools/bin/cargo-deny" --log-level error check licenses bans sources

# --release everywhere: build scripts and procedural macros are then compiled once for all commands.
say "-- clippy"
cargo clippy --release --locked --workspace --all-targets -- -D warnings

say "-- documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --quiet --release --locked --workspace --no-deps --document-private-items

say "-- every crate alone"
while read -r crate; do
    say "   $crate"
    cargo check --quiet --release --locked --package "$crate"
done < <(cargo metadata --locked --no-deps --format-version 1 |
    python3 -c 'import json, sys; print("\n".join(p["name"] for p in json.load(sys.stdin)["packages"]))')
