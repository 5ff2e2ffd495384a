"""The Prometheus files are what Prometheus takes, do what they say, and send nobody to a dead end."""

import os
import pathlib
import re
import subprocess
import unittest


from tests import junit

_FOLDER = pathlib.Path("deploy/prometheus")
_RUNBOOKS = pathlib.Path("docs/runbooks.md").read_text()


def promtool(*arguments):
    """(exit code, everything it said)."""
    done = subprocess.run(["promtool", *map(str, arguments)], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)
    return done.returncode, done.stdout


class Rules(unittest.TestCase):

    def assertTakes(self, *arguments):
        code, output = promtool(*arguments)
        self.assertEqual(code, 0, output)
        return output

    def test_PrometheusTakesTheConfiguration(self):
        output = self.assertTakes("check", "config", _FOLDER / "prometheus.yml")
        self.assertIn("2 rule files found", output)

    def test_PrometheusTakesTheRules(self):
        files = sorted(_FOLDER.glob("*_rules.yml"))
        self.assertEqual(len(files), 2)
        self.assertTakes("check", "rules", *files)

    def test_TheRulesDoWhatTheySay(self):
        self.assertTakes("test", "rules", "tests/deploy/prometheus/rules.test.yml")

    def test_AWrongRuleIsRefused(self):
        path = pathlib.Path(os.environ["TEST_TMPDIR"], "wrong.yml")
        path.write_text((_FOLDER / "recording_rules.yml").read_text().replace("sum by", "sum bye"))
        self.assertNotEqual(promtool("check", "rules", path)[0], 0)


class Runbooks(unittest.TestCase):

    def setUp(self):
        rules = (_FOLDER / "alert_rules.yml").read_text()
        self.alerts = re.findall(r"- alert: (\w+)", rules)
        self.links = re.findall(r"runbook_url: (\S+)", rules)
        self.sections = re.split(r"^## ", _RUNBOOKS, flags=re.MULTILINE)[1:]

    def test_EveryAlertHasItsSectionInOrder(self):
        self.assertGreater(len(self.alerts), 10)
        self.assertEqual([section.split("\n")[0] for section in self.sections], self.alerts)

    def test_EveryLinkLeadsThere(self):
        self.assertEqual(self.links, [f"docs/runbooks.md#{name.lower()}" for name in self.alerts])
        anchors = {name.lower() for name in self.alerts}
        self.assertLessEqual(set(re.findall(r"\]\(#(\w+)\)", _RUNBOOKS)), anchors)

    def test_EverySectionSaysWhatToLookAt(self):
        for section in self.sections:
            with self.subTest(section.split("\n")[0]):
                self.assertRegex(section, r"hvctl|journalctl")

    def test_EveryAlertIsInTheUnitTests(self):
        tests = pathlib.Path("tests/deploy/prometheus/rules.test.yml").read_text()
        for name in self.alerts:
            self.assertIn(f'alertname="{name}"', tests)


if __name__ == "__main__":
    junit.main()
