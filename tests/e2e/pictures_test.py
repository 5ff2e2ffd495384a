"""What people look at: the map of a VM's memory, the rates of `top`, names that a shell completes."""

import json
import xml.etree.ElementTree

from tests import junit
from tests.e2e import harness
from tests.e2e.harness import MIB, PAGE

# Writes two private pages of its own, reads one, and shares another by touching it there.
_PROGRAM = {"vcpus": [{"steps": [
    {"write": {"gpa": str(4 * MIB), "value": "1"}},
    {"write": {"gpa": str(4 * MIB + PAGE), "value": "1"}},
    {"read": {"gpa": str(6 * MIB)}},
    {"write": {"gpa": str(8 * MIB), "alias": "SHARED", "value": "1"}},
]}]}


def svg_colors(text):
    """The class of each rectangle of a picture, the key's included."""
    root = xml.etree.ElementTree.fromstring(text)
    return {rect.get("class") for rect in root.iter("{http://www.w3.org/2000/svg}rect")}


class Pictures(harness.E2eTest):

    def make(self, hvd, *options, program=_PROGRAM):
        path = hvd.folder / "program.json"
        path.write_text(json.dumps(program))
        hvd.create("demo", "--backend", "sim", "--program", path, *options)

    def runs_of_map(self, hvd):
        return [(int(run["gpa"]), int(run["size"]), run["kind"], run["pages"], run.get("written"))
                for run in hvd.do("memory", "map", "demo", "-o", "json").json()["runs"]]

    def written(self, hvd):
        return [(gpa, size) for gpa, size, *_, written in self.runs_of_map(hvd) if written]

    def test_TheMapOfAVmThatNeverRanIsNotMapped(self):
        hvd = self.start()
        self.make(hvd)
        self.assertEqual(self.runs_of_map(hvd), [(0, 16 * MIB, "PRIVATE", "NOT_MAPPED", None)])
        self.assertIn("." * 64, hvd.do("memory", "map", "demo").out)
        self.stop(hvd)

    def test_TheMapShowsWhatIsMappedAndWrittenAsTheHarvestTells(self):
        for mode in ("write-protect", "dirty-bit", "pml"):
            with self.subTest(mode):
                hvd = self.start()
                self.make(hvd)
                hvd.do("dirty", "enable", "demo", "--mode", mode, "--manual-clear")
                hvd.do("vm", "start", "demo")
                self.assertExits(0, hvd, "demo")
                runs = self.runs_of_map(hvd)
                self.assertEqual(sum(size for _, size, *_ in runs), 16 * MIB)
                self.assertIn((6 * MIB, PAGE, "PRIVATE", "SMALL", False), runs)
                self.assertIn((8 * MIB, PAGE, "SHARED", "SMALL", True), runs)
                harvest = hvd.do("dirty", "harvest", "demo", "-o", "json").json()["runs"]
                self.assertEqual(self.written(hvd),
                                 [(int(run["gpa"]), int(run["size"])) for run in harvest])
                hvd.do("dirty", "clear", "demo", "--range", "4MiB:4KiB")
                self.assertEqual(self.written(hvd), [(4 * MIB + PAGE, PAGE), (8 * MIB, PAGE)])
                self.stop(hvd)

    def test_LargePagesAndTheirSplitsAreToldApart(self):
        hvd = self.start()
        self.make(hvd)
        hvd.do("memory", "prefault", "demo", "--range", "0:16MiB")
        self.assertEqual(self.runs_of_map(hvd), [(0, 16 * MIB, "PRIVATE", "LARGE", None)])
        hvd.do("memory", "split", "demo", "--range", "4MiB:4KiB")
        self.assertEqual([run[3] for run in self.runs_of_map(hvd)], ["LARGE", "SMALL", "LARGE"])
        text = hvd.do("memory", "map", "demo").out
        self.assertRegex(text, r"\nprivate 16MiB +P 14MiB +p 2MiB +\. 0B\n")
        picture = hvd.folder / "map.svg"
        hvd.do("memory", "map", "demo", "--svg", picture)
        self.assertLessEqual({"P", "p"}, svg_colors(picture.read_text()))
        self.stop(hvd)

    def test_WithoutTablesTheMapSaysWhy(self):
        hvd = self.start()
        self.make(hvd, "--mmu", "shadow")
        text = hvd.do("memory", "map", "demo").out
        self.assertIn("pages are not shown: this VM has no tables", text)
        self.assertIn("p" * 64, text)
        self.stop(hvd)

    def test_TopCountsConversions(self):
        hvd = self.start()
        turns = {"vcpus": [{"steps": [{"loop": {"count": "100000000", "steps": [
            {"write": {"gpa": str(4 * MIB), "alias": "SHARED"}},
            {"write": {"gpa": str(4 * MIB), "alias": "PRIVATE"}}]}}]}]}
        self.make(hvd, program=turns)
        hvd.create("idle", "--backend", "sim", "--program", hvd.folder / "program.json")
        hvd.do("vm", "start", "demo")
        rows = hvd.do("top", "--once", "--interval", "500ms", "-o", "json").json()["vms"]
        self.assertEqual([row["name"] for row in rows], ["demo", "idle"])
        self.assertGreater(rows[0]["conversionsPerSecond"], 10)
        self.assertEqual(rows[1].get("conversionsPerSecond", 0), 0)
        self.assertRegex(hvd.do("top", "--once", "--interval", "200ms").out, r"\ndemo +\d+")
        self.stop(hvd)

    def test_NamesOfVmsAreCompleted(self):
        hvd = self.start()
        self.make(hvd)
        self.assertEqual(hvd.do("complete", "--", "vm", "get", "d").out, "demo\tDEFINED\n")
        self.stop(hvd)
        answer = hvd.hvctl("complete", "--", "vm", "get", "d")
        self.assertEqual((answer.code, answer.out, answer.err), (0, "", ""))

    def test_ATypoInANameIsGuessed(self):
        hvd = self.start()
        self.make(hvd)
        answer = hvd.hvctl("vm", "get", "dmeo")
        self.assertCode(3, answer)
        self.assertIn("did you mean demo?", answer.err)
        self.stop(hvd)


if __name__ == "__main__":
    junit.main()
