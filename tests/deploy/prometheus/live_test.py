"""A real Prometheus scrapes a real hvd: every query of the dashboards and the rules has an answer.

TWINROOT_DASHBOARDS=FOLDER keeps the pictures, of as many seconds as TWINROOT_DASHBOARD_SECONDS.
"""

import json
import os
import pathlib
import re
import time
import urllib.request
import xml.etree.ElementTree

from deploy.grafana import draw
from tests import junit
from tests.deploy.prometheus import expressions, guests, server
from tests.e2e import harness

_SECONDS = float(os.environ.get("TWINROOT_DASHBOARD_SECONDS", "12"))
_DASHBOARDS = sorted(pathlib.Path("deploy/grafana").glob("*.json"))


class Live(harness.E2eTest):

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        # One daemon and one Prometheus for all cases: the seconds of scraping are the dear part.
        cls.home = cls("folder")
        cls.hvd = cls.home.start("--backend", "sim")
        cls.addClassCleanup(cls.home.doCleanups)
        crowd = guests.Guests(cls.hvd)
        cls.target = cls.hvd.host()["metricsAddress"]
        cls.prometheus = server.Server(cls.target, cls.hvd.folder)
        cls.addClassCleanup(cls.prometheus.close)
        end = time.monotonic() + _SECONDS
        while time.monotonic() < end:
            crowd.step()
            time.sleep(0.4)
        cls.api = draw.Prometheus(cls.prometheus.url, int(_SECONDS), 1)

    def test_EveryQueryHasData(self):
        asked = expressions.of_dashboards() + expressions.of_rules()
        self.assertGreater(len(asked), 90)
        excused = set()
        for where, expression, instant in asked:
            with self.subTest(f"{where}: {expression}"):
                rows = self.api.ask(expression, instant)  # an error fails, too
                if not rows:
                    part = expressions.excuse(expression)
                    self.assertIsNotNone(part, "no data")
                    excused.add(part)
        # An excuse that nothing needs is none.
        self.assertEqual(excused, set(expressions.MAY_BE_EMPTY))

    def test_EveryRuleIsHealthy(self):
        rules = [rule for group in self.api.get("rules")["groups"] for rule in group["rules"]]
        self.assertEqual(len(rules), len(expressions.of_rules()))
        for rule in rules:
            self.assertEqual((rule["health"], rule.get("lastError", "")), ("ok", ""), rule["name"])

    def test_NoScrapeFailed(self):
        (target,) = self.api.get("targets")["activeTargets"]
        self.assertEqual((target["health"], target["lastError"]), ("up", ""))
        ((_, ups),) = self.api.ask("up")
        self.assertEqual({up for _, up in ups}, {1})

    def test_TheDocumentSaysWhatIsServed(self):
        documented = {}
        for name, kind, labels, words in re.findall(
                r"^\| `(\w+)` \| (\w+) \| [^|]*\| ([^|]*) \| (.*) \|$",
                pathlib.Path("docs/METRICS.md").read_text(), re.MULTILINE):
            documented[name] = (kind, words, set(re.findall(r"`(\w+)`", labels)))
        with urllib.request.urlopen(f"http://{self.target}/metrics") as page:
            text = page.read().decode()
        helps = dict(re.findall(r"^# HELP (\w+) (.*)$", text, re.MULTILINE))
        served = {name: (kind, helps[name].replace('\\"', '"'))
                  for name, kind in re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE)}
        self.assertEqual(served, {name: entry[:2] for name, entry in documented.items()})
        for name, labels in re.findall(r"^(\w+)(?:\{(.*)\})? \S+$", text, re.MULTILINE):
            if name not in documented:
                name = re.sub(r"_(bucket|sum|count)$", "", name)
            self.assertEqual(set(re.findall(r'(\w+)="', labels)) - {"le", "quantile"},
                             documented[name][2], name)

    def test_EveryDashboardCanBeDrawn(self):
        folder = os.environ.get("TWINROOT_DASHBOARDS")
        for path in _DASHBOARDS:
            with self.subTest(path.stem):
                board = json.loads(path.read_text())
                picture = draw.svg(board, self.api)
                if folder:
                    pathlib.Path(folder, f"{path.stem}.svg").write_text(picture)
                words = "".join(xml.etree.ElementTree.fromstring(picture).itertext())
                for panel in board["panels"]:
                    self.assertIn(panel["title"], words)
                drawn = picture.count("<polyline") + picture.count('font-size="28"')
                self.assertGreaterEqual(drawn, len(board["panels"]))

    def test_AQueryThatIsWrongFails(self):
        with self.assertRaisesRegex(ValueError, "parse error"):
            self.api.ask("sum(")
        self.assertEqual(self.api.ask("twinroot_no_such_metric"), [])


if __name__ == "__main__":
    junit.main()
