"""VMs that make something of everything that dashboards show, and what a host does with them."""

import json

from tests.e2e.harness import MIB, PAGE

_LONG = str(10**9)
_LARGE = f"{4 * MIB}:{2 * MIB}"  # a page of 2 MiB


def _loop(*steps, count=_LONG):
    return {"vcpus": [{"steps": [{"loop": {"count": count, "steps": list(steps)}}]}]}


def _map_gpa(gpa, pages, kind):
    return {"map_gpa": {"gpa": str(gpa), "pages": str(pages), "kind": f"MEMORY_KIND_{kind}"}}


def _access(what, gpa, kind, **more):
    return {what: {"gpa": str(gpa), "alias": f"MEMORY_KIND_{kind}", **more}}


_TOUCHES = _loop(_access("write", 4 * MIB, "SHARED"), _access("read", 4 * MIB, "PRIVATE"))
_CONVERTS = _loop(_map_gpa(6 * MIB, 16, "SHARED"), _map_gpa(6 * MIB, 16, "PRIVATE"))
_BOTH = _loop(*_TOUCHES["vcpus"][0]["steps"][0]["loop"]["steps"],
              *_CONVERTS["vcpus"][0]["steps"][0]["loop"]["steps"])
_ASKS = _loop(_map_gpa(8 * MIB, 1, "SHARED"))
_WRITES = _loop(_loop(_access("write", 4 * MIB, "PRIVATE", stride=str(PAGE)),
                      count="512")["vcpus"][0]["steps"][0])


class Guests:
    """Created and started; `step` is what their owner does now and then."""

    def __init__(self, hvd):
        self._hvd = hvd
        self._logs = False
        # The rate bounds what they take of this machine, too: a guest that is parked takes nothing.
        self._run("busy", _TOUCHES, "--max-conversion-rate", 200)
        self._run("calm", _TOUCHES, "--max-conversion-rate", 40)
        self._run("bounded", _BOTH, "--max-conversion-rate", 10, "--max-shared", "32KiB")
        self._run("agreed", _CONVERTS, "--policy", "orchestrator")
        self._run("asks", _ASKS, "--policy", "orchestrator")
        self._run("waits", _ASKS, "--policy", "orchestrator", "--decision-timeout", "1h")
        self._create("logged", _WRITES)
        hvd.do("memory", "prefault", "logged", "--range", _LARGE)
        hvd.do("dirty", "enable", "logged", "--ring-entries", 256)
        hvd.do("vm", "start", "logged")
        self._create("folds", _ASKS)
        hvd.do("memory", "prefault", "folds", "--range", _LARGE)

    def _create(self, name, program, *options):
        path = self._hvd.folder / f"{name}.json"
        path.write_text(json.dumps(program))
        self._hvd.create(name, "--backend", "sim", "--program", path, *options)

    def _run(self, name, program, *options):
        self._create(name, program, *options)
        self._hvd.do("vm", "start", name)

    def step(self):
        """Decides, harvests, converts, logs, and asks for what there is not."""
        do = self._hvd.do
        for waiting in self._hvd.waiting("asks"):
            self._hvd.hvctl("conversion", "deny", "asks", waiting["id"])
        for waiting in self._hvd.waiting("agreed"):
            self._hvd.hvctl("conversion", "approve", "agreed", waiting["id"])
        do("dirty", "harvest", "logged")
        kind = "--private" if self._logs else "--shared"
        do("memory", "set", "folds", "--range", f"{8 * MIB}:64KiB", kind)
        do("dirty", "disable" if self._logs else "enable", "folds")
        self._logs = not self._logs
        if self._hvd.hvctl("vm", "get", "nobody").code != 3:
            raise AssertionError("there is a VM that nobody made")
