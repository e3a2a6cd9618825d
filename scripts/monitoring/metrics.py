#!/usr/bin/env python3
"""The table of metrics in docs/observability.md beside what the programs have.

metrics.py sources              each row stands in its program's source, and each metric there in a row
metrics.py live PROGRAM=URL...  what running programs expose is in the table with the same type, labels and help,
                                and each row that needs no event to show up is exposed
"""

import pathlib
import re
import sys
import urllib.request
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/observability.md"
SOURCES = {
    "gateway": ROOT / "engine/gateway/src/metrics.rs",
    "engine": ROOT / "engine/src/metrics.rs",
    "operator": ROOT / "operator/src/metrics.rs",
}


class Metric(NamedTuple):
    name: str
    kind: str
    labels: tuple[str, ...]
    help: str

    @property
    def program(self) -> str:
        return self.name.split("_")[1]


def table() -> dict[str, Metric]:
    """Rows of the form | `name` | type | `label`, `label` | help |."""
    row = re.compile(r"^\| `(shoal_\w+)` \| (counter|gauge|histogram) \|([^|]*)\| ([^|]+) \|$", re.M)
    found = (
        Metric(name, kind, tuple(sorted(re.findall(r"`(\w+)`", labels))), text.strip())
        for name, kind, labels, text in row.findall(PAGE.read_text())
    )
    return {metric.name: metric for metric in found}


def sources(rows: dict[str, Metric]) -> list[str]:
    faults = []
    # "name", "Help.", &["label"] as the programs register them, wherever rustfmt breaks the line.
    registered = re.compile(r'"([a-z_]+)",\s*"([A-Z0-9][^"]+\.)"(?:,\s*&\[([^\]]*)\])?')
    for program, path in SOURCES.items():
        files = [path, *sorted(path.with_suffix("").glob("*.rs"))]
        text = "\n".join(file.read_text().split("#[cfg(test)]")[0] for file in files)
        for name, _, labels in registered.findall(text):
            full = f"shoal_{program}_{name}"
            if full not in rows:
                faults.append(f"{full} is in {path.relative_to(ROOT)} and not in {PAGE.relative_to(ROOT)}")
            elif labels and rows[full].labels != tuple(sorted(re.findall(r"\w+", labels))):
                faults.append(f"{full} has the labels {labels}, not {', '.join(rows[full].labels) or 'none'}")
        for row in rows.values():
            short = row.name.removeprefix(f"shoal_{program}_")
            if row.program == program and not (f'"{short}"' in text and f'"{row.help}"' in text):
                faults.append(f"{row.name} ({row.help}) is in no line of {path.relative_to(ROOT)}")
    return faults


def exposed(url: str) -> dict[str, Metric]:
    with urllib.request.urlopen(url, timeout=10) as reply:
        page = reply.read().decode()
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", page, re.M))
    texts = dict(re.findall(r"^# HELP (\S+) (.*)$", page, re.M))
    labels: dict[str, set[str]] = {name: set() for name in kinds}
    for name, inside in re.findall(r"^(\w+)(?:\{(.*)\})? \S+$", page, re.M):
        family = name if name in kinds else re.sub(r"_(bucket|sum|count)$", "", name)
        labels[family] |= set(re.findall(r'(\w+)="', inside)) - {"le"}
    return {name: Metric(name, kind, tuple(sorted(labels[name])), texts[name]) for name, kind in kinds.items()}


def live(rows: dict[str, Metric], program: str, url: str) -> list[str]:
    seen = exposed(url)
    faults = [f"{name} is exposed as {metric}, the table has {rows.get(name)}"
              for name, metric in seen.items() if rows.get(name) != metric]
    # With labels, a metric shows up with its first event.
    faults += [f"{row.name} is in the table and not at {url}"
               for row in rows.values() if row.program == program and not row.labels and row.name not in seen]
    print(f"{program}: {len(seen)} metrics at {url}", file=sys.stderr)
    return faults


def main() -> int:
    rows = table()
    match sys.argv[1:]:
        case ["sources"]:
            faults = sources(rows)
        case ["live", *programs] if programs:
            faults = [fault for named in programs for fault in live(rows, *named.split("=", 1))]
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
