"""64 VMs with 2 vCPUs each convert at once, and nothing of them is left afterwards."""

import os
import collections
from concurrent import futures

from tests import junit
from tests.e2e import harness
from tests.e2e.harness import MIB

_VMS = [f"vm-{i:02}" for i in range(64)]
_ROUNDS = 60


class ManyVms(harness.E2eTest):

    def resources(self, hvd):
        metrics = hvd.metrics()
        return {"threads": hvd.threads(), "fds": metrics[("process_open_fds",)],
                "memory": metrics[("process_resident_memory_bytes",)]}

    def assertResourcesAreBack(self, hvd, before):
        def back():
            now = self.resources(hvd)
            # gRPC keeps some threads, and the journal the events; AddressSanitizer keeps freed bytes.
            slack = (1024 if "ASAN_OPTIONS" in os.environ else 64) * MIB
            return (now["threads"] <= before["threads"] + 8 and now["fds"] <= before["fds"] + 2
                    and now["memory"] <= before["memory"] + slack)
        try:
            harness.until(back, "what the VMs used is free again", patience=15)
        except AssertionError as late:
            raise AssertionError(f"before {before}, now {self.resources(hvd)}") from late

    def test_SixtyFourVmsConvertAtOnce(self):
        hvd = self.start_with_kvm()
        with futures.ThreadPoolExecutor(4) as pool:
            def on_all(*command):
                noun, verb, *options = command
                return list(pool.map(lambda vm: hvd.hvctl(noun, verb, vm, *options), _VMS))
            def do_on_all(*command):
                for answer in on_all(*command):
                    self.assertCode(0, answer)

            list(pool.map(lambda _: hvd.do("vm", "list"), range(16)))  # as many connections as will ever be
            before = self.resources(hvd)
            do_on_all("vm", "create", "--memory", "8MiB", "--vcpus", "2", "--backend", "kvm",
                      "--image", harness.image("smp"), "--cmdline", f"rounds={_ROUNDS}")
            do_on_all("vm", "start")
            do_on_all("vm", "wait", "--timeout", "90s")
            for answer in on_all("vm", "console"):
                self.assertIn(f"smp: ok, vCPUs 2, rounds {_ROUNDS}", answer.out)

            self.assertEventsAgree(hvd)
            self.assertEqual(hvd.host()["vms"], len(_VMS))
            do_on_all("vm", "delete")
            self.assertEqual(hvd.do("vm", "list", "-o", "json").json()["vms"], [])
            self.assertEqual(harness.conversion_metrics(hvd), {})
            self.assertResourcesAreBack(hvd, before)
        self.stop(hvd)

    def assertEventsAgree(self, hvd):
        events = hvd.events()
        self.assertEqual([event for event in events if "gap" in event], [])
        sequences = collections.defaultdict(list)
        for event in events:
            if "daemonStarted" not in event:
                sequences[event["vm"]].append(int(event["vmSequence"]))
        self.assertEqual(sorted(sequences), _VMS)
        for vm, sequence in sequences.items():
            self.assertEqual(sequence, list(range(1, len(sequence) + 1)), vm)
        conversions = harness.conversions(events)
        self.assertEqual(harness.conversion_metrics(hvd), harness.metrics_of(conversions))
        self.assertEqual({c["decision"] for _, c in conversions}, {"APPLIED"})
        for vm in _VMS[::16]:
            self.assertEqual(
                hvd.runs(vm), harness.runs_of(harness.conversions(events, vm), 8 * MIB), vm)


if __name__ == "__main__":
    junit.main()
