#!/usr/bin/env python3
"""Every expression of the chart's alerts and dashboards: it parses, its metrics exist, and so do the labels that it
selects and groups by. Metrics are those of the table in docs/observability.md; metrics.py holds that to the programs.
"""

import json
import pathlib
import re
import sys

import promql_parser as promql
import yaml

from metrics import ROOT, Metric, table

FILES = ROOT / "charts/shoal/files"
RUNBOOKS = ROOT / "docs/runbooks.md"
# What Prometheus adds to what the chart's monitors scrape; the last two by their relabelings.
TARGET = {"namespace", "pod", "container", "endpoint", "job", "instance", "serving_cluster"}
ENGINE_TARGET = TARGET | {"role"}
# Grafana's variables, as values that parse.
VARIABLES = {"$__rate_interval": "5m", "$namespace": "x", "$cluster": "x", "$operator": "x"}


def family(name: str, rows: dict[str, Metric]) -> Metric | None:
    """The metric that a series belongs to: histograms have three kinds of them."""
    base = re.sub(r"_(bucket|sum|count)$", "", name)
    if base in rows and rows[base].kind == "histogram":
        return rows[base] if base != name else None
    return rows.get(name)


def labels_of(name: str, rows: dict[str, Metric]) -> set[str] | None:
    if name == "up":
        return ENGINE_TARGET
    metric = family(name, rows)
    if metric is None:
        return None
    target = ENGINE_TARGET if metric.program == "engine" else TARGET
    # A label of ours that a target label hides is renamed by Prometheus: nothing here may count on it.
    own = {label for label in metric.labels if label not in target}
    return target | own | ({"le"} if name.endswith("_bucket") else set())


def walk(node, rows, faults) -> set[str]:
    """Labels that the node's series may have; what is wrong goes into faults."""
    match node:
        case promql.VectorSelector():
            name = node.name
            known = labels_of(name, rows)
            if known is None:
                faults.append(f"no program exposes {name}")
                return set()
            for matcher in node.matchers.matchers:
                if matcher.name not in known:
                    faults.append(f"{name} has no label {matcher.name}")
            return known
        case promql.MatrixSelector():
            return walk(node.vector_selector, rows, faults)
        case promql.SubqueryExpr() | promql.ParenExpr() | promql.UnaryExpr():
            return walk(node.expr, rows, faults)
        case promql.Call():
            return set().union(*(walk(arg, rows, faults) for arg in node.args))
        case promql.AggregateExpr():
            inner = walk(node.expr, rows, faults)
            by = set(node.modifier.labels) if node.modifier else set()
            faults.extend(f"nothing to group by {label} in {node.expr}" for label in sorted(by - inner))
            return by
        case promql.BinaryExpr():
            return walk(node.lhs, rows, faults) | walk(node.rhs, rows, faults)
        case _:
            return set()


def check(where: str, expression: str, rows: dict[str, Metric], legend: str = "") -> list[str]:
    for variable, value in VARIABLES.items():
        expression = expression.replace(variable, value)
    try:
        tree = promql.parse(expression)
    except ValueError as error:
        return [f"{where}: {error}"]
    faults: list[str] = []
    has = walk(tree, rows, faults)
    faults += [f"no label {label} for the text {legend!r}"
               for label in re.findall(r"\{\{\s*(?:\$labels\.)?(\w+)\s*\}\}", legend) if label not in has]
    return [f"{where}: {fault}" for fault in faults]


def alerts(rows: dict[str, Metric]) -> list[str]:
    sections = set(re.findall(r"^## (\w+)$", RUNBOOKS.read_text(), re.M))
    faults, names = [], set()
    for group in yaml.safe_load((FILES / "alerts.yaml").read_text())["groups"]:
        for rule in group["rules"]:
            name, notes = rule["alert"], rule["annotations"]
            names.add(name)
            faults += check(name, rule["expr"], rows, notes["summary"] + notes["description"])
            if notes["runbook_url"] != f"docs/runbooks.md#{name.lower()}":
                faults.append(f"{name}: its runbook_url is not docs/runbooks.md#{name.lower()}")
    faults += [f"{name}: no section in docs/runbooks.md" for name in sorted(names - sections)]
    return faults + [f"docs/runbooks.md: no alert {name}" for name in sorted(sections - names)]


def dashboards(rows: dict[str, Metric]) -> list[str]:
    faults, uids = [], set()
    for path in sorted(FILES.glob("dashboards/*.json")):
        board = json.loads(path.read_text())
        if board["uid"] in uids:
            faults.append(f"{path.name}: another dashboard has the uid {board['uid']}")
        uids.add(board["uid"])
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                selector, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"]).groups()
                faults += check(f"{path.name}: ${variable['name']}", f"sum by ({label}) ({selector})", rows)
        for panel in board["panels"]:
            if panel["type"] != "row" and not panel["targets"]:
                faults.append(f"{path.name}: {panel['title']} shows nothing")
            for target in panel.get("targets", []):
                where = f"{path.name}: {panel['title']}"
                faults += check(where, target["expr"], rows, target["legendFormat"])
    return faults


def main() -> int:
    rows = table()
    faults = alerts(rows) + dashboards(rows)
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
