"""The totals count what really happened: nothing that has no result passes."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

from tests import junit

_PASS = '<testcase classname="A" name="Ok" status="run"/>'
_FAIL = '<testcase classname="A" name="Bad" status="run"><failure message="x"/></testcase>'
_FAILS_TWICE = ('<testcase classname="A" name="Worse" status="run"><failure message="y">a_test.cc:3\n'
                'Expected: 1</failure><failure message="z">Which is: 2</failure></testcase>')
_SKIP = ('<testcase classname="A" name="Skips" status="run" result="skipped">'
         '<skipped message="tests/a_test.cc:7&#10;no usable /dev/kvm&#10;"/></testcase>')
_OFF = '<testcase classname="A" name="DISABLED_Never" status="notrun" result="suppressed"/>'


class TestTotals(unittest.TestCase):

    def setUp(self):
        folder = tempfile.TemporaryDirectory(dir=os.environ["TEST_TMPDIR"])
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.files = 0

    def write(self, text):
        self.files += 1
        path = self.folder / str(self.files)
        path.write_text(text)
        return path

    def target(self, label, built=True):
        return [
            {"id": {"targetConfigured": {"label": label}},
             "configured": {"targetKind": "cc_test rule"}},
            {"id": {"targetCompleted": {"label": label}},
             "completed": {"success": True} if built else {}},
        ]

    def result(self, label, cases, status="PASSED", **where):
        path = self.write(f"<testsuites><testsuite>{cases}</testsuite></testsuites>")
        return {"id": {"testResult": {"label": label, **where}},
                "testResult": {"status": status, "testActionOutput": [
                    {"name": "test.xml", "uri": f"file://{path}"}]}}

    def finished(self, code):
        return {"id": {"buildFinished": {}}, "finished": {"exitCode": {"code": code} if code else {}}}

    def lane(self, *events, code=0):
        return self.write("\n".join(json.dumps(e) for e in [*events, self.finished(code)]))

    def totals(self, **lanes):
        """(exit code, lines) of the program."""
        done = subprocess.run(
            [sys.executable, "tools/test_totals.py", *(f"{k}={v}" for k, v in lanes.items())],
            stdout=subprocess.PIPE, text=True)
        return done.returncode, done.stdout.splitlines()

    def test_CountsCasesNotTargets(self):
        code, lines = self.totals(a=self.lane(
            *self.target("//a:a"), self.result("//a:a", _PASS * 3),
            *self.target("//b:b"), self.result("//b:b", _PASS)))
        self.assertEqual((code, lines[-1]), (0, "4 passed, 0 failed"))

    def test_MergesLanesIntoOneLine(self):
        good = self.lane(*self.target("//a:a"), self.result("//a:a", _PASS * 2))
        bad = self.lane(*self.target("//a:a"), self.result("//a:a", _PASS + _FAIL, "FAILED"), code=3)
        code, lines = self.totals(one=good, two=bad)
        self.assertEqual((code, lines[-1]), (1, "3 passed, 1 failed"))
        self.assertIn("lane one: 2 passed, 0 failed, 0 skipped", lines)
        self.assertIn("failed: lane two: //a:a A.Bad", lines)

    def test_SaysWhatFailedAndWhatItSaid(self):
        long = '<testcase classname="A" name="Long"><failure message="">{}</failure></testcase>'
        many = long.format("\n".join(map(str, range(50))))
        _, lines = self.totals(a=self.lane(
            *self.target("//a:a"), self.result("//a:a", _FAILS_TWICE + many, "FAILED"), code=3))
        at = lines.index("failed: lane a: //a:a A.Worse")
        self.assertEqual(lines[at:at + 5], [
            "failed: lane a: //a:a A.Worse", "  a_test.cc:3", "  Expected: 1", "  Which is: 2",
            "failed: lane a: //a:a A.Long"])
        self.assertEqual(lines[at + 44:at + 46], ["  39", "  ... and 10 lines more"])

    def test_OfACrashItShowsTheEndOfTheLog(self):
        log = self.write("begin\n" * 50 + "Segmentation fault\n")
        crash = self.result("//a:a", _PASS, "FAILED")
        crash["testResult"]["testActionOutput"].append({"name": "test.log", "uri": f"file://{log}"})
        _, lines = self.totals(a=self.lane(*self.target("//a:a"), crash, code=3))
        at = lines.index("failed: lane a: //a:a (FAILED)")
        self.assertEqual(lines[at + 1:at + 41], ["  begin"] * 39 + ["  Segmentation fault"])

    def test_OfATestThatEndedBeforeItSaidAnythingTheEndOfTheLogToo(self):
        log = self.write("Segmentation fault\n")
        bazels = '<testcase name="a/a"><error message="exited with error code 139"></error></testcase>'
        crash = self.result("//a:a", bazels, "FAILED")
        _, lines = self.totals(a=self.lane(*self.target("//a:a"), crash, code=3))
        at = lines.index("failed: lane a: //a:a")
        self.assertEqual(lines[at + 1], "  exited with error code 139")
        crash["testResult"]["testActionOutput"].append({"name": "test.log", "uri": f"file://{log}"})
        code, lines = self.totals(a=self.lane(*self.target("//a:a"), crash, code=3))
        self.assertEqual(lines[at + 1], "  Segmentation fault")
        self.assertEqual((code, lines[-1]), (1, "0 passed, 1 failed"))

    def test_SaysWhatWasSkippedAndWhy(self):
        code, lines = self.totals(a=self.lane(
            *self.target("//a:a"), self.result("//a:a", _PASS + _SKIP + _OFF)))
        self.assertEqual((code, lines[-1]), (0, "1 passed, 0 failed"))
        self.assertIn("skipped: no usable /dev/kvm", lines)
        self.assertIn("  lane a: //a:a A.Skips", lines)
        self.assertIn("skipped: disabled in the source", lines)
        self.assertEqual(lines[-2], "2 skipped, for the reasons above")

    def test_ACrashAfterPassedCasesFails(self):
        code, lines = self.totals(a=self.lane(
            *self.target("//a:a"), self.result("//a:a", _PASS, "TIMEOUT"), code=3))
        self.assertEqual((code, lines[-1]), (1, "1 passed, 1 failed"))

    def test_ATargetThatWasNotBuiltFails(self):
        for events in [self.target("//b:b", built=False), self.target("//b:b")[:1]]:
            code, lines = self.totals(a=self.lane(
                *self.target("//a:a"), self.result("//a:a", _PASS), *events, code=1))
            self.assertEqual((code, lines[-1]), (1, "1 passed, 1 failed"))

    def test_ATargetWithoutACaseFails(self):
        code, lines = self.totals(a=self.lane(
            *self.target("//a:a"), self.result("//a:a", _PASS),
            *self.target("//b:b"), self.result("//b:b", "")))
        self.assertEqual((code, lines[-1]), (1, "1 passed, 1 failed"))

    def test_AShardWithoutACaseIsFine(self):
        code, lines = self.totals(a=self.lane(
            *self.target("//a:a"), self.result("//a:a", _PASS, shard=1),
            self.result("//a:a", "", shard=2)))
        self.assertEqual((code, lines[-1]), (0, "1 passed, 0 failed"))

    def test_TheLastAttemptDecides(self):
        code, lines = self.totals(a=self.lane(
            *self.target("//a:a"), self.result("//a:a", _FAIL, "FAILED", attempt=1),
            self.result("//a:a", _PASS, attempt=2)))
        self.assertEqual((code, lines[-1]), (0, "1 passed, 0 failed"))

    def test_OfABuildEachTargetIsACase(self):
        started = {"id": {"started": {}}, "started": {"command": "build"}}
        aspect = {"id": {"targetCompleted": {"label": "//a:a", "aspect": "//tools:lint"}},
                  "completed": {"success": True}}
        code, lines = self.totals(a=self.lane(
            started, *self.target("//a:a"), aspect, *self.target("//b:b")))
        self.assertEqual((code, lines[-1]), (0, "2 passed, 0 failed"))
        del aspect["completed"]
        code, lines = self.totals(a=self.lane(
            started, *self.target("//a:a"), aspect, *self.target("//b:b"), code=1))
        self.assertEqual((code, lines[-1]), (1, "1 passed, 1 failed"))
        self.assertIn("failed: lane a: //a:a (not built)", lines)

    def test_ARunWithNoTestFails(self):
        code, lines = self.totals(a=self.lane(code=4))
        self.assertEqual((code, lines[-1]), (1, "0 passed, 0 failed"))

    def test_ARunThatEndedEarlyFails(self):
        good = self.target("//a:a") + [self.result("//a:a", _PASS)]
        interrupted = self.lane(*good, code=8)
        killed = self.write("\n".join(map(json.dumps, good)))
        for path in [interrupted, killed, self.folder / "missing"]:
            code, lines = self.totals(a=path)
            self.assertEqual(code, 1)
            self.assertRegex(lines[-1], r"^\d passed, 1 failed$")


if __name__ == "__main__":
    junit.main()
