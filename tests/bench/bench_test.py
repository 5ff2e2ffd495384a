"""The benchmark runs, says something sensible of every row, and promises what its README says."""

import json
import math
import os
import pathlib
import re
import subprocess
import unittest

from tests import junit

_HERE = pathlib.Path(os.environ["TEST_SRCDIR"], os.environ["TEST_WORKSPACE"], "tests/bench")
# | `row` | what | floor | target |
_ROW = re.compile(r"^\| `(\w+)` \|(?:[^|]*\|){2} ([^|]*) \|$", re.M)


# Where the README tells of the rows of each program.
_SECTIONS = {"engine": "# The engine's speed", "kvm": "# Guests on kvm"}
_NOT_HERE = 3  # exit code: this host cannot measure them


def run(*arguments, program="engine"):
    return subprocess.run([_HERE / program, *arguments], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True)


def listed(program):
    return [tuple(line.split("\t")) for line in run("--list", program=program).stdout.splitlines()]


def rows_in_readme(program):
    section = (_HERE / "README.md").read_text().split(_SECTIONS[program] + "\n")[1]
    return _ROW.findall(section.split("\n# ")[0])


class Bench(unittest.TestCase):

    def check_results(self, *arguments, program="engine"):
        """Runs once with --quick; returns the names of its rows after a look at each."""
        path = pathlib.Path(os.environ["TEST_TMPDIR"], "results.json")
        path.unlink(missing_ok=True)
        done = run("--quick", "--rounds=1", f"--json={path}", *arguments,
                   program=program)
        if done.returncode == _NOT_HERE:
            self.skipTest(done.stderr)
        self.assertEqual(done.returncode, 0, done.stderr)
        results = json.loads(path.read_text())
        self.assertEqual((results["quick"], results["rounds"]), (True, 1))
        lines = done.stdout.splitlines()[1:]
        self.assertEqual([line.split()[0] for line in lines],
                         [row["name"] for row in results["rows"]])
        for row in results["rows"]:
            with self.subTest(row["name"]):
                numbers = [row["measured"]]
                if row["floor"] is not None:
                    numbers += [row["floor"], row["round_ratios"], {"ratio": row["ratio"]}]
                for number in (n for summary in numbers for n in summary.values()):
                    # Work takes time; of flushes there may be none at all.
                    enough = number >= 0 if "flushes" in row["name"] else number > 0
                    self.assertTrue(math.isfinite(number) and enough, row)
                self.assertIn(row["verdict"], ["ok", "over"] if row["target"] != "-" else ["-"])
        return [row["name"] for row in results["rows"]]

    def test_EveryRowHasPositiveFiniteNumbers(self):
        self.assertEqual(self.check_results(), [name for name, _ in listed("engine")])

    def test_EveryRowOfKvmHasPositiveFiniteNumbers(self):
        self.assertEqual(self.check_results(program="kvm"), [name for name, _ in listed("kvm")])

    def test_TheReadmeNamesEveryRowAndItsTarget(self):
        for program in _SECTIONS:
            self.assertEqual(rows_in_readme(program), listed(program))

    def test_AFilterChooses(self):
        self.assertEqual(self.check_results("--filter=convert_scattered_f"),
                         ["convert_scattered_flushes"])
        none = run("--filter=no such row")
        self.assertEqual(none.returncode, 2)
        self.assertIn("no row's name contains 'no such row'", none.stderr)

    def test_OnlyAnOptimizedBuildMeasuresInFull(self):
        done = run("--filter=convert_scattered_flushes", "--rounds=1")
        path = pathlib.Path(os.environ["TEST_TMPDIR"], "optimized.json")
        run("--quick", "--filter=convert_scattered_flushes", f"--json={path}")
        if json.loads(path.read_text())["optimized"]:
            self.assertEqual(done.returncode, 0, done.stderr)
        else:
            self.assertEqual(done.returncode, 2)
            self.assertIn("not optimized", done.stderr)

    def test_MistakesAreNamed(self):
        for arguments, what in [(["--quick", "--rounds=-1"], "--rounds is 1 to 1000, not -1"),
                                (["--quick", "loud"], "what is 'loud'?"),
                                (["--quick", "--filter=fault_count", "--json=/no/such/folder/x"],
                                 "cannot write /no/such/folder/x")]:
            with self.subTest(arguments):
                done = run(*arguments)
                self.assertNotEqual(done.returncode, 0)
                self.assertIn(what, done.stderr)


if __name__ == "__main__":
    junit.main()
