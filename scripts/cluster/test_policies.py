"""The rules that policies.py makes, without a cluster."""

import sys
import unittest

sys.dont_write_bytecode = True
import policies  # noqa: E402


def pod(name, address, namespace="a", ports=(), **labels):
    containers = [{"ports": [{"name": word, "containerPort": number} for word, number in ports]}]
    return {
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"containers": containers, "nodeName": "node2" if namespace == "b" else "node1"},
        "status": {"phase": "Running", "podIP": address},
    }


def policy(spec, namespace="a"):
    return {"metadata": {"namespace": namespace}, "spec": spec}


NAMESPACES = [{"metadata": {"name": name, "labels": {"team": name}}} for name in ("a", "b")]
WEB = pod("web", "10.0.0.1", app="web", ports=[("http", 8000)])
ASK = pod("ask", "10.0.0.2", app="ask")
FAR = pod("far", "10.0.0.3", namespace="b", app="ask", ports=[("http", 9000)])


def chains(*specs, node="node1"):
    """Lines of each pod's chain, without the drop at its end."""
    text = policies.table(node, [WEB, ASK, FAR], NAMESPACES, [policy(spec) for spec in specs])
    found = {}
    for block in text.split("  chain ")[1:]:
        name, *lines = [" ".join(line.split()) for line in block.strip().splitlines()]
        if name != "forward {":
            assert lines[-2:] == ["counter drop", "}"] or lines[-3:] == ["counter drop", "}", "}"], lines
            assert f"jump {name.removesuffix(' {')}\n" in text
            found[name.removesuffix(" {")] = lines[: lines.index("counter drop")]
    return found


class Rules(unittest.TestCase):
    def test_no_policy_holds_nothing_back(self):
        self.assertEqual(chains(), {})

    def test_a_policy_without_rules_lets_nobody_in_and_everything_out(self):
        self.assertEqual(chains({"podSelector": {"matchLabels": {"app": "web"}}}), {"ingress-10-0-0-1": []})

    def test_an_empty_selector_means_the_pods_of_its_own_namespace(self):
        self.assertEqual(set(chains({"podSelector": {}})), {"ingress-10-0-0-1", "ingress-10-0-0-2"})

    def test_a_peer_is_looked_for_in_the_policys_namespace_unless_it_names_others(self):
        spec = {"podSelector": {"matchLabels": {"app": "web"}}}
        near = spec | {"ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "ask"}}}]}]}
        self.assertEqual(chains(near), {"ingress-10-0-0-1": ["ip saddr 10.0.0.2 return"]})
        both = {"podSelector": {"matchLabels": {"app": "ask"}}, "namespaceSelector": {"matchLabels": {"team": "b"}}}
        self.assertEqual(chains(spec | {"ingress": [{"from": [both]}]}), {"ingress-10-0-0-1": ["ip saddr 10.0.0.3 return"]})

    def test_names_of_ports_are_those_of_the_pod_that_is_called(self):
        spec = {"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"ports": [{"port": "http"}, {"port": "no"}]}]}
        self.assertEqual(chains(spec), {"ingress-10-0-0-1": ["tcp dport 8000 return"]})
        away = {"to": [{"namespaceSelector": {}}], "ports": [{"port": "http"}]}
        self.assertEqual(
            chains({"podSelector": {"matchLabels": {"app": "ask"}}, "policyTypes": ["Egress"], "egress": [away]}),
            {"egress-10-0-0-2": ["ip daddr 10.0.0.1 tcp dport 8000 return", "ip daddr 10.0.0.3 tcp dport 9000 return"]},
        )

    def test_blocks_ranges_and_protocols(self):
        block = {"ipBlock": {"cidr": "10.1.0.0/16", "except": ["10.1.2.0/24"]}}
        many = [{"port": 10, "endPort": 20}, {"port": 53, "protocol": "UDP"}, {"protocol": "TCP"}]
        spec = {"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"from": [block], "ports": many}]}
        source = "ip saddr 10.1.0.0/16 ip saddr != 10.1.2.0/24"
        ports = ["meta l4proto tcp", "tcp dport 10-20", "udp dport 53"]
        self.assertEqual(chains(spec), {"ingress-10-0-0-1": [f"{source} {port} return" for port in ports]})

    def test_egress_in_the_spec_makes_it_a_policy_for_egress_too(self):
        spec = {"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{}], "egress": []}
        self.assertEqual(chains(spec), {"egress-10-0-0-1": [], "ingress-10-0-0-1": ["return"]})

    def test_a_node_has_rules_for_its_own_pods_alone(self):
        self.assertEqual(chains({"podSelector": {}}, node="node2"), {})

    def test_policies_add_up(self):
        one = {"podSelector": {}, "ingress": [{"ports": [{"port": 1}]}]}
        two = {"podSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["web"]}]}, "ingress": [{}]}
        self.assertEqual(chains(one, two)["ingress-10-0-0-1"], ["return", "tcp dport 1 return"])


unittest.main()
