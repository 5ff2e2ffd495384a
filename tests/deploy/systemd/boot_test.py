"""The units under a real systemd: process 1 of a machine of its own (namespaces), where this host
lets root make one. It sees what only systemd does: who the daemon becomes, what it may still do, when
it is started, told, pinged for, and started anew."""

import json
import os
import pathlib
import re
import subprocess
import tempfile
import time
import unittest

from tests import junit
from tests.e2e import harness

_BOOT = os.path.abspath("tests/deploy/systemd/boot.sh")
_UNITS = os.path.abspath("deploy/systemd")
_PROGRAM = pathlib.Path("tests/scenarios/programs/counts.textproto")
_SPACES = ["--mount", "--pid", "--uts", "--ipc", "--net", "--cgroup"]
_SERVICE = "hvd.service"


# What boot.sh needs the kernel to allow.
_TRIAL = """
mount -t tmpfs files /mnt
mkdir /mnt/changes /mnt/work /mnt/root
mount -t overlay -o lowerdir=/,upperdir=/mnt/changes,workdir=/mnt/work overlay /mnt/root
mknod /mnt/null c 1 3
: >/mnt/null
mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ip link set lo up
"""


class ControlGroup:
    """One of its own, so that its systemd has no business with the host's."""

    @staticmethod
    def top():
        mounts = pathlib.Path("/proc/self/mountinfo").read_text()
        found = re.search(r"(?m)^\S+ \S+ \S+ \S+ (\S+) .* - cgroup2 ", mounts)
        return found and found[1]

    def __init__(self):
        self.path = pathlib.Path(tempfile.mkdtemp(prefix="twinroot-test.", dir=self.top()))

    def remove(self):
        def empty():
            for folder, _, _ in os.walk(self.path, topdown=False):
                try:
                    os.rmdir(folder)
                except OSError:
                    return False
            return not self.path.exists()
        harness.until(empty, "the control group is empty")


def why_not():
    """Why this host cannot do it, or None."""
    if os.geteuid() != 0:
        return "only root can give a systemd a machine of its own"
    if not pathlib.Path("/lib/systemd/systemd").exists():
        return "systemd is missing; install the Debian package systemd"
    if ControlGroup.top() is None:
        return "control groups of version 2 are mounted nowhere"
    trial = subprocess.run(["unshare", *_SPACES, "--fork", "sh", "-ec", _TRIAL],
                           capture_output=True, text=True)
    return f"namespaces: {trial.stderr.strip()}" if trial.returncode != 0 else None


class Machine:
    """A running systemd with Twinroot installed and not started."""

    def __init__(self, folder):
        self.group = ControlGroup()
        self._console = open(folder / "console", "wb")
        (folder / "root").mkdir()
        script = 'echo $$ >"$0/cgroup.procs" && exec "$@"'
        self._unshare = subprocess.Popen(
            ["sh", "-c", script, str(self.group.path), "unshare", *_SPACES, "--fork",
             "--kill-child", _BOOT, str(folder / "root"), harness.HVD, harness.HVCTL, _UNITS],
            stdin=subprocess.DEVNULL, stdout=self._console, stderr=subprocess.STDOUT)
        self.folder = folder
        self.pid = None

    def boot(self):
        self.pid = harness.until(self._first, "systemd has begun", patience=60)
        harness.until(lambda: self.run("systemctl", "is-active", "basic.target").out == "active\n",
                      "systemd is up", patience=120)

    def _first(self):
        if self._unshare.poll() is not None:
            raise AssertionError((self.folder / "console").read_text())
        path = pathlib.Path(f"/proc/{self._unshare.pid}/task/{self._unshare.pid}/children")
        for pid in path.read_text().split():
            if pathlib.Path(f"/proc/{pid}/comm").read_text().strip() == "systemd":
                return int(pid)
        return None

    def run(self, *command, user=None):
        """A command in there, as root or as `user`, whose group has the same name."""
        inside = ["nsenter", "--target", str(self.pid), "--mount", "--pid", "--uts", "--ipc",
                  "--net", "--cgroup", "--"]
        if user is not None:
            inside += ["setpriv", "--reuid", user, "--regid", user, "--init-groups", "--"]
        return harness.Answer(subprocess.run(
            [*inside, *map(str, command)], capture_output=True, stdin=subprocess.DEVNULL,
            timeout=harness.PATIENCE, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}))

    def do(self, *command, **how):
        answer = self.run(*command, **how)
        if answer.code != 0:
            raise AssertionError(f"{answer}\n{self.run('journalctl', '--no-pager', '-n', '60').out}")
        return answer.out

    def hvctl(self, *arguments, socket="hvd", **how):
        return self.run("hvctl", "--endpoint", f"unix:/run/twinroot/{socket}.sock", *arguments,
                        **how)

    def write(self, path, text):
        self.do("sh", "-c", f"mkdir -p $(dirname {path}) && cat >{path} <<'END'\n{text}END")

    def may_raise_limits(self):
        """Its systemd has CAP_SYS_RESOURCE, as every real one has."""
        status = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        return bool(int(re.search(r"(?m)^CapEff:\t(\S+)$", status)[1], 16) & 1 << 24)

    def property(self, name, unit=_SERVICE):
        return self.do("systemctl", "show", "--value", "--property", name, unit).strip()

    def main_pid(self):
        """The daemon's, as its own machine counts."""
        return self.property("MainPID")

    def journal(self, *filters):
        """The daemon's lines, as [{field: value}]."""
        out = self.do("journalctl", "-o", "json", "--no-pager", *filters)
        return [json.loads(line) for line in out.splitlines()]

    def close(self):
        # --kill-child: it takes its first process along, and that one all others.
        self._unshare.kill()
        self._unshare.wait()
        self._console.close()
        self.group.remove()


_WHY_NOT = why_not()


@unittest.skipIf(_WHY_NOT, f"no systemd of our own here: {_WHY_NOT}")
class UnderSystemd(unittest.TestCase):
    """One machine for all cases; each begins with a daemon that does not run."""

    maxDiff = None

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="twinroot-boot.", dir="/tmp")
        cls.addClassCleanup(folder.cleanup)
        cls.machine = Machine(pathlib.Path(folder.name))
        cls.addClassCleanup(cls.machine.close)
        cls.machine.boot()
        cls.machine.do("useradd", "--user-group", "alice")

    def setUp(self):
        self.stop_all()
        self.addCleanup(self.stop_all)

    def stop_all(self):
        self.machine.do("systemctl", "stop", "hvd.socket", "hvd-operator.socket",
                        "hvd-viewer.socket", _SERVICE)
        self.machine.run("systemctl", "reset-failed")

    def start(self, *units):
        self.machine.do("systemctl", "start", *units, _SERVICE)

    def create(self, name, **how):
        """A VM that goes on, on sim."""
        self.machine.write(f"/run/{name}.textproto", _PROGRAM.read_text())
        for words in [["create", name, "--memory", "16MiB", "--vcpus", "1", "--backend", "sim",
                       "--program", f"/run/{name}.textproto"], ["start", name]]:
            answer = self.machine.hvctl("vm", *words, **how)
            self.assertEqual(answer.code, 0, str(answer))

    def test_ItIsActiveWhenItIsReadyAndSaysWhatItDoes(self):
        self.start()
        self.assertEqual(self.machine.property("ActiveState"), "active")
        self.assertRegex(self.machine.property("StatusText"),
                         r"^Serving on /run/twinroot/hvd.sock, backend (kvm|sim), 0 VMs$")
        answer = self.machine.hvctl("host", "show")
        self.assertEqual(answer.code, 0, str(answer))

    def test_ItIsAUserOfItsOwnWithoutCapabilities(self):
        self.start()
        status = self.machine.do("cat", f"/proc/{self.machine.main_pid()}/status")
        uid = self.machine.do("id", "-u", "twinroot").strip()
        self.assertRegex(status, rf"(?m)^Uid:\t{uid}\t{uid}\t{uid}\t{uid}$")
        for kind in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]:
            self.assertRegex(status, rf"(?m)^{kind}:\t0+$")
        self.assertRegex(status, r"(?m)^NoNewPrivs:\t1$")
        self.assertRegex(status, r"(?m)^Seccomp:\t2$")
        limits = self.machine.do("cat", f"/proc/{self.machine.main_pid()}/limits")
        if self.machine.may_raise_limits():
            self.assertRegex(limits, r"(?m)^Max open files +1048576 +1048576 ")
        self.assertRegex(limits, r"(?m)^Max core file size +0 +0 ")
        self.assertEqual(self.machine.do("stat", "-c", "%U %a", "/var/lib/twinroot"),
                         "twinroot 700\n")
        self.assertEqual(self.machine.property("ControlGroup"), "/twinroot.slice/hvd.service")

    def test_KvmWorksForItIfItWorksForRoot(self):
        if not pathlib.Path("/dev/kvm").exists():
            self.skipTest("this host has no /dev/kvm")
        by_root = self.machine.run("sh", "-c", "d=$(mktemp -d); hvd --socket $d/s --state-dir $d/d "
                                   "--metrics-address off & until hvctl --endpoint unix:$d/s "
                                   "host show -o json 2>/dev/null; do sleep 0.1; done; kill $!")
        host = json.loads(by_root.out)
        if "KVM" not in host["backends"]:
            self.skipTest(f"kvm: {host['defaultBackendReason']}")
        self.start()
        answer = self.machine.hvctl("host", "show", "-o", "json")
        self.assertEqual(answer.json()["backends"], host["backends"], str(answer))

    def test_TheFirstConnectionStartsIt(self):
        self.machine.do("systemctl", "start", "hvd.socket")
        self.assertEqual(self.machine.property("ActiveState"), "inactive")
        answer = self.machine.hvctl("vm", "list", "-o", "json")
        self.assertEqual((answer.code, answer.json()["vms"]), (0, []), str(answer))
        self.assertEqual(self.machine.property("ActiveState"), "active")

    def test_WhoMayOpenASocketHasItsRoleAndOthersCannotConnect(self):
        self.start("hvd-operator.socket", "hvd-viewer.socket")
        self.assertEqual(self.machine.do("stat", "-c", "%n %U %G %a", "/run/twinroot/hvd.sock",
                                         "/run/twinroot/operator.sock",
                                         "/run/twinroot/viewer.sock").splitlines(),
                         ["/run/twinroot/hvd.sock root twinroot-admin 660",
                          "/run/twinroot/operator.sock root twinroot-operator 660",
                          "/run/twinroot/viewer.sock root twinroot-viewer 660"])
        for socket in ["hvd", "operator", "viewer"]:
            answer = self.machine.hvctl("vm", "list", socket=socket, user="alice")
            self.assertEqual(answer.code, 6, str(answer))
            self.assertIn("no permission for the socket", answer.err)
        for socket, role in [("hvd", "admin"), ("operator", "operator"), ("viewer", "viewer")]:
            self.machine.do("usermod", "-G", f"twinroot-{role}", "alice")
            answer = self.machine.hvctl("vm", "list", socket=socket, user="alice")
            self.assertEqual(answer.code, 0, str(answer))
            audit = self.machine.hvctl("host", "audit", socket=socket, user="alice")
            self.assertEqual(audit.code, 0 if role == "admin" else 6, str(audit))
        self.machine.do("usermod", "-G", "", "alice")
        uid = self.machine.do("id", "-u", "alice").strip()
        lines = [json.loads(line) for line in
                 self.machine.do("cat", "/var/lib/twinroot/audit.jsonl").splitlines()][-3:]
        self.assertEqual([(line["principal"], line["user"], line["role"], line.get("door"))
                          for line in lines],
                         [(f"uid:{uid}", "alice", "admin", None),
                          (f"uid:{uid}", "alice", "operator", "operator"),
                          (f"uid:{uid}", "alice", "viewer", "viewer")])

    def test_AReloadReadsTheFileAgainAndAMistakeChangesNothing(self):
        self.machine.write("/etc/twinroot/hvd.yaml", "log_level: info\n")
        self.addCleanup(self.machine.do, "rm", "/etc/twinroot/hvd.yaml")
        self.start()
        pid = self.machine.main_pid()
        self.machine.write("/etc/twinroot/hvd.yaml", "log_level: debug\n")
        self.machine.do("systemctl", "reload", _SERVICE)
        filters = ["-u", _SERVICE, f"_PID={pid}"]

        def says(text):
            return [line for line in self.machine.journal(*filters) if text in line["MESSAGE"]]
        harness.until(lambda: says("read /etc/twinroot/hvd.yaml again"), "it has read it")
        self.machine.write("/etc/twinroot/hvd.yaml", "log_level: loud\n")
        self.machine.do("systemctl", "reload", _SERVICE)
        line = harness.until(lambda: says("the old one stays"), "it has seen the mistake")[0]
        self.assertEqual(line["PRIORITY"], "3")
        self.assertEqual(self.machine.property("ActiveState"), "active")
        self.assertEqual(self.machine.main_pid(), pid)

    def test_KeysThatOnlyRootCanReadAreGivenToIt(self):
        drop_in = f"/run/systemd/system/{_SERVICE}.d"
        tls = "/etc/twinroot/tls"
        self.addCleanup(self.machine.do, "systemctl", "daemon-reload")
        self.addCleanup(self.machine.do, "rm", "-r", drop_in, tls, "/etc/twinroot/hvd.yaml")
        self.machine.do("mkdir", "-p", drop_in, tls)
        self.machine.do("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                        "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{tls}/server.key",
                        "-subj", "/CN=server", "-days", "1", "-out", f"{tls}/server.pem")
        self.machine.do("chmod", "600", f"{tls}/server.key", f"{tls}/server.pem")
        self.machine.write(f"{drop_in}/keys.conf", "[Service]\n" + "".join(
            f"LoadCredential={name}:{tls}/{name}\n" for name in ["server.key", "server.pem"]))
        self.machine.write("/etc/twinroot/hvd.yaml", "tcp:\n  address: 127.0.0.1:7443\n"
                           "  certificate: credential:server.pem\n  key: credential:server.key\n"
                           "  client_ca: credential:server.pem\n")
        self.machine.do("systemctl", "daemon-reload")
        self.start()
        said = [line["MESSAGE"] for line in
                self.machine.journal("-u", _SERVICE, f"_PID={self.machine.main_pid()}")]
        self.assertIn(", tcp 127.0.0.1:7443,", said[0])
        self.assertEqual(self.machine.run("cat", f"{tls}/server.key", user="twinroot").code, 1)
        checked = self.machine.run("env", f"CREDENTIALS_DIRECTORY=/run/credentials/{_SERVICE}",
                                   "hvd", "--check-config")
        self.assertEqual((checked.code, checked.out), (0, "ok\n"), str(checked))

    def test_TheJournalHasTheFieldsOfAVm(self):
        self.start()
        self.create("fields")
        self.assertEqual(self.machine.hvctl("vm", "stop", "fields").code, 0)
        lines = harness.until(
            lambda: [line for line in self.machine.journal("TWINROOT_VM=fields")
                     if "TWINROOT_REASON" in line], "a line with a reason")
        self.assertEqual(lines[0]["TWINROOT_REASON"], "STOP_REQUESTED")
        self.assertEqual(lines[0]["_SYSTEMD_UNIT"], _SERVICE)
        self.assertTrue(lines[0]["MESSAGE"].startswith("vm fields: stopped"))

    def test_TheWatchdogIsArmedAndADaemonThatStandsStillIsStartedAnew(self):
        self.start()
        self.assertEqual(self.machine.property("WatchdogUSec"), "1min")
        self.machine.write(f"/run/systemd/system/{_SERVICE}.d/short.conf",
                           "[Service]\nWatchdogSec=2s\n")
        self.addCleanup(self.machine.do, "systemctl", "daemon-reload")
        self.addCleanup(self.machine.do, "rm", "-r", f"/run/systemd/system/{_SERVICE}.d")
        self.machine.do("systemctl", "daemon-reload")
        self.machine.do("systemctl", "restart", _SERVICE)
        self.assertEqual(self.machine.property("WatchdogUSec"), "2s")
        pid = self.machine.main_pid()
        first = self.machine.property("WatchdogTimestampMonotonic")
        harness.until(lambda: self.machine.property("WatchdogTimestampMonotonic") != first, "a ping")
        time.sleep(4)
        self.assertEqual(self.machine.main_pid(), pid, "it lives as long as it pings")
        self.machine.do("kill", "-STOP", pid)
        harness.until(lambda: self.machine.main_pid() not in ("0", pid) and
                      self.machine.property("ActiveState") == "active", "a new daemon")
        self.assertTrue([line for line in self.machine.journal("-u", _SERVICE)
                         if "Watchdog timeout" in line["MESSAGE"]])
        self.assertEqual(self.machine.hvctl("host", "show").code, 0)

    def test_StopDrainsAndTheSocketStays(self):
        self.start()
        self.create("drained")
        pid = self.machine.main_pid()
        self.machine.do("systemctl", "stop", _SERVICE)
        self.assertEqual(self.machine.property("Result"), "success")
        self.assertEqual(self.machine.property("ExecMainStatus"), "0")
        said = [line["MESSAGE"] for line in self.machine.journal("-u", _SERVICE, f"_PID={pid}")]
        self.assertEqual(said[-1], "drained", said)
        self.assertEqual(self.machine.property("ActiveState", "hvd.socket"), "active")
        # The next call starts it anew, and the journal of events knows how it ended.
        events = self.machine.hvctl("events", "--kind", "daemon-started")
        self.assertIn("the end before: CLEAN", events.out.splitlines()[-1], str(events))

    def test_AKilledDaemonComesBack(self):
        self.start()
        pid = self.machine.main_pid()
        self.machine.do("kill", "-KILL", pid)
        harness.until(lambda: self.machine.main_pid() not in ("0", pid) and
                      self.machine.property("ActiveState") == "active", "a new daemon")
        self.assertEqual(self.machine.property("NRestarts"), "1")
        self.assertEqual(self.machine.hvctl("host", "show").code, 0)

    def test_EnablingASocketAndRestartingIsEnough(self):
        self.start()
        self.machine.do("systemctl", "enable", "hvd-viewer.socket")
        self.addCleanup(self.machine.do, "systemctl", "disable", "hvd-viewer.socket")
        self.machine.do("systemctl", "restart", _SERVICE)
        answer = self.machine.hvctl("vm", "list", socket="viewer")
        self.assertEqual(answer.code, 0, str(answer))
        self.assertIn("viewer.sock (viewer)", self.machine.property("StatusText"))


if __name__ == "__main__":
    junit.main()
