#!/usr/bin/env python3
"""sbom.py PACKAGE PROGRAM: writes to standard output what the image of PROGRAM, built by PACKAGE, is made of.

CycloneDX 1.6: the crates that are linked into the program, as Cargo.lock pins them for this platform, and the Debian
packages of the shared libraries and certificates that scripts/image.sh puts beside it. The same sources give the same
text, so there is no time in it, and the serial number is derived from the rest.
"""

import json
import os
import pathlib
import subprocess
import sys
import tomllib
import uuid

AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"


def output(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def crates(package):
    """Crates that the package is linked with, itself first, and for each the crates it depends on."""
    host = next(line.split()[1] for line in output("rustc", "-vV").splitlines() if line.startswith("host:"))
    metadata = json.loads(output("cargo", "metadata", "--locked", "--format-version=1", f"--filter-platform={host}"))
    packages = {each["id"]: each for each in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    root = next(each["id"] for each in packages.values() if each["name"] == package and each["source"] is None)
    graph, todo = {}, [root]
    while todo:
        crate = todo.pop()
        if crate in graph:
            continue
        # Not what only builds or tests need. Procedural macros run at build time too.
        graph[crate] = [
            dep["pkg"]
            for dep in nodes[crate]["deps"]
            if any(kind["kind"] is None for kind in dep["dep_kinds"]) and not is_macro(packages[dep["pkg"]])
        ]
        todo += graph[crate]
    return root, {crate: packages[crate] for crate in graph}, graph


def is_macro(package):
    return any("proc-macro" in target["kind"] for target in package["targets"])


def checksums():
    lock = tomllib.loads(pathlib.Path("Cargo.lock").read_text())
    return {(each["name"], each["version"]): each.get("checksum") for each in lock["package"]}


def crate_component(package, checksum):
    component = {
        "type": "library",
        "bom-ref": reference(package),
        "name": package["name"],
        "version": package["version"],
        "purl": reference(package),
    }
    if package["license"]:
        # Some crates still write alternatives as MIT/Apache-2.0.
        component["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    if checksum:
        component["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    return component


def reference(package):
    return f'pkg:cargo/{package["name"]}@{package["version"]}'


def debian_components(program):
    """Debian packages of the files that the image takes from the distribution."""
    files = [AUTHORITIES]
    for line in output("ldd", program).splitlines():
        files += [word for word in line.split() if word.startswith("/")]
    names = {"ca-certificates"} | {owner(file) for file in files[1:]}
    fields = "${Package} ${Version} ${Architecture}\n"
    for line in output("dpkg-query", "--show", f"--showformat={fields}", *sorted(names)).splitlines():
        name, version, architecture = line.split()
        purl = f"pkg:deb/debian/{name}@{version.replace('+', '%2B').replace(':', '%3A')}?arch={architecture}"
        yield {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def owner(file):
    """The database knows a file by the path it was packed with: /lib or what that links to."""
    for path in (file, os.path.realpath(file), os.path.realpath(file).removeprefix("/usr")):
        found = subprocess.run(["dpkg-query", "--search", path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        if found.returncode == 0:
            return found.stdout.decode().split(": ")[0]
    raise SystemExit(f"sbom.py: no Debian package has {file}")


def main():
    package, program = sys.argv[1:]
    root, packages, graph = crates(package)
    locked = checksums()
    application = crate_component(packages[root], None) | {"type": "application"}
    libraries = [
        crate_component(each, locked.get((each["name"], each["version"])))
        for crate, each in packages.items()
        if crate != root
    ]
    debian = list(debian_components(program))
    edges = [
        {"ref": reference(packages[crate]), "dependsOn": sorted({reference(packages[dep]) for dep in graph[crate]})}
        for crate in graph
    ]
    for edge in edges:
        if edge["ref"] == application["bom-ref"]:
            edge["dependsOn"] += [each["bom-ref"] for each in debian]
    bom = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": application},
        "components": sorted(libraries + debian, key=lambda each: each["bom-ref"]),
        "dependencies": sorted(edges, key=lambda edge: edge["ref"]),
    }
    bom["serialNumber"] = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(bom, sort_keys=True)).urn
    json.dump(bom, sys.stdout, indent=2, sort_keys=True)
    print()


main()
