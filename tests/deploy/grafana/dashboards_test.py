"""The dashboards are what their generator writes, and ask for metrics that there are."""

import json
import pathlib
import re
import unittest

from deploy.grafana import generate
from tests import junit

_FILES = sorted(pathlib.Path("deploy/grafana").glob("*.json"))
_DOCUMENTED = set(re.findall(r"^\| `(\w+)`", pathlib.Path("docs/METRICS.md").read_text(), re.M))


def panels():
    """(dashboard and title, panel)."""
    return [(f"{path.stem}: {panel['title']}", panel) for path in _FILES
            for panel in json.loads(path.read_text())["panels"]]


class Dashboards(unittest.TestCase):

    def test_TheyAreWhatTheGeneratorWrites(self):
        self.assertEqual({path.stem for path in _FILES}, set(generate.DASHBOARDS))
        for path in _FILES:
            with self.subTest(path.stem):
                self.assertEqual(path.read_text(), generate.text(path.stem),
                                 "run deploy/grafana/generate.py")

    def test_TheReaderChoosesTheDataSource(self):
        for path in _FILES:
            board = json.loads(path.read_text())
            self.assertEqual(board["templating"]["list"][0]["type"], "datasource")
            for panel in board["panels"]:
                for part in (panel, *panel["targets"]):
                    self.assertEqual(part["datasource"]["uid"], "${datasource}")

    def test_EveryPanelHasATitleAUnitAndAQuery(self):
        self.assertGreater(len(panels()), 50)
        for where, panel in panels():
            with self.subTest(where):
                self.assertTrue(panel["title"] and panel["targets"])
                self.assertTrue(panel["fieldConfig"]["defaults"]["unit"])

    def test_NoPanelsOverlap(self):
        for path in _FILES:
            taken = set()
            for panel in json.loads(path.read_text())["panels"]:
                place = panel["gridPos"]
                cells = {(place["x"] + i, place["y"] + j) for i in range(place["w"])
                         for j in range(place["h"])}
                self.assertLessEqual(place["x"] + place["w"], 24)
                self.assertFalse(cells & taken, f"{path.stem}: {panel['title']}")
                taken |= cells

    def test_EveryMetricIsDocumented(self):
        for where, panel in panels():
            for target in panel["targets"]:
                for name in re.findall(r"\b(?:twinroot|process)_\w+", target["expr"]):
                    if f":{name}:" in target["expr"]:
                        continue  # a recording rule
                    name = re.sub(r"_seconds_(bucket|sum|count)$", "_seconds", name)
                    self.assertIn(name, _DOCUMENTED, where)


if __name__ == "__main__":
    junit.main()
