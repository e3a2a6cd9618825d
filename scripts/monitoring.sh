#!/usr/bin/env bash
# The chart's alerts and dashboards: their expressions parse, their metrics and labels exist, and each alert fires when it
# should and not otherwise. Nothing has to run; scripts/metrics.sh holds the table of metrics to running programs.
set -euo pipefail
# shellcheck source=scripts/environment.sh
source "$(dirname "$0")/environment.sh"
cd "$root"
need_python

say "-- the table of metrics and the sources"
python3 scripts/monitoring/metrics.py sources

say "-- expressions of alerts and dashboards"
tools=$(venv monitoring scripts/requirements/monitoring.txt)
PYTHONDONTWRITEBYTECODE=1 "$tools/bin/python" scripts/monitoring/expressions.py

# promtool from PATH, else out of Debian's package, which is not installed: nothing else of it is wanted.
find_promtool() (
    command -v promtool || {
        lock_cache
        folder=$cache/promtool
        if [[ ! -x $folder/promtool ]]; then
            making=$(mktemp -d "$cache/promtool.XXXXXX")
            trap 'rm -rf "$making"' EXIT
            cd "$making"
            apt-get download prometheus >&2 || { apt-get update >&2 && apt-get download prometheus >&2; }
            dpkg --fsys-tarfile prometheus_*.deb | tar --extract --file - ./usr/bin/promtool
            mkdir -p "$folder"
            mv usr/bin/promtool "$folder/promtool"
        fi
        printf '%s\n' "$folder/promtool"
    }
)
if command -v promtool >/dev/null || { command -v apt-get && command -v dpkg; } >/dev/null; then
    say "-- alerts on made-up series"
    promtool=$(find_promtool)
    "$promtool" check rules charts/shoal/files/alerts.yaml >&2
    "$promtool" test rules scripts/monitoring/alerts_test.yaml >&2
else
    say "SKIPPED: alerts on made-up series: no promtool in PATH, and no Debian to get it from"
fi
