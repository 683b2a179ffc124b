"""What Prometheus and Grafana are given names metrics that exist, and every alert fires."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest
import yaml

from tests.etcd import skip_loudly

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "packaging" / "monitoring"
TOOLS = ROOT / "build" / "tools" / "usr" / "bin"
"""Where scripts/ci-tools puts Prometheus' programs."""

_NAME = re.compile(r"\b(?:etcd|connect_kv|grpc|process|os|python)_\w+")
_SUFFIX = re.compile(r"_(bucket|sum|count)$")
_STRINGS = re.compile(r'"[^"]*"')
_LABELS = {"grpc_method", "grpc_code", "grpc_service", "grpc_type"}


def tool_or_skip(name: str) -> str:
    found = shutil.which(name) or shutil.which(name, path=str(TOOLS))
    if found is None:
        skip_loudly(f"no {name}: scripts/ci-tools installs it")
    assert found is not None
    return found


def alerts() -> list[dict[str, object]]:
    text = (FOLDER / "alerts.yml").read_text()
    return [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]


def expressions() -> Iterator[str]:
    """Every query of the dashboard and of the rules."""
    yield from (str(alert["expr"]) for alert in alerts())
    dashboard = json.loads((FOLDER / "grafana-dashboard.json").read_text())
    for panel in dashboard["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["query"]["query"]


def metrics_named() -> set[str]:
    """Every name of a sample in them."""
    return {name for one in expressions() for name in _NAME.findall(_STRINGS.sub('""', one))} - _LABELS


def unheard_of(known: Collection[str]) -> set[str]:
    """Of these names, those that no metric has that is `known` by what /metrics says the type of."""
    return {name for name in metrics_named() if name not in known and _SUFFIX.sub("", name) not in known}


def test_every_metric_that_is_asked_for_is_documented() -> None:
    """And what is documented is shown by a real member: tests/cluster/test_metrics.py."""
    known = set(re.findall(r"`(\w+)`", (ROOT / "docs" / "metrics.md").read_text()))
    assert len(metrics_named()) > 30
    assert not unheard_of(known)
    assert unheard_of(known - {"connect_kv_sessions"}) == {"connect_kv_sessions"}


def test_the_dashboard_can_be_taken() -> None:
    dashboard = json.loads((FOLDER / "grafana-dashboard.json").read_text())
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: dict[tuple[int, int], str] = {}
    for panel in panels:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        for x in range(at["x"], at["x"] + at["w"]):
            for y in range(at["y"], at["y"] + at["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"], "one lies over another"
    assert "${datasource}" in json.dumps(dashboard), "it is bound to no one's Prometheus"


def test_every_alert_is_explained_and_has_a_test() -> None:
    names = [str(alert["alert"]) for alert in alerts()]
    page = (ROOT / "docs" / "monitoring.md").read_text()
    assert [name for name in names if f"| `{name}` |" not in page] == []
    tested = yaml.safe_load((FOLDER / "alerts_test.yml").read_text())["tests"]
    assert sorted(one["name"] for one in tested) == sorted(names)
    for one in tested:
        well, wrong = one["promql_expr_test"]
        assert (well["exp_samples"], len(wrong["exp_samples"])) == ([], 1)
        assert all(f'alertname="{one["name"]}"' in test["expr"] for test in (well, wrong))
    headings = {
        re.sub(r"[^\w -]", "", line.lstrip("# ")).lower().replace(" ", "-")
        for line in (ROOT / "docs" / "operations.md").read_text().splitlines()
        if line.startswith("#")
    }
    meant = re.findall(r"docs/operations\.md#([\w-]+)", (FOLDER / "alerts.yml").read_text())
    assert meant
    assert not set(meant) - headings


CHECKS = ("check rules alerts.yml", "check config prometheus.yml", "test rules alerts_test.yml")


@pytest.mark.parametrize("words", CHECKS)
def test_promtool_finds_no_fault_and_every_alert_fires(words: str) -> None:
    command = [tool_or_skip("promtool"), *words.split()]
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS" in done.stdout
