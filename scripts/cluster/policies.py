"""Enforces NetworkPolicies on the test cluster's nodes: policies.py STATE_FOLDER API_HOST.

Watches pods, namespaces and policies, and gives each node one nftables table, replaced as a whole when it changes.
Every packet between pods is routed, so the forward hook sees all of them, after kube-proxy has chosen a pod for a
Service. What a node itself sends to its pods, probes among it, is never held back, as the API demands.

Covers networking.k8s.io/v1: selectors, address blocks with exceptions, ports by number, range and name. It is part of
the tests and written for few pods on real nodes: every change recomputes all rules. Pods of fake nodes get none.
"""

import http.client
import json
import pathlib
import ssl
import subprocess
import sys
import threading
import time

KINDS = {
    "pods": "/api/v1/pods",
    "namespaces": "/api/v1/namespaces",
    "policies": "/apis/networking.k8s.io/v1/networkpolicies",
}


class Api:
    """The API server, asked with a certificate from the cluster's folder."""

    def __init__(self, state, host):
        self.host = host
        self.context = ssl.create_default_context(cafile=state / "pki/ca.crt")
        self.context.load_cert_chain(state / "pki/policies.crt", state / "pki/policies.key")

    def get(self, path):
        connection = http.client.HTTPSConnection(self.host, context=self.context)
        connection.request("GET", path, headers={"Accept": "application/json"})
        response = connection.getresponse()
        if response.status != 200:
            raise OSError(f"{response.status} {response.reason}")
        return response


class Watch(threading.Thread):
    """Keeps all objects of one kind, by UID, and says when they change."""

    def __init__(self, api, path, changed):
        super().__init__(daemon=True)
        self.api, self.path, self.changed = api, path, changed
        self.objects, self.known, self.lock = {}, False, threading.Lock()

    def all(self):
        with self.lock:
            return list(self.objects.values())

    def run(self):
        while True:
            try:
                self.follow()
            except (OSError, ValueError, KeyError, http.client.HTTPException) as error:
                print(f"{self.path}: {error!r}; again in a second", flush=True)
            time.sleep(1)

    def follow(self):
        everything = json.load(self.api.get(self.path))
        with self.lock:
            self.objects = {item["metadata"]["uid"]: item for item in everything["items"]}
        self.known = True
        self.changed.set()
        version = everything["metadata"]["resourceVersion"]
        for line in self.api.get(f"{self.path}?watch=1&resourceVersion={version}"):
            event = json.loads(line)
            if event["type"] == "ERROR":
                return
            uid = event["object"]["metadata"]["uid"]
            with self.lock:
                if event["type"] == "DELETED":
                    self.objects.pop(uid, None)
                else:
                    self.objects[uid] = event["object"]
            self.changed.set()


def selects(selector, labels):
    """An absent part of a selector demands nothing."""
    for key, value in (selector.get("matchLabels") or {}).items():
        if labels.get(key) != value:
            return False
    for demand in selector.get("matchExpressions") or []:
        value, values = labels.get(demand["key"]), demand.get("values") or []
        holds = {
            "In": value in values,
            "NotIn": value not in values,
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }
        if not holds[demand["operator"]]:
            return False
    return True


def labels(item):
    return item["metadata"].get("labels") or {}


def has_address(pod):
    status = pod.get("status") or {}
    ended = status.get("phase") in ("Succeeded", "Failed")
    return bool(status.get("podIP")) and not ended and not pod["spec"].get("hostNetwork")


def peers(peer, namespace, pods, namespaces):
    """Pods that a peer means; None if it means a block of addresses."""
    if "ipBlock" in peer:
        return None
    chosen = {namespace}
    if "namespaceSelector" in peer:
        chosen = {each["metadata"]["name"] for each in namespaces if selects(peer["namespaceSelector"], labels(each))}
    selector = peer.get("podSelector") or {}
    return [pod for pod in pods if pod["metadata"]["namespace"] in chosen and selects(selector, labels(pod))]


def ports(rule, target):
    """Matches on ports, for traffic to `target`; None if that is an address, which has no names of ports."""
    if not rule.get("ports"):
        return [""]
    matches = []
    for each in rule["ports"]:
        protocol, port = each.get("protocol", "TCP").lower(), each.get("port")
        if port is None:
            matches.append(f"meta l4proto {protocol}")
        elif isinstance(port, int):
            matches.append(f"{protocol} dport {port}-{each['endPort']}" if "endPort" in each else f"{protocol} dport {port}")
        else:
            for container in target["spec"]["containers"] if target else []:
                for named in container.get("ports") or []:
                    if named.get("name") == port and named.get("protocol", "TCP").lower() == protocol:
                        matches.append(f"{protocol} dport {named['containerPort']}")
    return matches


def allowed(rule, direction, pod, namespace, pods, namespaces):
    """Lines that let a packet go on."""
    side, field = ("from", "saddr") if direction == "Ingress" else ("to", "daddr")
    for peer in rule.get(side) or [{}]:
        if not peer:
            # Nobody in particular: everybody.
            found, matches = None, [("", None)]
        elif (found := peers(peer, namespace, pods, namespaces)) is None:
            block = peer["ipBlock"]
            outside = "".join(f" ip {field} != {each}" for each in block.get("except") or [])
            matches = [(f"ip {field} {block['cidr']}{outside}", None)]
        else:
            matches = [(f"ip {field} {each['status']['podIP']}", each) for each in found]
        for match, other in matches:
            for port in ports(rule, pod if direction == "Ingress" else other):
                yield f"    {match} {port} return"


def table(node, pods, namespaces, policies):
    """The rules of one node, for its own pods: what leaves them, and what comes to them from anywhere."""
    jumps, chains = [], []
    pods = sorted(filter(has_address, pods), key=lambda pod: pod["status"]["podIP"])
    for direction, field in (("Egress", "saddr"), ("Ingress", "daddr")):
        for pod in (pod for pod in pods if pod["spec"].get("nodeName") == node):
            mine = [each for each in policies if concerns(each, direction, pod)]
            if not mine:
                continue
            address = pod["status"]["podIP"]
            name = f"{direction.lower()}-{address.replace('.', '-')}"
            jumps.append(f"    ip {field} {address} jump {name}")
            lines = {
                line
                for policy in mine
                for rule in policy["spec"].get(direction.lower()) or []
                for line in allowed(rule, direction, pod, policy["metadata"]["namespace"], pods, namespaces)
            }
            chains += [f"  chain {name} {{", *sorted(lines), "    counter drop", "  }"]
    forward = ["    type filter hook forward priority filter; policy accept;", "    ct state established,related accept"]
    body = [*chains, "  chain forward {", *forward, *jumps, "  }"]
    return "\n".join(["table ip policies {}", "delete table ip policies", "table ip policies {", *body, "}", ""])


def concerns(policy, direction, pod):
    spec = policy["spec"]
    kinds = spec.get("policyTypes") or (["Ingress", "Egress"] if "egress" in spec else ["Ingress"])
    same = policy["metadata"]["namespace"] == pod["metadata"]["namespace"]
    return same and direction in kinds and selects(spec.get("podSelector") or {}, labels(pod))


def main(state, host):
    changed, api = threading.Event(), Api(state, host)
    watches = {kind: Watch(api, path, changed) for kind, path in KINDS.items()}
    for watch in watches.values():
        watch.start()
    applied = {}
    while True:
        # At least once a second: a node that was booted again has no rules yet.
        news = changed.wait(1)
        # Changes come in groups.
        time.sleep(0.05 if news else 0)
        changed.clear()
        if not all(watch.known for watch in watches.values()):
            continue
        seen = [watch.all() for watch in watches.values()]
        for file in state.glob("pid/node?"):
            try:
                process = file.read_text()
                if not news and applied.get(file, ("",))[0] == process:
                    continue
                text = table(file.name, *seen)
                if applied.get(file) != (process, text):
                    command = ["nsenter", "--target", process.split()[0], "--net", "nft", "--file", "-"]
                    subprocess.run(command, input=text, text=True, check=True)
                    applied[file] = (process, text)
            except (OSError, IndexError, subprocess.CalledProcessError) as error:
                applied.pop(file, None)
                print(f"{file.name}: {error!r}; again in a second", flush=True)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), sys.argv[2])
