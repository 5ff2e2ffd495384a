"""Dirty logging from outside: what a guest writes is what a harvest tells of, and nothing else."""

import json

from tests import junit
from tests.e2e import harness
from tests.e2e.harness import KIB, MIB, PAGE

_WRITER = {"vcpus": [{"steps": [
    {"read": {"gpa": str(3 * MIB)}},
    {"write": {"gpa": str(4 * MIB), "value": "1"}},
    {"loop": {"count": "3", "steps": [
        {"write": {"gpa": str(6 * MIB), "stride": str(PAGE), "value": "1"}}]}},
]}]}
_WRITTEN = [(4 * MIB, PAGE), (6 * MIB, 3 * PAGE)]


class DirtyLog(harness.E2eTest):

    def make(self, hvd, name, program=None, backend="sim"):
        path = hvd.folder / "program.json"
        path.write_text(json.dumps(program or _WRITER))
        hvd.create(name, "--backend", backend, "--program", path)

    def harvest(self, hvd, name, *options):
        runs = hvd.do("dirty", "harvest", name, "-o", "json", *options).json()["runs"]
        return [(int(run["gpa"]), int(run["size"])) for run in runs]

    def stats(self, hvd, name):
        return hvd.do("memory", "stats", name, "-o", "json").json()

    def test_AHarvestIsWhatTheProgramWrote(self):
        hvd = self.start()
        self.make(hvd, "demo")
        hvd.do("dirty", "enable", "demo", "--manual-clear")
        self.assertEqual(self.stats(hvd, "demo")["dirtyLog"]["state"], "ON")
        hvd.do("vm", "start", "demo")
        self.assertExits(0, hvd, "demo")
        self.assertEqual(self.harvest(hvd, "demo"), _WRITTEN)
        self.assertEqual(self.harvest(hvd, "demo"), _WRITTEN)
        hvd.do("dirty", "clear", "demo", "--range", "6MiB:8KiB")
        self.assertEqual(self.harvest(hvd, "demo"),
                         [(4 * MIB, PAGE), (6 * MIB + 2 * PAGE, PAGE)])
        self.assertEqual(self.harvest(hvd, "demo", "--range", "4MiB:256KiB"), [(4 * MIB, PAGE)])
        hvd.do("dirty", "clear", "demo", "--range", "0:16MiB")
        self.assertEqual(self.harvest(hvd, "demo"), [])
        hvd.do("dirty", "disable", "demo")
        self.assertCode(5, hvd.hvctl("dirty", "harvest", "demo"))
        self.assertEqual(hvd.do("host", "audit", "-o", "json").lines(),
                         [{"vm": "demo", "verdict": "SOUND", "detail": ""}])
        self.stop(hvd)

    def test_MetricsCountTheLog(self):
        hvd = self.start()
        self.make(hvd, "demo")
        labels = ("vm", "demo")
        harvested = "twinroot_dirty_pages_harvested_total"
        self.assertEqual(hvd.metrics(harvested), {})
        hvd.do("vm", "start", "demo")
        self.assertExits(0, hvd, "demo")
        hvd.do("dirty", "enable", "demo")
        split = hvd.metrics("twinroot_splits_total")[
            ("twinroot_splits_total", ("reason", "dirty_log"), labels)]
        self.assertGreater(split, 0)
        hvd.do("dirty", "harvest", "demo")
        self.assertEqual(hvd.metrics(harvested), {})
        hvd.do("memory", "set", "demo", "--range", "8MiB:4KiB", "--shared")
        hvd.do("memory", "write", "demo", "8MiB", "--data", "hello")
        self.assertEqual(self.harvest(hvd, "demo"), [(8 * MIB, PAGE)])
        self.assertEqual(hvd.metrics(harvested), {(harvested, labels): 1})
        hvd.do("dirty", "disable", "demo")
        collapsed = hvd.metrics("twinroot_collapses_total")
        self.assertGreater(
            collapsed[("twinroot_collapses_total", ("reason", "dirty_log"), labels)], 0)
        stats = self.stats(hvd, "demo")
        self.assertEqual(stats["splits"]["dirtyLog"], str(int(split)))
        pages = hvd.metrics("twinroot_table_pages")
        self.assertEqual(pages, {("twinroot_table_pages", labels): int(stats["tablePages"])})
        self.stop(hvd)

    def test_AFullRingHoldsTheVcpuUntilTheHarvest(self):
        hvd = self.start()
        self.make(hvd, "demo", {"vcpus": [{"steps": [{"loop": {"count": "200", "steps": [
            {"write": {"gpa": str(4 * MIB), "stride": str(PAGE), "value": "1"}}]}}]}]})
        hvd.do("dirty", "enable", "demo", "--ring-entries", "192")
        hvd.do("vm", "start", "demo")
        harness.until(lambda: self.stats(hvd, "demo")["dirtyLog"]["vcpusWaiting"] == 1,
                      "the ring is full")
        self.assertEqual(hvd.vm("demo")["state"], "RUNNING")
        first = self.harvest(hvd, "demo")
        self.assertEqual(first[0][0], 4 * MIB)
        self.assertExits(0, hvd, "demo")
        rest = self.harvest(hvd, "demo")
        self.assertEqual(sum(size for _, size in first + rest), 200 * PAGE)
        self.stop(hvd)

    def test_KvmLogsByWriteProtectionAlone(self):
        hvd = self.start_with_kvm()
        self.make(hvd, "demo", backend="kvm")
        answer = hvd.hvctl("dirty", "enable", "demo", "--mode", "pml")
        self.assertCode(5, answer)
        self.assertIn("hint: kvm logs by write-protect only", answer.err)
        hvd.do("dirty", "enable", "demo")
        hvd.do("vm", "start", "demo")
        self.assertExits(0, hvd, "demo")
        harvested = self.harvest(hvd, "demo")
        for run in _WRITTEN:  # and what the interpreter wrote for itself
            self.assertIn(run, harvested)
        self.stop(hvd)

    def test_ABadRangeIsNamed(self):
        hvd = self.start()
        self.make(hvd, "demo")
        hvd.do("dirty", "enable", "demo")
        answer = hvd.hvctl("dirty", "harvest", "demo", "--range", f"{PAGE}:{64 * KIB}")
        self.assertCode(2, answer)
        self.assertIn("multiple of 256 KiB", answer.err)
        self.assertCode(2, hvd.hvctl("dirty", "harvest", "demo", "--range", "16MiB:256KiB"))
        self.stop(hvd)


if __name__ == "__main__":
    junit.main()
