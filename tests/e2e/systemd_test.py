"""What hvd and systemd say to each other, with this test in systemd's place: sockets that are given,
READY, STATUS and watchdog pings, credentials."""

import ctypes
import fcntl
import json
import os
import pathlib
import signal
import socket
import subprocess
import time

from tests import junit
from tests.e2e import harness

_USAGE, _DENIED = 2, 6
_PROGRAM = "tests/scenarios/programs/one_conversion.textproto"
# ptrace(2): to stop one thread, as a debugger does.
_SEIZE, _INTERRUPT, _DETACH, _WALL = 0x4206, 0x4207, 17, 0x40000000
_PING_SECONDS = 0.1  # a quarter of what WATCHDOG_USEC says below


class NotifySocket:
    """$NOTIFY_SOCKET, and what was said to it."""

    def __init__(self, folder):
        self.path = str(folder / "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.bind(self.path)
        self._socket.setblocking(False)
        self._waiting = []

    def close(self):
        self._socket.close()

    def said(self):
        """The messages that came since the last call, as {variable: value}."""
        messages, self._waiting = self._waiting, []
        while True:
            try:
                text = self._socket.recv(4096).decode()
            except BlockingIOError:
                return messages
            messages.append(dict(line.split("=", 1) for line in text.splitlines()))

    def until(self, condition, what):
        """The first message for which `condition` holds; those before it are gone."""
        def found():
            said = self.said()
            for i, message in enumerate(said):
                if condition(message):
                    self._waiting = said[i + 1:]
                    return message
            return None
        return harness.until(found, what)


class AsService(harness.E2eTest):
    """hvd as systemd would start it."""

    def serve(self, *options, variables=(), sockets=(), names=None, folder=None):
        """`sockets`: those given, from descriptor 3 on; `names`: of them."""
        folder = folder or self.folder()
        variables = dict(variables)
        inherited = [fcntl.fcntl(each.fileno(), fcntl.F_DUPFD, 64) for each in sockets]
        wrapper = []
        if sockets or names is not None:
            moves = "".join(f"exec {3 + i}<&{fd} {fd}<&-;" for i, fd in enumerate(inherited))
            wrapper = ["bash", "-c", f'{moves} export LISTEN_PID=${{PID:-$$}}; exec "$@"', "bash"]
            variables.setdefault("LISTEN_FDS", str(len(sockets)))
            if names is not None:
                variables["LISTEN_FDNAMES"] = names
        for fd in inherited:
            os.set_inheritable(fd, True)
        hvd = self.launch("--backend", "sim", *options, folder=folder, wrapper=wrapper,
                          variables=variables, pass_fds=inherited)
        for fd in inherited:
            os.close(fd)
        return hvd

    def listen(self, path, kind=socket.SOCK_STREAM):
        listener = socket.socket(socket.AF_UNIX, kind)
        self.addCleanup(listener.close)
        listener.bind(str(path))
        if kind == socket.SOCK_STREAM:
            listener.listen(16)
        return listener


class Sockets(AsService):

    def through(self, hvd, path, *arguments):
        return harness.Answer(subprocess.run(
            [harness.HVCTL, "--endpoint", f"unix:{path}", *arguments], capture_output=True,
            stdin=subprocess.DEVNULL, timeout=harness.PATIENCE))

    def test_EachSocketGivesItsRoleAndNoMoreAndTheAuditLogKnowsWhoItWas(self):
        folder = self.folder()
        admin, operators, viewers = (folder / f"{name}.sock"
                                     for name in ("hvd", "operator", "viewer"))
        hvd = self.serve(sockets=[self.listen(viewers), self.listen(admin), self.listen(operators)],
                         names="viewer:admin:operator", folder=folder)
        hvd.wait_until_ready()
        self.assertIn(f"serves on {viewers} (viewer) and {admin} and {operators} (operator)",
                      hvd.log())
        create = ["vm", "create", "demo", "--memory", "16MiB", "--vcpus", "1", "--program", _PROGRAM]
        self.assertCode(0, self.through(hvd, viewers, "vm", "list"))
        answer = self.through(hvd, viewers, *create)
        self.assertCode(_DENIED, answer)
        self.assertIn("needs the role operator and this socket gives viewer to whoever uses it",
                      answer.err)
        self.assertCode(0, self.through(hvd, operators, *create))
        self.assertCode(_DENIED, self.through(hvd, operators, "host", "audit"))
        self.assertCode(0, self.through(hvd, admin, "host", "audit"))
        self.stop(hvd)
        lines = [json.loads(line)
                 for line in (folder / "state/audit.jsonl").read_text().splitlines()]
        self.assertEqual([(line["method"].split("/")[1], line["role"], line.get("door"))
                          for line in lines],
                         [("CreateVm", "viewer", "viewer"), ("CreateVm", "operator", "operator"),
                          ("Audit", "operator", "operator"), ("Audit", "admin", None)])
        self.assertEqual({line["principal"] for line in lines}, {f"uid:{os.geteuid()}"})
        self.assertTrue(all(line["pid"] for line in lines))
        # Whoever made them keeps them: who comes now waits for the next daemon.
        for path in (admin, operators, viewers):
            self.assertTrue(path.exists())
        self.assertFalse((folder / "hvd.sock.lock").exists())

    def test_ACallThatComesBeforeTheDaemonIsAnsweredByIt(self):
        folder = self.folder()
        listener = self.listen(folder / "hvd.sock")
        early = subprocess.Popen(
            [harness.HVCTL, "--endpoint", f"unix:{folder / 'hvd.sock'}", "vm", "list", "-o", "json"],
            stdout=subprocess.PIPE, text=True)
        self.addCleanup(early.wait)
        time.sleep(0.2)
        hvd = self.serve(sockets=[listener], names="admin", folder=folder)
        self.assertEqual(json.loads(early.communicate(timeout=harness.PATIENCE)[0])["vms"], [])
        self.stop(hvd)

    def test_WithoutOneForEverythingHvdMakesItsOwn(self):
        folder = self.folder()
        hvd = self.serve(sockets=[self.listen(folder / "viewer.sock")], names="viewer",
                         folder=folder).wait_until_ready()
        self.assertCode(0, hvd.hvctl("host", "audit"))
        self.assertCode(_DENIED, self.through(hvd, folder / "viewer.sock", "host", "audit"))
        self.stop(hvd)
        self.assertFalse((folder / "hvd.sock").exists())

    def test_SocketsForAnotherProcessAreNotOurs(self):
        hvd = self.serve(names="nonsense", variables={"LISTEN_FDS": "7", "PID": "1"})
        self.stop(hvd.wait_until_ready())

    def refused(self, says, **how):
        hvd = self.serve(**how)
        self.assertEqual(hvd.process.wait(harness.PATIENCE), 1)
        self.assertIn("the sockets given to hvd cannot be used: ", hvd.log())
        self.assertIn(says, hvd.log())
        self.assertFalse((hvd.folder / "hvd.sock.lock").exists())

    def test_MistakesInWhatIsGivenAreToldWithTheNextStep(self):
        folder = self.folder()
        stream = self.listen(folder / "stream")
        self.refused('is named "king", which is none of admin, operator, viewer: set '
                     "FileDescriptorName=", sockets=[stream], names="king")
        self.refused('is named "unknown"', sockets=[stream])
        self.refused("each of the LISTEN_FDS descriptors from 3 on has one name",
                     sockets=[stream], names="admin:viewer")
        self.refused("each of the LISTEN_FDS descriptors", sockets=[stream], names="admin",
                     variables={"LISTEN_FDS": "many"})
        self.refused("descriptor 3 (admin) is no unix stream socket that listens",
                     sockets=[self.listen(folder / "datagram", socket.SOCK_DGRAM)], names="admin")
        with open(folder / "file", "w") as file:
            self.refused("descriptor 4 (viewer) is no unix stream socket that listens",
                         sockets=[stream, file], names="admin:viewer")


class Notices(AsService):

    def serve_and_listen(self, **variables):
        folder = self.folder()
        notify = NotifySocket(folder)
        self.addCleanup(notify.close)
        hvd = self.serve("--allow-core-dumps", folder=folder,
                         variables={"NOTIFY_SOCKET": notify.path, **variables})
        return hvd, notify

    def with_watchdog(self):
        return self.serve_and_listen(WATCHDOG_USEC=str(int(4e6 * _PING_SECONDS)))

    def ping(self, notify, what="a ping"):
        return notify.until(lambda message: message.get("WATCHDOG") == "1", what)

    def test_ReadyReloadingAndStoppingAreSaidEachInItsTime(self):
        hvd, notify = self.serve_and_listen()
        ready = notify.until(lambda message: "READY" in message, "READY=1")
        self.assertEqual(ready, {"READY": "1", "STATUS":
                                 f"Serving on {hvd.socket}, backend sim, 0 VMs"})
        self.assertCode(0, hvd.hvctl("host", "show"))
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        hvd.process.send_signal(signal.SIGHUP)
        reloading = notify.until(lambda message: "RELOADING" in message, "RELOADING=1")
        self.assertGreaterEqual(int(reloading["MONOTONIC_USEC"]), before)
        notify.until(lambda message: message.get("READY") == "1", "READY=1 after the reload")
        # Nobody asked for pings.
        self.assertEqual(notify.said(), [])
        self.stop(hvd)
        self.assertEqual(notify.said(), [{"STOPPING": "1", "STATUS": "Draining"}])

    def test_PingsComeWhileAllIsWellAndTheStatusFollows(self):
        hvd, notify = self.with_watchdog()
        for _ in range(3):
            self.assertIn("0 VMs", self.ping(notify)["STATUS"])
        hvd.create("demo", "--program", _PROGRAM)
        notify.until(lambda message: message.get("STATUS", "").endswith(", backend sim, 1 VM"),
                     "the status counts the VM")
        self.stop(hvd)

    def test_PingsComeWhileGuestsRunWithoutEndAndOneWaitsForADecision(self):
        hvd, notify = self.with_watchdog()
        hvd.wait_until_ready()
        for i in range(4):
            hvd.run(f"vm{i}", "--program", "tests/scenarios/programs/counts.textproto")
        hvd.run("gate", "--policy", "orchestrator", "--decision-timeout", "60s", "--program",
                _PROGRAM)
        hvd.wait_for_request("gate")
        notify.said()
        for _ in range(10):
            self.ping(notify)
        self.stop(hvd)

    def stuck(self, thread, part):
        """One thread of the daemon stands still, for a while."""
        hvd, notify = self.serve_and_listen(WATCHDOG_USEC=str(int(4e6 * _PING_SECONDS)))
        self.ping(notify)
        tids = [int(task.name) for task in pathlib.Path(f"/proc/{hvd.pid}/task").iterdir()
                if (task / "comm").read_text().strip() == thread]
        self.assertEqual(len(tids), 1, thread)
        libc = ctypes.CDLL(None, use_errno=True)
        libc.ptrace.argtypes = [ctypes.c_long] * 4
        if libc.ptrace(_SEIZE, tids[0], 0, 0) != 0:
            self.skipTest("one thread cannot be stopped here: ptrace: " +
                          os.strerror(ctypes.get_errno()))
        self.assertEqual(libc.ptrace(_INTERRUPT, tids[0], 0, 0), 0)
        os.waitpid(tids[0], _WALL)
        notify.until(lambda message: message.get("STATUS", "").startswith("Stuck for "),
                     "the status says so")
        # What was on its way is heard; then there is silence but for the status.
        time.sleep(5 * _PING_SECONDS)
        said = notify.said()
        self.assertTrue(said)
        for message in said:
            self.assertEqual(list(message), ["STATUS"])
            self.assertRegex(message["STATUS"], rf"^Stuck for \S+: .*\b{part}\b")
        self.assertIn("has not turned over for", hvd.log())
        self.assertEqual(libc.ptrace(_DETACH, tids[0], 0, 0), 0)
        self.ping(notify, "pings again")
        self.assertIn("turns over again", hvd.log())
        self.stop(hvd)

    def test_ADaemonWhoseClockStandsStillIsNotPingedFor(self):
        self.stuck("hvd-clock", "engine")

    def test_ADaemonThatAcceptsNoConnectionsIsNotPingedFor(self):
        self.stuck("hvd-door", "rpc")


class Credentials(AsService):

    def test_TlsComesFromTheServicesCredentials(self):
        folder = self.folder()
        credentials = folder / "credentials"
        credentials.mkdir(mode=0o700)

        def openssl(*arguments):
            subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=folder)

        def sign(name, alternative):
            openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                    "-keyout", f"{name}.key", "-subj", f"/CN={name}", "-out", f"{name}.csr")
            (folder / f"{name}.ext").write_text(f"subjectAltName={alternative}\n")
            openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
                    "-CAcreateserial", "-days", "1", "-extfile", f"{name}.ext",
                    "-out", f"{name}.pem")

        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                "-keyout", "ca.key", "-subj", "/CN=ca", "-days", "1", "-out", "ca.pem")
        sign("server", "IP:127.0.0.1")
        sign("alice", "URI:spiffe://example.org/alice")
        for name in ["server.pem", "server.key", "ca.pem"]:
            (folder / name).rename(credentials / name)
        (folder / "hvd.yaml").write_text(
            "tcp:\n  address: 127.0.0.1:0\n  certificate: credential:server.pem\n"
            "  key: credential:server.key\n  client_ca: credential:ca.pem\n"
            "roles: [{role: viewer, uris: ['spiffe://example.org/*']}]\n")
        variables = {"CREDENTIALS_DIRECTORY": str(credentials)}
        hvd = self.serve("--config", str(folder / "hvd.yaml"), variables=variables, folder=folder)
        harness.until(lambda: "serves on" in hvd.log(), "hvd serves")
        address = hvd.log().split(", tcp ")[1].split(",")[0]
        done = subprocess.run(
            [harness.HVCTL, "--endpoint", address, "--ca", str(credentials / "ca.pem"), "--cert",
             str(folder / "alice.pem"), "--key", str(folder / "alice.key"), "vm", "list"],
            capture_output=True, text=True, timeout=harness.PATIENCE)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.stop(hvd)
        # By hand, without them, the file is not right, and the next step is said.
        hvd = self.serve("--config", str(folder / "hvd.yaml"))
        self.assertEqual(hvd.process.wait(harness.PATIENCE), _USAGE)
        self.assertIn("CREDENTIALS_DIRECTORY=/run/credentials/hvd.service", hvd.log())


if __name__ == "__main__":
    junit.main()
