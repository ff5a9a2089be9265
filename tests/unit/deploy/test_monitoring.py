"""Each alert in deploy/ has a test case, and the dashboard is complete."""

import json
import re

from bench.servers.prometheus import DEPLOY

ALERTS = DEPLOY / "alerts.yml"
CASES = DEPLOY.parent / "tests" / "support" / "alert_cases.yml"
DASHBOARD = json.loads((DEPLOY / "grafana-dashboard.json").read_text())


def test_each_alert_has_its_case():
    """Every alert fires in at least one case."""
    alerts = re.findall(r"alert: (\w+)", ALERTS.read_text())
    fires = re.findall(r"alertname: (\w+)\n *exp_alerts:\n *- exp_labels", CASES.read_text())
    assert set(fires) == set(alerts)


def test_dashboard_is_whole():
    """Panels have unique ids, a title and a query, and do not overlap."""
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all(panel["title"] and panel["targets"] for panel in panels)
    cells = [
        (x, y)
        for at in (panel["gridPos"] for panel in panels)
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
