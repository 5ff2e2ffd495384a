"""An orchestrator on another gRPC implementation: killed at any moment, it resumes from its last
cursor, decides everything, and has seen every event exactly once."""

import json
import random
import signal
import time

from tests import junit
from tests.e2e import harness as e2e
from tests.interop import harness

_KILLS = 6
_ROUNDS, _VCPUS = 40, 2  # of orchestrator.js
# Events of somebody else, that the orchestrator is shown too.
_NOISE = """vcpus { steps { loop { count: 3000
    steps { map_gpa { gpa: 0x400000 pages: 1 kind: MEMORY_KIND_SHARED } }
    steps { map_gpa { gpa: 0x400000 pages: 1 kind: MEMORY_KIND_PRIVATE } } } } }"""


def entries(path):
    """The whole lines of the orchestrator's log."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True)
            if line.endswith("\n")]


def told(path):
    """The events of the log, in hvctl's JSON as far as it is compared."""
    return [shape(event) for event in entries(path)[1:] if event["kind"] != "bookmark"]


def shape(event):
    """What an event says, in the words of either of the two."""
    kind = event.get("kind") or (event.keys() - {"cursor", "vm", "vmSequence", "time"}).pop()
    inner = {key: value.split("_", 1)[1] if str(value).startswith(f"{key.upper()}_") else value
             for key, value in event[kind].items()
             if key in ("id", "vcpu", "gpa", "size", "state", "direction", "cause", "decision",
                        "decider", "exitCode") and value is not None}
    return (event["cursor"], event["vm"], event["vmSequence"], kind, inner)


class Orchestrator(harness.InteropTest):

    def grow(self, log, orchestrator, count):
        """Waits until so many lines have come; False if it ended first."""
        def size():
            return log.read_bytes().count(b"\n") if log.exists() else 0
        goal, deadline = size() + count, time.monotonic() + e2e.PATIENCE
        while orchestrator.process.poll() is None and size() < goal:
            self.assertLess(time.monotonic(), deadline, "the log does not grow")
            time.sleep(0.001)
        return orchestrator.process.poll() is None

    def decides(self, hvd, backend):
        (hvd.folder / "noise.textproto").write_text(_NOISE)
        hvd.create("noise", "--program", hvd.folder / "noise.textproto", "--backend", "sim")
        log = hvd.folder / "orchestrator.log"
        kills = 0
        while kills < _KILLS:
            orchestrator = self.node(hvd, "orchestrator.js", backend, log)
            if not self.grow(log, orchestrator, random.randrange(1, 120)):
                break
            orchestrator.signal(signal.SIGKILL)
            self.assertEqual(orchestrator.wait(), -signal.SIGKILL, orchestrator.errors())
            kills += 1
            if kills == 2:
                hvd.do("vm", "start", "noise")
        self.assertGreaterEqual(kills, 3, orchestrator.errors())
        orchestrator = self.node(hvd, "orchestrator.js", backend, log)
        self.assertEqual(orchestrator.wait(), 0, orchestrator.errors())

        seen = told(log)
        expected = [shape(event) for event in
                    hvd.events("--since", entries(log)[0]["cursor"])]
        self.assertEqual(seen, expected[:len(seen)])
        self.assertNotIn("gap", {kind for _, _, _, kind, _ in seen})
        # All of the VM's life is in there, and every decision is its own.
        mine = [(kind, inner) for _, vm, _, kind, inner in seen if vm == "orchestrated"]
        self.assertEqual(mine[-1], ("vmState", {"state": "STOPPED", "exitCode": 0}))
        conversions = [inner for kind, inner in mine if kind == "conversion"]
        self.assertEqual({inner["decider"] for inner in conversions}, {"ORCHESTRATOR"})
        asked = [inner["id"] for kind, inner in mine if kind == "conversionRequested"]
        self.assertEqual(sorted(asked), sorted(inner["id"] for inner in conversions))
        self.assertEqual(len(set(asked)), 5 * _ROUNDS * _VCPUS)
        for inner in conversions:
            wanted = "APPLIED" if int(inner["gpa"]) < 0x600000 else "DENIED"
            self.assertEqual(inner["decision"], wanted, inner)
        self.stop(hvd)

    def test_OnSim(self):
        self.decides(self.start("--backend", "sim"), "sim")

    def test_OnKvm(self):
        self.decides(self.start_with_kvm(), "kvm")


if __name__ == "__main__":
    junit.main()
