"""hvd starts, refuses to start with a reason, and ends, as an operator or systemd sees it."""

import os
import shutil
import signal
import socket
import subprocess
import time

from tests import junit
from tests.e2e import harness

_PROGRAM = "tests/scenarios/programs/one_conversion.textproto"
_DEVICES = ["null", "zero", "urandom", "kvm", "userfaultfd"]
_CONFLICT, _UNAVAILABLE = 5, 4

# Becomes "$@" in a mount namespace where /dev is the folder $1, with the device nodes $2.
_HIDE = """
set -e
folder=$1
for node in $2; do : > "$folder/$node"; mount --bind "/dev/$node" "$folder/$node"; done
mount --rbind "$folder" /dev
shift 2
exec "$@"
"""


class Daemon(harness.E2eTest):

    def assertDoesNotStart(self, hvd, words, code=1):
        self.assertEqual(hvd.process.wait(harness.PATIENCE), code, hvd.log())
        self.assertIn(words, hvd.log())

    def run_endless(self, hvd, name):
        program = hvd.folder / "endless.textproto"
        program.write_text("vcpus { steps { loop { count: 100000000000 "
                           "steps { read { gpa: 0x400000 } } } } }")
        hvd.run(name, "--program", program, "--backend", "sim")


class Places(Daemon):
    """The socket, the state folder and the metrics port."""

    def test_ASecondDaemonOnTheSameSocketIsRefused(self):
        first = self.start("--backend", "sim")
        self.run_endless(first, "endless")
        second = self.launch("--backend", "sim", folder=first.folder)
        self.assertDoesNotStart(second, f"another hvd serves on {first.socket}")
        self.assertEqual(first.vm("endless")["state"], "RUNNING")
        first.run("p", "--program", _PROGRAM)
        self.assertExits(0, first, "p")
        self.stop(first)

    def test_AStaleSocketIsReplaced(self):
        killed = self.start("--backend", "sim")
        self.run_endless(killed, "endless")
        os.kill(killed.pid, signal.SIGKILL)
        self.assertEqual(killed.process.wait(), -signal.SIGKILL)
        self.assertTrue(killed.socket.is_socket())
        answer = killed.hvctl("vm", "list")
        self.assertCode(_UNAVAILABLE, answer)
        self.assertIn(f"nobody listens on {killed.socket}", answer.err)

        again = self.start("--backend", "sim", folder=killed.folder)
        self.assertEqual(again.do("vm", "list", "-o", "json").json()["vms"], [])
        again.run("endless", "--program", _PROGRAM)
        self.assertExits(0, again, "endless")
        self.stop(again)

    def test_WhatIsNoSocketIsLeftAlone(self):
        folder = self.folder()
        (folder / "hvd.sock").write_text("precious")
        self.assertDoesNotStart(self.launch(folder=folder), "exists and is no socket")
        self.assertEqual((folder / "hvd.sock").read_text(), "precious")

    def test_ASocketPathThatIsTooLong(self):
        folder = self.folder() / ("x" * 100)
        folder.mkdir()
        hvd = self.launch(folder=folder)
        self.assertDoesNotStart(hvd, "choose a shorter one with --socket")
        self.assertIn(f"{len(str(hvd.socket))} bytes", hvd.log())

    def test_AStateFolderThatIsAFile(self):
        folder = self.folder()
        (folder / "state").write_text("precious")
        self.assertDoesNotStart(self.launch(folder=folder), "choose another with --state-dir")

    def test_AMetricsPortThatIsTaken(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            hvd = self.launch("--backend", "sim", metrics=address)
            self.assertDoesNotStart(hvd, f"cannot serve metrics on {address}")
            self.assertIn("--metrics-address", hvd.log())

    def test_MetricsMayBeOff(self):
        hvd = self.start("--backend", "sim", metrics="off")
        self.assertEqual(hvd.host()["metricsAddress"], "")
        self.stop(hvd)

    def test_OptionsThatCannotBe(self):
        for options, words in ((["--backend", "xen"], '"xen" is no backend'),
                               (["--frobnicate"], "--frobnicate")):
            with self.subTest(options):
                self.assertDoesNotStart(self.launch(*options), words, code=2)
        self.assertDoesNotStart(self.launch(metrics="nowhere"), '"nowhere" is not HOST:PORT', code=2)


class Hosts(Daemon):
    """Hosts that lack what kvm needs, made by hiding device nodes."""

    def without(self, *hidden):
        """A wrapper for hvd on such a host; skips the test where there can be none."""
        folder = self.folder()
        nodes = [node for node in _DEVICES
                 if node not in hidden and os.path.exists(f"/dev/{node}")]
        if shutil.which("unshare") is None:
            self.skipTest("unshare is missing; install the Debian package util-linux")
        wrapper = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", _HIDE, "sh",
                   str(folder), " ".join(nodes)]
        trial = subprocess.run([*wrapper, "true"], capture_output=True, text=True)
        if trial.returncode != 0:
            self.skipTest(f"a namespace that hides devices cannot be made: {trial.stderr.strip()}")
        return wrapper

    def without_userfaultfd(self):
        """As above. The system call is for those who have CAP_SYS_PTRACE, and not in a namespace."""
        with open("/proc/sys/vm/unprivileged_userfaultfd") as setting:
            if setting.read().strip() != "0":
                self.skipTest("vm.unprivileged_userfaultfd is set here: anybody has userfaultfd")
        self.start_with_kvm()  # else /dev/kvm would be what is missing
        return self.without("userfaultfd")

    def assertSaysWhatIsMissing(self, wrapper, missing):
        """kvm by name does not start; auto takes sim, says why, and works."""
        refused = self.launch("--backend", "kvm", wrapper=wrapper)
        self.assertDoesNotStart(refused, "backend kvm cannot work on this host")
        self.assertIn(missing, refused.log())
        self.assertIn("--backend sim", refused.log())

        hvd = self.start(wrapper=wrapper)
        host = hvd.host()
        self.assertEqual((host["defaultBackend"], host["backends"]), ("SIM", ["SIM"]))
        self.assertIn(missing, host["defaultBackendReason"])
        self.assertIn(f"backend sim: {host['defaultBackendReason']}", hvd.log())
        self.assertTrue([check for check in host["checks"]
                         if check["result"] == "MISSING" and missing in check["detail"]], host)
        answer = hvd.hvctl("vm", "create", "k", "--memory", "16MiB", "--vcpus", "1", "--backend",
                           "kvm", "--image", harness.image("hello"))
        self.assertCode(_CONFLICT, answer)
        self.assertIn(missing, answer.err)
        self.assertEqual(hvd.do("vm", "list", "-o", "json").json()["vms"], [])
        hvd.run("p", "--program", _PROGRAM)
        self.assertExits(0, hvd, "p")
        self.stop(hvd)

    def test_WithoutKvm(self):
        self.assertSaysWhatIsMissing(self.without("kvm"), "/dev/kvm")

    def test_WithoutUserfaultfd(self):
        self.assertSaysWhatIsMissing(self.without_userfaultfd(), "userfaultfd")

    def test_WithAll(self):
        """What hides nothing changes nothing: the tests above see what they hide."""
        self.start_with_kvm()
        hvd = self.start(wrapper=self.without())
        self.assertEqual(hvd.host()["backends"], ["KVM", "SIM"])
        self.stop(hvd)


class Lifecycle(Daemon):

    def test_SigtermEndsVmsAndStreamsWithin5Seconds(self):
        hvd = self.start()
        self.run_endless(hvd, "endless")
        if "KVM" in hvd.host()["backends"]:
            hvd.run("kvm", "--image", harness.image("hostile"), "--cmdline", "mode=spin")
        hvd.run("parked", "--program", _PROGRAM, "--policy", "orchestrator")
        hvd.wait_for_request("parked")
        hvd.create("defined", "--program", _PROGRAM)
        running = {vm["name"].removeprefix("vms/") for vm
                   in hvd.do("vm", "list", "-o", "json").json()["vms"] if vm["state"] == "RUNNING"}
        self.assertTrue(running >= {"endless", "parked"}, running)
        events = hvd.follow()
        harness.until(lambda: '"vm":"defined"' in events.text(), "the stream is up to date")
        console = hvd.stream("vm", "console", "--follow", "parked")
        waiting = hvd.stream("vm", "wait", "parked")
        harness.until(lambda: "before the conversion" in console.text(), "the console stream is up")
        harness.until(lambda: hvd.calls("VmService/WaitVm"), "the call waits")

        began = time.monotonic()
        self.assertEqual(hvd.terminate(), 0, hvd.log())
        self.assertLess(time.monotonic() - began, 5)
        self.assertIn("drained", hvd.log())

        # Streams end as documented, and tell of the VMs' end first.
        self.assertEqual(events.wait(), _UNAVAILABLE)
        self.assertIn("hvd is shutting down", events.errors())
        told = events.events()
        self.assertIn("bookmark", told[-1])
        self.assertIn(told[-1]["cursor"], events.errors())  # where to go on
        self.assertEqual({event["vm"] for event in told
                          if event.get("vmState", {}).get("stopReason") == "DAEMON_STOPPING"},
                         running)
        self.assertEqual(console.wait(), 0, console.errors())
        self.assertEqual(waiting.wait(), 125, waiting.errors())
        self.assertIn("DAEMON_STOPPING", waiting.errors())

    def test_StartAndStopThreeTimesInTheSamePlace(self):
        folder = self.folder()
        for _ in range(3):
            hvd = self.start("--backend", "sim", folder=folder)
            hvd.run("p", "--program", _PROGRAM)
            self.assertExits(0, hvd, "p")
            self.stop(hvd)
            self.assertCode(_UNAVAILABLE, hvd.hvctl("vm", "list"))

    def test_SystemdIsToldOfReadyAndStopping(self):
        folder = self.folder()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(str(folder / "notify"))
            notify.settimeout(harness.PATIENCE)
            hvd = self.launch("--backend", "sim", folder=folder,
                              variables={"NOTIFY_SOCKET": str(folder / "notify")})
            self.assertIn("READY=1", notify.recv(4096).decode().splitlines())
            # Ready means that it answers, now.
            self.assertEqual(hvd.host()["defaultBackend"], "SIM")
            self.stop(hvd)
            self.assertIn("STOPPING=1", notify.recv(4096).decode().splitlines())


if __name__ == "__main__":
    junit.main()
