"""A guest that misbehaves ends with a reason or runs until it is stopped; others do not notice."""

import time

from tests import junit
from tests.e2e import harness
from tests.e2e.harness import MIB

_CRASHES = {
    "exception": "TRIPLE_FAULT",
    "nowhere": "TRIPLE_FAULT",
    "wander": "MMIO_OUTSIDE_MEMORY",
    "outside": "TRIPLE_FAULT",
    "outside-gpa": "MMIO_OUTSIDE_MEMORY",
    "loader-pages": "TRIPLE_FAULT",
}
_ENDLESS = ["spin", "console-flood", "ping-pong"]
_MOST_REFUSALS = 1000  # in a row, before hvd stops the guest
_MOST_CONSOLE = 1 * MIB  # what hvd keeps
_REQUESTS_OF_CONVERT = 17  # of one round, see conversions_test


class Hostile(harness.E2eTest):

    def run_hostile(self, hvd, mode, *options, cmdline="", vcpus=1):
        hvd.run(mode, "--image", harness.image("hostile"), "--cmdline", f"mode={mode} {cmdline}",
                "--backend", "kvm", *options, vcpus=vcpus)

    def run_good(self, hvd, name, rounds=1):
        hvd.run(name, "--image", harness.image("convert"), "--cmdline", f"rounds={rounds}",
                "--backend", "kvm")

    def assertGood(self, hvd, name, rounds=1):
        """The well-behaved VM ends well, and its conversions are its own, all of them."""
        self.assertExits(0, hvd, name)
        conversions = harness.conversions(hvd.events("--vm", name))
        self.assertEqual(len({conversion["id"] for _, conversion in conversions}),
                         rounds * _REQUESTS_OF_CONVERT)

    def test_GuestsThatCrashStopWithAReason(self):
        hvd = self.start_with_kvm()
        self.run_good(hvd, "good", rounds=5)
        for mode, reason in _CRASHES.items():
            with self.subTest(mode):
                self.run_hostile(hvd, mode, cmdline="others=spin", vcpus=2)
                answer = hvd.wait(mode)
                self.assertCode(125, answer)
                self.assertIn(reason, answer.err)
                vm = hvd.vm(mode)
                self.assertEqual((vm["state"], vm["stopReason"]), ("STOPPED", reason), vm)
                self.assertNotIn("exitCode", vm)
                # The other vCPU too, when the first has taken away the page tables of both.
                self.assertRegex(vm["stopMessage"], r"^vcpu [01]: ")
                self.assertNotIn("still running", hvd.console(mode))
                last = hvd.events("--vm", mode)[-1]["vmState"]
                self.assertEqual((last["state"], last["stopReason"]), ("STOPPED", reason))
                hvd.do("vm", "delete", mode)
        self.assertGood(hvd, "good", rounds=5)
        self.stop(hvd)

    def test_GuestsThatNeverEndAreStopped(self):
        hvd = self.start_with_kvm()
        for mode in _ENDLESS:
            self.run_hostile(hvd, mode)
        self.run_good(hvd, "good")
        self.assertGood(hvd, "good")
        self.assertEqual({hvd.vm(mode)["state"] for mode in _ENDLESS}, {"RUNNING"})
        # They did what they threaten to do.
        metrics = hvd.metrics("twinroot_conversions_total")
        self.assertGreater(sum(count for key, count in metrics.items()
                               if ("vm", "ping-pong") in key), 10)
        harness.until(lambda: len(hvd.hvctl("vm", "console", "console-flood").raw) > 10000,
                      "the console is flooded")
        for mode in _ENDLESS:
            began = time.monotonic()
            hvd.do("vm", "stop", mode)
            self.assertLess(time.monotonic() - began, 15, mode)
            vm = hvd.vm(mode)
            self.assertEqual((vm["state"], vm["stopReason"]), ("STOPPED", "STOP_REQUESTED"), mode)
        self.assertLessEqual(len(hvd.hvctl("vm", "console", "console-flood").raw), _MOST_CONSOLE)
        # Events that the storm pushed out of the journal are said to be missing.
        self.assertNothingIsMissingSilently(hvd)
        self.run_good(hvd, "after")
        self.assertGood(hvd, "after")
        self.stop(hvd)

    def test_AGuestThatAsksOnAfterEveryRefusalIsStopped(self):
        hvd = self.start_with_kvm()
        self.run_good(hvd, "good", rounds=5)
        self.run_hostile(hvd, "refused-loop", "--policy", "deny")
        answer = hvd.wait("refused-loop")
        self.assertCode(125, answer)
        self.assertIn("CONVERSION_DENIED", answer.err)
        self.assertIn(f"{_MOST_REFUSALS} conversions were refused in a row", answer.err)
        conversions = harness.conversions(hvd.events("--vm", "refused-loop"))
        self.assertEqual(len(conversions), _MOST_REFUSALS)
        self.assertEqual({conversion["decision"] for _, conversion in conversions}, {"DENIED"})
        self.assertGood(hvd, "good", rounds=5)
        self.stop(hvd)

    def assertNothingIsMissingSilently(self, hvd):
        events = hvd.events("--vm", "ping-pong")
        sequences = [int(event["vmSequence"]) for event in events if "gap" not in event]
        self.assertEqual(sequences, list(range(sequences[0], sequences[0] + len(sequences))))
        if sequences[0] != 1:
            self.assertTrue(any("gap" in event for event in events), "no gap is told")

    def test_AStormOfMapGpaIsAnsweredByTheRules(self):
        hvd = self.start_with_kvm()
        self.run_good(hvd, "good")
        self.run_hostile(hvd, "door-storm", cmdline="count=2000 seed=7")
        self.assertExits(0, hvd, "door-storm")
        self.assertGood(hvd, "good")
        conversions = harness.conversions(hvd.events("--vm", "door-storm"))
        self.assertGreater(len(conversions), 100)
        self.assertEqual(hvd.runs("door-storm"), harness.runs_of(conversions, 16 * MIB))
        self.assertEqual(
            {key: value for key, value in harness.conversion_metrics(hvd).items()
             if ("vm", "door-storm") in key},
            harness.metrics_of(conversions))
        self.stop(hvd)

    def test_DenyRefusesMapGpaAndStopsAccesses(self):
        hvd = self.start_with_kvm()
        hvd.run("explicit", "--image", harness.image("orchestrated"), "--cmdline",
                "only=explicit expect=denied", "--policy", "deny")
        self.assertExits(0, hvd, "explicit")
        hvd.run("implicit", "--image", harness.image("orchestrated"), "--policy", "deny")
        self.assertExits(125, hvd, "implicit")
        self.assertEqual(hvd.vm("implicit")["stopReason"], "CONVERSION_DENIED")
        conversions = harness.conversions(hvd.events())
        self.assertEqual(
            [(vm, c["cause"], c["decision"], c["decider"]) for vm, c in conversions],
            [("explicit", "EXPLICIT", "DENIED", "POLICY"),
             ("implicit", "IMPLICIT", "DENIED", "POLICY")])
        self.assertEqual(harness.conversion_metrics(hvd), harness.metrics_of(conversions))
        for vm in ("explicit", "implicit"):
            self.assertEqual(hvd.runs(vm), [(0, 16 * MIB, "PRIVATE")])
        self.stop(hvd)


if __name__ == "__main__":
    junit.main()
