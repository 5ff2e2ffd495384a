"""Memory as its owner handles it: filled beforehand, split, added, moved and taken away."""

import json

from tests import junit
from tests.e2e import harness
from tests.e2e.harness import MIB, PAGE


class Memory(harness.E2eTest):

    def make(self, hvd, steps, backend="sim"):
        path = hvd.folder / "program.json"
        path.write_text(json.dumps({"vcpus": [{"steps": steps}]}))
        hvd.create("demo", "--backend", backend, "--program", path)

    def stats(self, hvd):
        return hvd.do("memory", "stats", "demo", "-o", "json").json()

    def assertSound(self, hvd):
        self.assertEqual(hvd.do("host", "audit", "demo", "-o", "json").lines(),
                         [{"vm": "demo", "verdict": "SOUND", "detail": ""}])

    def test_PrefaultedMemoryCostsNoFaults(self):
        hvd = self.start()
        self.make(hvd, [{"loop": {"count": "64", "steps": [
            {"write": {"gpa": str(4 * MIB), "stride": str(PAGE), "value": "1"}}]}}])
        hvd.do("memory", "set", "demo", "--range", "8MiB:8KiB", "--shared")
        done = hvd.do("memory", "prefault", "demo", "-o", "json").json()
        self.assertEqual((done["bytesDone"], done["outcome"]), (str(16 * MIB), "COMPLETE"))
        before = self.stats(hvd)
        self.assertEqual(before["sharedBytesAllocated"], str(2 * PAGE))
        hvd.do("vm", "start", "demo")
        self.assertExits(0, hvd, "demo")
        self.assertEqual(self.stats(hvd)["faults"], before["faults"])
        self.assertSound(hvd)
        refused = hvd.hvctl("memory", "prefault", "demo", "--range", "8MiB:4KiB",
                            "--kind", "private")
        self.assertCode(5, refused)
        self.stop(hvd)

    def test_PagesAreSplitAndRecovered(self):
        hvd = self.start()
        self.make(hvd, [{"write": {"gpa": str(4 * MIB), "value": "1"}}])
        hvd.do("memory", "prefault", "demo")
        self.assertIn("1 pages of 2MiB",
                      hvd.do("memory", "split", "demo", "--range", "4MiB:4KiB").out)
        self.assertEqual(self.stats(hvd)["splits"]["request"], "1")
        self.assertIn("1 tables", hvd.do("memory", "recover", "demo", "--range", "4MiB:2MiB").out)
        self.assertSound(hvd)
        self.stop(hvd)

    def test_MemoryComesMovesAndGoes(self):
        hvd = self.start()
        self.make(hvd, [{"read": {"gpa": str(256 * MIB), "alias": "SHARED",
                                  "expect": str(int.from_bytes(b"moved!!!", "little"))}}])
        hvd.do("memory", "add", "demo", "128MiB", "4MiB")
        self.assertEqual(hvd.runs("demo"), [(0, 16 * MIB, "PRIVATE"),
                                            (128 * MIB, 4 * MIB, "PRIVATE")])
        hvd.do("memory", "set", "demo", "--range", "128MiB:4KiB", "--shared")
        hvd.do("memory", "write", "demo", "128MiB", "--data", "moved!!!")
        hvd.do("memory", "move", "demo", "128MiB", "256MiB")
        hvd.do("vm", "start", "demo")
        self.assertExits(0, hvd, "demo")
        self.assertSound(hvd)
        hvd.do("memory", "remove", "demo", "256MiB")
        self.assertEqual(hvd.runs("demo"), [(0, 16 * MIB, "PRIVATE")])
        self.assertCode(3, hvd.hvctl("memory", "remove", "demo", "256MiB"))
        self.assertCode(3, hvd.hvctl("memory", "remove", "demo", "0"))
        self.assertCode(5, hvd.hvctl("memory", "add", "demo", "8MiB", "16MiB"))
        self.assertCode(2, hvd.hvctl("memory", "add", "demo", "65MiB", "2MiB"))
        self.stop(hvd)

    def test_WhatIsDeniedStopsTheVm(self):
        hvd = self.start()
        self.make(hvd, [{"read": {"gpa": str(4 * MIB)}}, {"write": {"gpa": str(4 * MIB), "value": "1"}}])
        hvd.do("memory", "set", "demo", "--range", "4MiB:4KiB", "--deny", "w")
        runs = hvd.do("memory", "get", "demo", "-o", "json").json()["runs"]
        self.assertEqual([(run["gpa"], run["denied"]) for run in runs],
                         [("0", ""), (str(4 * MIB), "w"), (str(4 * MIB + PAGE), "")])
        hvd.do("vm", "start", "demo")
        self.assertExits(125, hvd, "demo")
        self.assertEqual(hvd.vm("demo")["stopReason"], "MEMORY_FAULT")
        why = hvd.do("memory", "translate", "demo", "4MiB", "-o", "json").json()["why"]
        self.assertEqual((why["mapping"], why["veto"], why["denied"]), ("ALLOWED", "ATTRIBUTES", "w"))
        self.assertIn("4KiB page; 2MiB is vetoed by: attributes differ inside; denied: w",
                      hvd.do("memory", "translate", "demo", "4MiB").out)
        hvd.do("memory", "set", "demo", "--range", "4MiB:4KiB", "--deny", "none")
        self.assertEqual(hvd.runs("demo"), [(0, 16 * MIB, "PRIVATE")])
        self.assertSound(hvd)
        self.stop(hvd)

    def test_ADryRunTellsWhatTheChangeThenDoes(self):
        hvd = self.start()
        self.make(hvd, [{"write": {"gpa": str(4 * MIB), "value": "1"}}])
        hvd.do("memory", "prefault", "demo")
        change = ("memory", "set", "demo", "--range", "4MiB:8KiB", "--shared", "-o", "json")
        before = self.stats(hvd)
        plan = hvd.do(*change, "--dry-run").json()
        self.assertEqual(plan["converted"], [{"gpa": str(4 * MIB), "size": str(2 * PAGE)}])
        self.assertEqual(plan["plan"]["split"],
                         [{"root": "PRIVATE", "pageSize": str(2 * MIB), "count": "1"}])
        self.assertEqual(plan["plan"]["zapped"],
                         [{"root": "PRIVATE", "pageSize": str(PAGE), "count": "2"}])
        self.assertEqual(plan["plan"]["bytesDiscarded"], str(2 * PAGE))
        self.assertEqual(self.stats(hvd), before)
        self.assertEqual(hvd.runs("demo"), [(0, 16 * MIB, "PRIVATE")])
        done = hvd.do(*change).json()
        self.assertEqual(done["converted"], plan["converted"])
        self.assertEqual(done["perRange"][0]["outcome"], "DONE")
        after = self.stats(hvd)
        self.assertEqual(int(after["splits"]["conversion"]) - int(before["splits"]["conversion"]), 1)
        self.assertEqual(int(after["tablePages"]) - int(before["tablePages"]),
                         int(plan["plan"]["tablesNeeded"]))
        self.assertSound(hvd)
        self.stop(hvd)

    def test_OnKvmMemoryIsAddedMovedPrefaultedAndRemoved(self):
        hvd = self.start_with_kvm()
        self.make(hvd, [{"write": {"gpa": str(256 * MIB), "value": "1"}}], backend="kvm")
        hvd.do("memory", "add", "demo", "128MiB", "4MiB")
        hvd.do("memory", "move", "demo", "128MiB", "256MiB")
        hvd.do("memory", "prefault", "demo", "--range", "256MiB:4MiB")
        hvd.do("vm", "start", "demo")
        self.assertExits(0, hvd, "demo")
        self.assertEqual(hvd.runs("demo"),
                         [(0, 16 * MIB, "PRIVATE"), (256 * MIB, 4 * MIB, "PRIVATE")])
        hvd.do("memory", "remove", "demo", "256MiB")
        self.assertEqual(hvd.runs("demo"), [(0, 16 * MIB, "PRIVATE")])
        self.assertSound(hvd)
        self.stop(hvd)


if __name__ == "__main__":
    junit.main()
