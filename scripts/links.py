#!/usr/bin/env python3
"""What the repository's Markdown files point at is there: files, folders, headings, and the tests that prove a row of
docs/failure-modes.md."""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]


def anchors(page: pathlib.Path) -> set[str]:
    """Headings as GitHub names them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    titles = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def broken(page: pathlib.Path) -> list[str]:
    faults = []
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        to = (page.parent / path).resolve() if path else page
        if not to.exists():
            faults.append(f"{page.relative_to(ROOT)}: {link} is not there")
        elif anchor and anchor not in anchors(to):
            faults.append(f"{page.relative_to(ROOT)}: {to.relative_to(ROOT)} has no heading for #{anchor}")
    return faults


def unproved(page: pathlib.Path) -> list[str]:
    """Tests named in the last column of a table that no source has."""
    rows = re.findall(r"^\|.*\| ([^|]*)\|$", page.read_text(), re.M)
    named = {name for cell in rows for name in re.findall(r"`(\w+)`", cell)}
    found = subprocess.run(["git", "grep", "--untracked", "-hoE", r"fn \w+\(", "--", "*.rs"],
                           cwd=ROOT, check=True, capture_output=True, text=True).stdout
    tests = {line[3:-1] for line in found.splitlines()}
    return [f"{page.relative_to(ROOT)}: there is no test {name}" for name in sorted(named - tests)]


def main() -> int:
    listed = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
                            cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    faults = [fault for page in listed for fault in broken(ROOT / page)]
    faults += unproved(ROOT / "docs/failure-modes.md")
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
