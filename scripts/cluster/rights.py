#!/usr/bin/env python3
"""rights.py ACCOUNT AUDIT_LOG...: what a service account was granted, beside what it did according to the audit log.

ACCOUNT is NAMESPACE/NAME. Run it where the cluster can be reached. Prints what was refused for want of a right that it
does not have, and what was granted and never used, one "verb resource" a line, and fails if there is any. What admission
refuses, for example in a namespace that is on its way out, is no want of a right. Server-side apply that makes an object is seen as a
patch; it needs, and here counts as, create too.
"""

import json
import subprocess
import sys


def granted(account):
    """Verb and resource of every rule that a binding gives to the account, wherever it holds."""
    namespace, name = account.split("/")
    kinds = "clusterroles,clusterrolebindings,roles,rolebindings"
    command = ["kubectl", "get", kinds, "--all-namespaces", "--output", "json"]
    items = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)["items"]
    rules = {(item["kind"], item["metadata"].get("namespace"), item["metadata"]["name"]): item.get("rules") for item in items}
    subject = {"kind": "ServiceAccount", "name": name, "namespace": namespace}
    for item in items:
        if not any(subject.items() <= each.items() for each in item.get("subjects") or []):
            continue
        role = item["roleRef"]
        where = item["metadata"].get("namespace") if role["kind"] == "Role" else None
        for rule in rules.get((role["kind"], where, role["name"])) or []:
            for resource in rule.get("resources") or []:
                group = rule["apiGroups"][0]
                for verb in rule["verbs"]:
                    yield verb, f"{resource}.{group}" if group else resource


def done(account, logs):
    """Verb and resource of every request that the account made, and whether it had the right."""
    user = f"system:serviceaccount:{account.replace('/', ':')}"
    for log in logs:
        with open(log) as lines:
            for line in lines:
                entry = json.loads(line)
                # A refused caller has no name. What any account may do, such as to look for API groups, is no resource.
                if entry["user"].get("username") != user or "objectRef" not in entry:
                    continue
                reference = entry["objectRef"]
                resource = "/".join(filter(None, (reference["resource"], reference.get("subresource"))))
                group = reference.get("apiGroup")
                name = f"{resource}.{group}" if group else resource
                code = (entry.get("responseStatus") or {}).get("code")
                allowed = entry.get("annotations", {}).get("authorization.k8s.io/decision") != "forbid"
                yield entry["verb"], name, allowed
                if entry["verb"] == "patch" and code == 201:
                    yield "create", name, allowed


def main():
    account, *logs = sys.argv[1:]
    may = set(granted(account))
    did = list(done(account, logs))
    refused = {(verb, name) for verb, name, allowed in did if not allowed} - may
    unused = may - {(verb, name) for verb, name, allowed in did if allowed}
    for title, pairs in (("refused", refused), ("granted and never used", unused)):
        for verb, name in sorted(pairs, key=lambda pair: pair[::-1]):
            print(f"{title}: {verb} {name}")
    print(f"{account}: {len(may)} granted, {len(may - unused)} of them used, {len(did)} requests")
    sys.exit(bool(refused or unused or not did))


main()
