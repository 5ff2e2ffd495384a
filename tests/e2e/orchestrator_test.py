"""With --policy orchestrator a vCPU waits for a decision, and whoever looks on harms nothing."""

import signal
import time

from tests import junit
from tests.e2e import harness
from tests.e2e.harness import PAGE

# Where orchestrated.cc converts one page implicitly and four by MapGPA.
_IMPLICIT, _EXPLICIT = 0x300000, 0x310000
_BEFORE_IMPLICIT = "orchestrated: before the implicit conversion of 1 page at 0x300000\n"
_AFTER_IMPLICIT = "orchestrated: after the implicit conversion of 1 page at 0x300000\n"
_BEFORE_EXPLICIT = "orchestrated: before the explicit conversion of 4 pages at 0x310000\n"
_AFTER_EXPLICIT = "orchestrated: after the explicit conversion of 4 pages at 0x310000\n"
_DONE = "orchestrated: done\n"


def _shape(conversion):
    """What a decision was about and what became of it, without what differs from run to run."""
    return tuple(conversion[key] for key in
                 ("id", "gpa", "size", "direction", "cause", "decision", "decider"))


def _decided(hvd, name):
    return [_shape(c) for _, c in harness.conversions(hvd.events("--vm", name))]


def _outcome(answer):
    return [(result["id"], result["outcome"]) for result in answer.json()["results"]]


class Orchestrator(harness.E2eTest):

    def run_orchestrated(self, hvd, cmdline="", *options):
        hvd.run("o", "--image", harness.image("orchestrated"), "--backend", "kvm", "--cmdline",
                cmdline, "--policy", "orchestrator", *options)

    def assertStaysParked(self, hvd, console):
        """The guest has said this, waits, and does not go on by itself."""
        hvd.wait_for_request("o")
        deadline = time.monotonic() + 0.5
        while time.monotonic() < deadline:
            self.assertEqual(hvd.console("o"), console)
            self.assertEqual(hvd.vm("o")["state"], "RUNNING")
        self.assertEqual(len(hvd.waiting("o")), 1)

    def assertRequest(self, request, id_, gpa, size, cause):
        self.assertEqual((request["id"], request["vcpu"], request["gpa"], request["size"],
                          request["direction"], request["cause"]),
                         (id_, 0, str(gpa), str(size), "TO_SHARED", cause))
        self.assertIn("deadline", request)

    def test_TheGuestDoesNotMoveUntilApproved(self):
        hvd = self.start_with_kvm()
        self.run_orchestrated(hvd)
        self.assertStaysParked(hvd, _BEFORE_IMPLICIT)
        self.assertRequest(hvd.waiting("o")[0], "1", _IMPLICIT, PAGE, "IMPLICIT")
        self.assertEqual(_decided(hvd, "o"), [])
        self.assertEqual(hvd.runs("o"), [(0, 16 << 20, "PRIVATE")])
        answer = hvd.do("conversion", "approve", "o", "1", "-o", "json")
        self.assertEqual(_outcome(answer), [("1", "DECIDED")])

        harness.until(lambda: _BEFORE_EXPLICIT in hvd.console("o"), "the guest goes on")
        self.assertStaysParked(hvd, _BEFORE_IMPLICIT + _AFTER_IMPLICIT + _BEFORE_EXPLICIT)
        self.assertRequest(hvd.waiting("o")[0], "2", _EXPLICIT, 4 * PAGE, "EXPLICIT")
        # Once more, or what never was: said, and no failure (program or human may race a deadline).
        answer = hvd.do("conversion", "approve", "o", "1", "77", "-o", "json")
        self.assertEqual(_outcome(answer), [("1", "ALREADY_DECIDED"), ("77", "UNKNOWN")])
        said = hvd.do("conversion", "deny", "o", "1").out
        self.assertRegex(said, "ALREADY_DECIDED +APPLIED +ORCHESTRATOR")
        self.assertEqual(len(hvd.waiting("o")), 1)
        hvd.do("conversion", "approve", "o", "--all")

        self.assertExits(0, hvd, "o")
        self.assertEqual(hvd.console("o"), _BEFORE_IMPLICIT + _AFTER_IMPLICIT + _BEFORE_EXPLICIT +
                         _AFTER_EXPLICIT + _DONE)
        self.assertEqual(_decided(hvd, "o"), [
            ("1", str(_IMPLICIT), str(PAGE), "TO_SHARED", "IMPLICIT", "APPLIED", "ORCHESTRATOR"),
            ("2", str(_EXPLICIT), str(4 * PAGE), "TO_SHARED", "EXPLICIT", "APPLIED",
             "ORCHESTRATOR")])
        # The latency is the time that the vCPU waited, half a second or more.
        events = hvd.events("--vm", "o")
        for _, conversion in harness.conversions(events):
            self.assertGreater(harness.seconds(conversion["latency"]), 0.5)
        self.assertEqual([event["conversionRequested"]["id"] for event in events
                          if "conversionRequested" in event], ["1", "2"])
        self.assertEqual([int(event["vmSequence"]) for event in events],
                         list(range(1, len(events) + 1)))
        self.assertEqual(harness.conversion_metrics(hvd),
                         harness.metrics_of(harness.conversions(events)))
        self.stop(hvd)

    def test_DenialOfMapGpaIsSeenByTheGuestWhichGoesOn(self):
        hvd = self.start_with_kvm()
        self.run_orchestrated(hvd, "only=explicit expect=denied")
        hvd.wait_for_request("o")
        hvd.do("conversion", "deny", "o", "1")
        self.assertExits(0, hvd, "o")
        self.assertEqual(hvd.console("o"), _BEFORE_EXPLICIT + "orchestrated: denied\n" + _DONE)
        self.assertEqual(_decided(hvd, "o"),
                         [("1", str(_EXPLICIT), str(4 * PAGE), "TO_SHARED", "EXPLICIT", "DENIED",
                           "ORCHESTRATOR")])
        self.assertEqual(hvd.runs("o"), [(0, 16 << 20, "PRIVATE")])
        self.stop(hvd)

    def test_DenialOfAnAccessStopsTheVm(self):
        hvd = self.start_with_kvm()
        self.run_orchestrated(hvd, "only=implicit")
        hvd.wait_for_request("o")
        waiting = hvd.stream("vm", "wait", "o")
        hvd.do("conversion", "deny", "o", "--all")
        self.assertEqual(waiting.wait(), 125)
        self.assertIn("CONVERSION_DENIED", waiting.errors())
        vm = hvd.vm("o")
        self.assertEqual((vm["state"], vm["stopReason"]), ("STOPPED", "CONVERSION_DENIED"))
        self.assertNotIn("exitCode", vm)
        self.assertIn("0x300000", vm["stopMessage"])
        self.assertEqual(hvd.console("o"), _BEFORE_IMPLICIT)
        self.assertEqual(hvd.runs("o"), [(0, 16 << 20, "PRIVATE")])
        self.stop(hvd)

    def test_ADeadlineDeniesByDefault(self):
        hvd = self.start_with_kvm()
        self.run_orchestrated(hvd, "only=explicit expect=denied", "--decision-timeout", "300ms")
        self.assertExits(0, hvd, "o")
        self.assertEqual(_decided(hvd, "o"),
                         [("1", str(_EXPLICIT), str(4 * PAGE), "TO_SHARED", "EXPLICIT", "EXPIRED",
                           "DEADLINE")])
        latency = harness.seconds(
            harness.conversions(hvd.events("--vm", "o"))[0][1]["latency"])
        self.assertGreaterEqual(latency, 0.3)
        self.stop(hvd)

    def test_ADeadlineStopsAnUndecidedAccess(self):
        hvd = self.start_with_kvm()
        self.run_orchestrated(hvd, "only=implicit", "--decision-timeout", "300ms", "--on-timeout",
                              "deny")
        self.assertExits(125, hvd, "o")
        vm = hvd.vm("o")
        self.assertEqual(vm["stopReason"], "CONVERSION_DENIED")
        self.assertIn("not decided in time", vm["stopMessage"])
        self.stop(hvd)

    def test_ADeadlineMayApply(self):
        hvd = self.start_with_kvm()
        self.run_orchestrated(hvd, "", "--decision-timeout", "300ms", "--on-timeout", "apply")
        self.assertExits(0, hvd, "o")
        self.assertEqual([decided[-2:] for decided in _decided(hvd, "o")],
                         [("APPLIED", "DEADLINE")] * 2)
        self.assertTrue(hvd.console("o").endswith(_AFTER_EXPLICIT + _DONE))
        self.assertEqual(len(hvd.runs("o")), 5)
        self.stop(hvd)

    def test_MemorySetOverTheRangeDecides(self):
        hvd = self.start_with_kvm()
        self.run_orchestrated(hvd, "expect=applied")
        hvd.wait_for_request("o")
        # A part beside it decides nothing; a range around it does.
        hvd.do("memory", "set", "o", "--range", f"{_IMPLICIT + PAGE:#x}:4KiB", "--shared")
        self.assertStaysParked(hvd, _BEFORE_IMPLICIT)
        hvd.do("memory", "set", "o", "--range", f"{_IMPLICIT:#x}:64KiB", "--shared")
        harness.until(lambda: _BEFORE_EXPLICIT in hvd.console("o"), "the guest goes on")
        hvd.wait_for_request("o")
        # Half of it is not enough, the other half completes it.
        hvd.do("memory", "set", "o", "--range", f"{_EXPLICIT:#x}:8KiB", "--shared")
        self.assertStaysParked(hvd, _BEFORE_IMPLICIT + _AFTER_IMPLICIT + _BEFORE_EXPLICIT)
        hvd.do("memory", "set", "o", "--range", f"{_EXPLICIT + 2 * PAGE:#x}:8KiB", "--shared")
        self.assertExits(0, hvd, "o")
        conversions = harness.conversions(hvd.events("--vm", "o"))
        self.assertEqual({c["decider"] for _, c in conversions}, {"ORCHESTRATOR"})
        self.assertEqual({c["cause"] for _, c in conversions}, {"API", "IMPLICIT", "EXPLICIT"})
        self.assertEqual(hvd.runs("o"), harness.runs_of(conversions, 16 << 20))
        self.assertEqual(harness.conversion_metrics(hvd), harness.metrics_of(conversions))
        self.stop(hvd)

    def test_StoppingTheVmEndsTheWait(self):
        hvd = self.start_with_kvm()
        self.run_orchestrated(hvd)
        hvd.wait_for_request("o")
        hvd.do("vm", "stop", "o")
        self.assertEqual(hvd.waiting("o"), [])
        self.assertEqual([decided[-2:] for decided in _decided(hvd, "o")], [("DENIED", "VM_STOP")])
        self.assertEqual(hvd.vm("o")["stopReason"], "STOP_REQUESTED")
        answer = hvd.do("conversion", "approve", "o", "1", "-o", "json")
        self.assertEqual(_outcome(answer), [("1", "ALREADY_DECIDED")])
        self.assertEqual(answer.json()["results"][0]["decider"], "VM_STOP")
        self.stop(hvd)

    def test_SimGuestsWaitToo(self):
        hvd = self.start("--backend", "sim")
        hvd.run("o", "--program", "tests/scenarios/programs/one_conversion.textproto", "--policy",
                "orchestrator")
        self.assertStaysParked(hvd, "before the conversion\n")
        hvd.do("conversion", "approve", "o", "1")
        self.assertExits(0, hvd, "o")
        self.assertEqual(hvd.console("o"), "before the conversion\nafter the conversion\n")
        self.stop(hvd)


class Watchers(harness.E2eTest):
    """Streams that end badly, or do not read, are nobody else's problem."""

    _PROGRAM = "tests/scenarios/programs/one_conversion.textproto"

    def run_some(self, hvd, names):
        for name in names:
            hvd.run(name, "--program", self._PROGRAM)
            self.assertExits(0, hvd, name)

    def assertShowsAll(self, hvd, stream):
        expected = hvd.events()
        shown = lambda: [event for event in stream.events() if "bookmark" not in event]
        harness.until(lambda: len(shown()) >= len(expected), "the stream shows everything")
        self.assertEqual(shown(), expected)

    def test_AKilledWatcherHarmsNothing(self):
        hvd = self.start()
        hvd.run("parked", "--program", self._PROGRAM, "--policy", "orchestrator")
        hvd.wait_for_request("parked")
        killed, other = hvd.follow(), hvd.follow()
        with_both = hvd.metrics("process_open_fds")
        killed.signal(signal.SIGKILL)
        self.assertEqual(killed.wait(), -signal.SIGKILL)
        harness.until(lambda: hvd.metrics("process_open_fds")[("process_open_fds",)]
                      < with_both[("process_open_fds",)], "its connection is closed")
        self.run_some(hvd, ["a", "b"])
        # Its decision still waits, and somebody else may take it.
        hvd.do("conversion", "approve", "parked", "1")
        self.assertExits(0, hvd, "parked")
        self.assertShowsAll(hvd, other)
        self.stop(hvd)

    def test_AWatcherThatDoesNotReadSlowsNobody(self):
        hvd = self.start()
        stopped, other = hvd.follow(), hvd.follow()
        stopped.signal(signal.SIGSTOP)
        # More than the transport buffers: the daemon must hold on to nothing for it.
        program = hvd.folder / "storm.textproto"
        program.write_text("""vcpus { steps { loop { count: 5000
            steps { map_gpa { gpa: 0x400000 pages: 1 kind: MEMORY_KIND_SHARED } }
            steps { map_gpa { gpa: 0x400000 pages: 1 kind: MEMORY_KIND_PRIVATE } } } } }""")
        hvd.run("storm", "--program", program, "--backend", "sim")
        self.assertExits(0, hvd, "storm")
        last = hvd.events()[-1]
        self.assertEqual(last["vmState"]["state"], "STOPPED")
        harness.until(lambda: last["cursor"] in other.text(), "the other stream is up to date")
        self.assertNotIn(last["cursor"], stopped.text())
        self.assertEqual(hvd.metrics("twinroot_conversions_total")[
            ("twinroot_conversions_total", ("cause", "explicit"), ("direction", "to_shared"),
             ("result", "applied"), ("vm", "storm"))], 5000)
        # When it reads again, it misses nothing (or is told what), in order.
        stopped.signal(signal.SIGCONT)
        harness.until(lambda: last["cursor"] in stopped.text(), "it catches up")
        events = [event for event in stopped.events() if event["vm"] == "storm"]
        self.assertEqual([int(event["vmSequence"]) for event in events],
                         list(range(1, len(events) + 1)))
        self.stop(hvd)


if __name__ == "__main__":
    junit.main()
