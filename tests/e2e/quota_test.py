"""Quotas of a VM's policy bound what its guest may convert, and say so; others do not notice."""

import time

from tests import junit
from tests.e2e import harness
from tests.e2e.harness import MIB


def _refused(hvd, name):
    return [(c["cause"], c["quota"]) for _, c in harness.conversions(hvd.events("--vm", name))
            if c["decision"] == "QUOTA"]


class Quotas(harness.E2eTest):

    def assertMetricsAgree(self, hvd, name):
        conversions = harness.conversions(hvd.events("--vm", name))
        self.assertEqual({key: value for key, value in harness.conversion_metrics(hvd).items()
                          if ("vm", name) in key}, harness.metrics_of(conversions))
        return conversions

    def test_PingPongStopsTheVmWithAReason(self):
        hvd = self.start_with_kvm()
        hvd.run("p", "--image", harness.image("hostile"), "--cmdline", "mode=ping-pong",
                "--backend", "kvm", "--ping-pong-limit", "20", "--ping-pong-window", "1h")
        answer = hvd.wait("p")
        self.assertCode(125, answer)
        self.assertIn("CONVERSION_QUOTA", answer.err)
        self.assertIn("to and fro 20 times", hvd.vm("p")["stopMessage"])
        self.assertEqual(_refused(hvd, "p"), [("IMPLICIT", "PING_PONG")])
        self.assertEqual(len(self.assertMetricsAgree(hvd, "p")), 22)
        self.assertEqual(list(hvd.metrics("twinroot_conversions_over_quota_total").values()), [1])
        self.assertIn("QUOTA PING_PONG", hvd.do("events", "--vm", "p").out)
        self.stop(hvd)

    def test_TheRateSlowsTheGuestAndLosesNothing(self):
        hvd = self.start_with_kvm()
        began = time.monotonic()
        hvd.run("slow", "--image", harness.image("convert"), "--backend", "kvm",
                "--max-conversion-rate", "20", "--conversion-burst", "2")
        self.assertIn("20 conversions a second, 2 at once", hvd.do("vm", "get", "slow").out)
        self.assertExits(0, hvd, "slow")
        # 17 requests, and more than one chunk in some of them.
        self.assertGreater(time.monotonic() - began, 15 / 20)
        conversions = self.assertMetricsAgree(hvd, "slow")
        applied = [c for _, c in conversions if c["decision"] == "APPLIED"]
        # One event for each of 18 ranges; more, where the guest was too slow to be told as one.
        self.assertGreaterEqual(len(applied), 18)
        self.assertEqual(set(_refused(hvd, "slow")), {("EXPLICIT", "RATE")})
        self.assertEqual(hvd.runs("slow"), harness.runs_of(conversions, 16 * MIB))
        self.assertGreater(sum(hvd.metrics("twinroot_throttled_conversions_total").values()), 0)
        self.stop(hvd)

    def test_SharedBytesAreBounded(self):
        hvd = self.start_with_kvm()
        options = ("--image", harness.image("orchestrated"), "--backend", "kvm", "--max-shared",
                   "8KiB")
        hvd.run("explicit", *options, "--cmdline", "only=explicit expect=denied")
        self.assertExits(0, hvd, "explicit")
        self.assertEqual(_refused(hvd, "explicit"), [("EXPLICIT", "SHARED_BYTES")])
        self.assertEqual(hvd.runs("explicit"), [(0, 16 * MIB, "PRIVATE")])
        hvd.run("implicit", *options[:-1], "1KiB", "--cmdline", "only=implicit")
        self.assertExits(125, hvd, "implicit")
        self.assertEqual(hvd.vm("implicit")["stopReason"], "CONVERSION_QUOTA")
        self.assertMetricsAgree(hvd, "implicit")
        self.stop(hvd)


if __name__ == "__main__":
    junit.main()
