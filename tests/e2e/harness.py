"""Runs the real hvd and hvctl, as a user would, for tests that look at them from outside.

A Daemon lives in a private folder with a socket, a log and a free metrics port of its own. Every
process is waited for with a bound and is ended when its test ends, whatever the outcome. KVM is
used where hvd says that it works; a test that needs it skips itself with hvd's own reason.
"""

import collections
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import time
import unittest
import urllib.request

# Seconds; only a broken program, or an emulated processor, needs them.
PATIENCE = int(os.environ.get("TWINROOT_PATIENCE", 60))
KIB, MIB = 1 << 10, 1 << 20
PAGE = 4 * KIB

HVD, HVCTL = (os.path.abspath(path) for path in ("daemon/hvd", "cli/hvctl"))
_SAMPLE = re.compile(r"^(?P<name>[a-z_0-9]+)(?:\{(?P<labels>.*)\})? (?P<value>\S+)$")
_LABEL = re.compile(r'(\w+)="([^"]*)"')


def image(guest):
    """The path of a sample guest."""
    return f"tests/guests/{guest}.elf"


def until(condition, what, patience=PATIENCE):
    """The first true answer of `condition`."""
    deadline = time.monotonic() + patience
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {patience} s: {what}")
        time.sleep(0.02)
    return answer


class Stream:
    """A command that goes on, its output in a file that can be read meanwhile."""

    def __init__(self, command, environment, folder):
        self._folder = folder
        self._out = tempfile.NamedTemporaryFile("w", dir=folder, delete=False)
        self._err = tempfile.NamedTemporaryFile("w", dir=folder, delete=False)
        self.process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL,
                                        stdout=self._out, stderr=self._err)

    def text(self):
        return pathlib.Path(self._out.name).read_text()

    def errors(self):
        return pathlib.Path(self._err.name).read_text()

    def events(self):
        """The JSON objects of the whole lines so far."""
        return [json.loads(line) for line in self.text().splitlines(keepends=True)
                if line.endswith("\n")]

    def wait(self, patience=PATIENCE):
        return self.process.wait(patience)

    def signal(self, number):
        self.process.send_signal(number)

    def close(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
        self._out.close()
        self._err.close()


class Answer:
    """What a finished hvctl said: code, out, err."""

    def __init__(self, done):
        self.command = " ".join(done.args[1:])
        self.code = done.returncode
        self.raw = done.stdout
        self.out = done.stdout.decode(errors="replace")
        self.err = done.stderr.decode(errors="replace")

    def json(self):
        return json.loads(self.out)

    def lines(self):
        return [json.loads(line) for line in self.out.splitlines()]

    def __str__(self):
        return f"hvctl {self.command}: exit code {self.code}\n{self.out}{self.err}"


class Daemon:
    """A running hvd. `wrapper` is a command that becomes it, such as unshare."""

    def __init__(self, folder, *options, wrapper=(), metrics="127.0.0.1:0", variables=(),
                 pass_fds=()):
        self.folder = pathlib.Path(folder)
        self.socket = self.folder / "hvd.sock"
        self._log = tempfile.NamedTemporaryFile("w", dir=folder, suffix=".log", delete=False)
        if "ASAN_OPTIONS" in os.environ:
            # The leak checker looks at its own process, which hvd otherwise forbids.
            options = ("--allow-core-dumps", *options)
        command = [*wrapper, HVD, "--socket", str(self.socket), "--state-dir",
                   str(self.folder / "state"), "--metrics-address", metrics, *options]
        self.process = subprocess.Popen(command, env={**os.environ, **dict(variables)},
                                        stdin=subprocess.DEVNULL, stdout=self._log,
                                        stderr=subprocess.STDOUT, pass_fds=pass_fds)
        self.pid = self.process.pid
        self.environment = {**os.environ, "HVCTL_ENDPOINT": f"unix:{self.socket}"}
        self._metrics_address = None
        self._streams = []

    def log(self):
        return pathlib.Path(self._log.name).read_text()

    def wait_until_ready(self):
        def ready():
            if self.process.poll() is not None:
                raise AssertionError(f"hvd ended with {self.process.returncode}:\n{self.log()}")
            return self.socket.exists() and self.hvctl("host", "show").code == 0
        until(ready, "hvd answers on its socket")
        return self

    def hvctl(self, *arguments, patience=PATIENCE):
        """Runs one command to its end, whatever its exit code."""
        return Answer(subprocess.run([HVCTL, *map(str, arguments)], env=self.environment,
                                     stdin=subprocess.DEVNULL, capture_output=True,
                                     timeout=patience))

    def do(self, *arguments):
        """Runs one command that must succeed."""
        answer = self.hvctl(*arguments)
        if answer.code != 0:
            raise AssertionError(f"{answer}\nhvd's log:\n{self.log()}")
        return answer

    def stream(self, *arguments):
        """Starts a command that goes on."""
        stream = Stream([HVCTL, *map(str, arguments)], self.environment, self.folder)
        self._streams.append(stream)
        return stream

    def follow(self, *options):
        """`events --follow` from the oldest event on, really connected."""
        before = self.calls("EventService/WatchEvents")
        stream = self.stream("events", "--follow", "-o", "json", *options)
        until(lambda: self.calls("EventService/WatchEvents") > before, "the stream is open")
        return stream

    def host(self):
        return self.do("host", "show", "-o", "json").json()

    def create(self, name, *options, memory="16MiB", vcpus=1):
        return self.do("vm", "create", name, "--memory", memory, "--vcpus", vcpus, *options)

    def run(self, name, *options, **sizes):
        """Creates and starts a VM."""
        self.create(name, *options, **sizes)
        self.do("vm", "start", name)

    def wait(self, name, timeout=f"{PATIENCE - 10}s"):
        """`vm wait`, whose exit code is the guest's."""
        return self.hvctl("vm", "wait", name, "--timeout", timeout)

    def vm(self, name):
        return self.do("vm", "get", name, "-o", "json").json()

    def console(self, name):
        return self.do("vm", "console", name).out

    def runs(self, name):
        """`memory get` as [(gpa, size, kind)]."""
        runs = self.do("memory", "get", name, "-o", "json").json()["runs"]
        return [(int(run["gpa"]), int(run["size"]), run["kind"]) for run in runs]

    def events(self, *options):
        """What the journal has, once nothing waits for its disk: a list itself waits for two seconds
        only, and a disk that much else is written to may need longer. Where guests convert all the
        time there may always be something."""
        waiting = "twinroot_journal_waiting_events"
        deadline = time.monotonic() + PATIENCE / 4
        while self.metrics(waiting)[(waiting,)] != 0 and time.monotonic() < deadline:
            time.sleep(0.02)
        return self.do("events", "-o", "json", *options).lines()

    def waiting(self, name):
        return self.do("conversion", "list", name, "-o", "json").json()["conversions"]

    def wait_for_request(self, name):
        """The conversion that a vCPU of this VM waits for, once there is one."""
        return until(lambda: self.waiting(name), f"a conversion of {name} waits")[0]

    def metrics(self, metric=None):
        """{(name, (label, value)...): value} of a scrape, of one metric or of all."""
        if self._metrics_address is None:
            self._metrics_address = self.host()["metricsAddress"]
        with urllib.request.urlopen(f"http://{self._metrics_address}/metrics",
                                    timeout=PATIENCE) as page:
            text = page.read().decode()
        samples = {}
        for line in text.splitlines():
            if (match := _SAMPLE.match(line)) and metric in (None, match["name"]):
                labels = tuple(sorted(_LABEL.findall(match["labels"] or "")))
                samples[(match["name"], *labels)] = float(match["value"])
        return samples

    def calls(self, method):
        """How many calls of "Service/Method" have begun."""
        name = "twinroot_grpc_started_total"
        return self.metrics(name).get((name, ("method", f"twinroot.v1.{method}")), 0)

    def threads(self):
        status = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"^Threads:\s+(\d+)$", status, re.MULTILINE)[1])

    def terminate(self, patience=PATIENCE):
        """SIGTERM; returns hvd's exit code."""
        self.process.terminate()
        return self.process.wait(patience)

    def close(self):
        """Ends everything that is left."""
        for stream in self._streams:
            stream.close()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._log.close()


class E2eTest(unittest.TestCase):
    """A test with daemons of its own; hvd's log is shown when the test fails."""

    maxDiff = None

    def folder(self):
        # Not TEST_TMPDIR: a socket's path has at most 107 bytes.
        folder = tempfile.mkdtemp(prefix="twinroot-e2e.", dir="/tmp")
        self.addCleanup(shutil.rmtree, folder)
        return pathlib.Path(folder)

    def launch(self, *options, folder=None, **how):
        """An hvd that may or may not come up; `how` as for Daemon."""
        hvd = Daemon(folder or self.folder(), *options, **how)
        self.addCleanup(hvd.close)
        return hvd

    def start(self, *options, **how):
        return self.launch(*options, **how).wait_until_ready()

    def start_with_kvm(self):
        hvd = self.start()
        host = hvd.host()
        if "KVM" not in host["backends"]:
            self.skipTest(f"kvm: {host['defaultBackendReason']}")
        return hvd

    def stop(self, hvd):
        """A graceful end is part of every test that gets so far."""
        self.assertEqual(hvd.terminate(), 0, hvd.log())
        self.assertIn("drained", hvd.log())

    def assertCode(self, expected, answer):
        self.assertEqual(answer.code, expected, str(answer))

    def assertExits(self, expected, hvd, name):
        """The VM ends with this exit code (125: for a reason)."""
        answer = hvd.wait(name)
        self.assertEqual(answer.code, expected, f"{answer}\nconsole: {hvd.console(name)}")


def conversions(events, vm=None):
    """The terminal conversions among events, of one VM or of all, as [(vm, conversion)]."""
    return [(event["vm"], event["conversion"]) for event in events
            if "conversion" in event and vm in (None, event["vm"])]


def seconds(duration):
    """A protobuf Duration of JSON, "0.000012s"."""
    return float(duration.removesuffix("s"))


def metrics_of(conversions):
    """What /metrics must say after these conversions: twinroot_conversions_total and
    twinroot_converted_bytes_total, in the form of Daemon.metrics()."""
    expected = collections.Counter()
    for vm, conversion in conversions:
        labels = {"vm": vm, "direction": conversion["direction"].lower(),
                  "cause": conversion["cause"].lower()}
        result = {**labels, "result": conversion["decision"].lower()}
        expected[("twinroot_conversions_total", *sorted(result.items()))] += 1
        if conversion["decision"] == "APPLIED":
            expected[("twinroot_converted_bytes_total", *sorted(labels.items()))] += int(
                conversion["size"])
    return dict(expected)


def conversion_metrics(hvd):
    return hvd.metrics("twinroot_conversions_total") | hvd.metrics("twinroot_converted_bytes_total")


def runs_of(conversions, memory):
    """The maximal runs [(gpa, size, kind)] of a VM with `memory` bytes below 3 GiB, all private at
    first, after these conversions."""
    pages = ["PRIVATE"] * (memory // PAGE)
    for _, conversion in conversions:
        if conversion["decision"] == "APPLIED":
            first, count = int(conversion["gpa"]) // PAGE, int(conversion["size"]) // PAGE
            pages[first:first + count] = [conversion["direction"].removeprefix("TO_")] * count
    runs = []
    for page, kind in enumerate(pages):
        if runs and runs[-1][2] == kind:
            runs[-1] = (runs[-1][0], runs[-1][1] + PAGE, kind)
        else:
            runs.append((page * PAGE, PAGE, kind))
    return runs
