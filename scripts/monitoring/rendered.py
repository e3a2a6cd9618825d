#!/usr/bin/env python3
"""rendered.py DEFAULT EVERYTHING NAMESPACED: what the chart makes of three sets of values, object by object."""

import json
import pathlib
import sys

import yaml

from metrics import ROOT


def objects(path: str) -> dict[tuple[str, str], dict]:
    found: dict[tuple[str, str], dict] = {}
    for document in yaml.safe_load_all(pathlib.Path(path).read_text()):
        if document:
            key = document["kind"], document["metadata"]["name"]
            assert key not in found, f"{key} is there twice"
            found[key] = document
    return found


def selects(selector: dict, labels: dict) -> bool:
    return bool(selector) and selector.items() <= labels.items()


def main() -> None:
    default, everything, namespaced = map(objects, sys.argv[1:])
    new = {key for key in everything if key not in default}
    assert {kind for kind, _ in new} == {
        "PodDisruptionBudget", "Service", "ServiceMonitor", "PodMonitor", "PrometheusRule", "ConfigMap",
    }, new

    # Whatever finds the operator's pods finds them, and the port that it names is there.
    pod = everything["Deployment", "shoal-operator"]["spec"]["template"]
    labels, container = pod["metadata"]["labels"], pod["spec"]["containers"][0]
    monitor = everything["ServiceMonitor", "shoal-operator"]["spec"]
    service = everything["Service", "shoal-operator"]
    assert selects(service["spec"]["selector"], labels)
    assert selects(everything["PodDisruptionBudget", "shoal-operator"]["spec"]["selector"]["matchLabels"], labels)
    assert selects(everything["NetworkPolicy", "shoal-operator"]["spec"]["podSelector"]["matchLabels"], labels)
    assert selects(monitor["selector"]["matchLabels"], service["metadata"]["labels"])
    assert {port["name"] for port in service["spec"]["ports"]} == {end["port"] for end in monitor["endpoints"]}
    assert all(end["honorLabels"] for end in monitor["endpoints"]), "namespaces of ServingClusters would be hidden"
    assert {port["name"] for port in container["ports"]} == {port["targetPort"] for port in service["spec"]["ports"]}
    assert container["args"][-1] == "--log=debug" and labels["example.com/c"] == "d"
    spread = default["Deployment", "shoal-operator"]["spec"]["template"]["spec"]["topologySpreadConstraints"]
    assert spread[0]["labelSelector"]["matchLabels"].items() <= labels.items()

    # Pods as the operator makes them, by the snapshots of its own tests.
    for component, snapshot in (("instance", "an_instance"), ("gateway", "gateway_deployment")):
        text = (ROOT / f"operator/src/children/snapshots/shoal_operator__children__tests__{snapshot}.snap").read_text()
        made = yaml.safe_load(text.split("---\n", 2)[2])
        made = made if component == "instance" else {**made["spec"]["template"]}
        spec = everything["PodMonitor", f"shoal-operator-{component}s"]["spec"]
        assert selects(spec["selector"]["matchLabels"], made["metadata"]["labels"]), component
        ports = {port["name"] for port in made["spec"]["containers"][0]["ports"]}
        assert {end["port"] for end in spec["podMetricsEndpoints"]} <= ports, component
        for rule in spec["podMetricsEndpoints"][0]["relabelings"]:
            source = rule["sourceLabels"][0].removeprefix("__meta_kubernetes_pod_label_")
            known = {"".join(c if c.isalnum() else "_" for c in label) for label in made["metadata"]["labels"]}
            assert source in known, f"{component} pods have no label {source}"

    for rendered in (everything, namespaced):
        boards = [o for (kind, name), o in rendered.items() if kind == "ConfigMap" and "-dashboard-" in name]
        assert {json.loads(text)["uid"] for board in boards for text in board["data"].values()} == {
            "shoal-fleet", "shoal-cluster",
        }
        assert all(board["metadata"]["labels"]["grafana_dashboard"] == "1" for board in boards)
    rules = [rule for group in everything["PrometheusRule", "shoal-operator"]["spec"]["groups"] for rule in group["rules"]]
    source = yaml.safe_load((ROOT / "charts/shoal/files/alerts.yaml").read_text())
    assert [rule["expr"] for rule in rules] == [rule["expr"] for group in source["groups"] for rule in group["rules"]]
    assert all(rule["annotations"]["runbook_url"].startswith("https://example.com/runbooks#shoal") for rule in rules)
    assert all(o["metadata"]["labels"]["team"] == "inference" for o in everything.values())
    assert everything["PrometheusRule", "shoal-operator"]["metadata"]["labels"]["release"] == "kube-prometheus-stack"


if __name__ == "__main__":
    main()
