"""Calls of another gRPC implementation: errors, deadlines, cancellation, 64-bit numbers, pings."""

import hashlib
import pathlib

from tests import junit
from tests.e2e import harness as e2e
from tests.interop import harness


class Calls(harness.InteropTest):

    def handled(self, hvd, method, code):
        name = "twinroot_grpc_handled_total"
        return hvd.metrics(name).get((name, ("code", code), ("method", f"twinroot.v1.{method}")), 0)

    def assertFailed(self, answer, code, reason, words, **metadata):
        self.assertEqual(answer["code"], code, answer)
        self.assertIn(words, answer["message"])
        info = answer["details"]["ErrorInfo"]
        self.assertEqual((info["reason"], info["domain"]), (reason, "twinroot"))
        self.assertLessEqual(metadata.items(), info["metadata"].items())

    def test_ErrorsCarryTheirDetails(self):
        hvd = self.start("--backend", "sim")
        oldest = hvd.events()[0]["cursor"]
        found = self.case(hvd, "errors", "0123456789abcdef-1")
        self.assertFailed(found["missing"], "NOT_FOUND", "NO_SUCH_VM", "none", vm="none")
        self.assertFailed(found["taken"], "ALREADY_EXISTS", "VM_EXISTS", "errors", vm="errors")
        self.assertFailed(found["field"], "INVALID_ARGUMENT", "INVALID_FIELD", "65")
        self.assertEqual([violation["field"] for violation in
                          found["field"]["details"]["BadRequest"]["fieldViolations"]], ["vm.vcpus"])
        # Not a digit of it was lost on the way, as a double would lose some.
        self.assertFailed(found["range"], "INVALID_ARGUMENT", "INVALID_RANGE", "0xffffffffffffffff")
        self.assertFailed(found["private"], "PERMISSION_DENIED", "PRIVATE_MEMORY", "0x400000")
        self.assertFailed(found["state"], "FAILED_PRECONDITION", "WRONG_STATE", "")
        self.assertEqual(found["cursor"]["messages"], [])
        self.assertFailed(found["cursor"], "OUT_OF_RANGE", "CURSOR_OTHER_EPOCH", "")
        begin = found["cursor"]["details"]["ErrorInfo"]["metadata"]["oldest_cursor"]
        self.assertEqual(hvd.events("--since", begin)[0]["cursor"], oldest)
        self.stop(hvd)

    def test_NumbersOf64BitsAreWhole(self):
        hvd = self.start("--backend", "sim")
        found = self.case(hvd, "numbers")
        self.assertEqual(found, {
            "exitCode": 0,
            "memoryBytes": "4294967296",
            "value": "13835058055282163713",
            "runs": [["0", "3221225472", "MEMORY_KIND_PRIVATE"],
                     ["4294967296", "4096", "MEMORY_KIND_SHARED"],
                     ["4294971392", "1073737728", "MEMORY_KIND_PRIVATE"]],
        })
        self.stop(hvd)

    def test_ADeadlineEndsItsCallOnly(self):
        hvd = self.start("--backend", "sim")
        found = self.case(hvd, "deadline")
        self.assertEqual(found["wait"]["code"], "DEADLINE_EXCEEDED", found)
        self.assertGreaterEqual(found["milliseconds"], 299)
        self.assertEqual(found["after"]["answer"]["vm"]["state"], "STATE_DEFINED")
        self.stop(hvd)

    def test_WhatIsCancelledEndsInTheDaemonToo(self):
        hvd = self.start("--backend", "sim")
        found = self.case(hvd, "cancellation", hvd.events()[0]["cursor"])
        self.assertEqual((found["watched"], found["waited"]), ("CANCELLED", "CANCELLED"))
        self.assertGreater(found["events"], 0)
        self.assertEqual(found["after"]["answer"]["vm"]["state"], "STATE_DEFINED")
        for method in ("EventService/WatchEvents", "VmService/WaitVm"):
            e2e.until(lambda: self.handled(hvd, method, "CANCELLED") == 1, f"{method} has ended")
        self.stop(hvd)

    def test_AClientMayAskEverySecondWhetherTheDaemonIsThere(self):
        hvd = self.start("--backend", "sim")
        found = self.case(hvd, "keepalive")
        self.assertEqual(found["wait"]["answer"]["vm"]["state"], "STATE_STOPPED", found)
        self.stop(hvd)

    def test_AnImageIsUploadedInChunks(self):
        hvd = self.start("--backend", "sim")
        image = pathlib.Path(e2e.image("orchestrated"))
        content = image.read_bytes()
        found = self.case(hvd, "upload", image.resolve())
        name = {"image": f"images/{hashlib.sha256(content).hexdigest()}", "size": str(len(content))}
        self.assertEqual((found["first"], found["again"]), (name, name))
        self.assertFailed(found["cut"], "INVALID_ARGUMENT", "IMAGE_INCOMPLETE", "")
        self.stop(hvd)


if __name__ == "__main__":
    junit.main()
