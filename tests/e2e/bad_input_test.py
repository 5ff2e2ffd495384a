"""Bad input gets a documented exit code and a sentence that names the problem; nothing changes."""

import os

from tests import junit
from tests.e2e import harness, images
from tests.e2e.harness import MIB

_PROGRAM = "tests/scenarios/programs/one_conversion.textproto"
_USAGE, _NOT_FOUND, _CONFLICT, _DENIED = 2, 3, 5, 6

# Of a VM with 16 MiB. What is wrong: (the ranges, words of the answer).
_RANGES = {
    "unaligned address": ("0x400800:4KiB", "0x400800 is not a multiple of 4096"),
    "unaligned size": ("0x400000:100", "is not a multiple of 4096"),
    "overlapping": ("0x400000:8KiB,0x401000:4KiB", "ranges[1]: 0x401000:0x1000 overlaps"),
    "twice": ("0x400000:4KiB,0x800000:4KiB,0x400000:4KiB", "overlaps"),
    "wrapping": ("0xfffffffffffff000:8KiB", "wraps around the end of the address space"),
    "shared bit": ("0x800000400000:4KiB", "carries the shared bit"),
    "beyond memory": ("0x1000000:4KiB", "outside the VM's memory"),
    "partly beyond memory": ("0xfff000:8KiB", "outside the VM's memory"),
    "good and beyond memory": ("0x400000:4KiB,0x1000000:4KiB", "0x1000000"),
    "zero": ("0x400000:0", "0 is no size"),
    "huge": ("0:1TiB", "outside the VM's memory"),
    "all of the address space": ("0:0xfffffffffffff000", "beyond the last guest address"),
    "more than 64 bits": ("0x10000000000000000:4KiB", "does not fit 64 bits"),
    "negative": ("0x400000:-4096", "is negative"),
    "no size": ("0x400000", "write GPA:SIZE"),
    "no number": ("abc:4KiB", "'abc'"),
    "an empty one": ("0x400000:4KiB,", "''"),
}

# The name: words of the answer.
_NAMES = {
    "taken": "a VM named taken exists",
    "Upper": '"Upper" is no VM name',
    "1digit": '"1digit" is no VM name',
    "under_score": '"under_score" is no VM name',
    "a" * 64: "is no VM name",
    "vms/prefix": 'without "vms/"',
    "two words": '"two words" is no VM name',
    "": "the value is empty",
}

# Options of vm create, beside a name: (words of the answer).
_SIZES = {
    ("0", "1"): "0 is not a multiple of 2 MiB",
    ("3MiB", "1"): "3145728 is not a multiple of 2 MiB",
    ("4096", "1"): "4096 is 4096 bytes; write 4096MiB or 4096GiB",
    ("4KiB", "1"): "4096 is not a multiple of 2 MiB",
    ("66GiB", "1"): "to 64 GiB",
    ("much", "1"): "'much'",
    ("16MiB", "0"): "0 is not within 1 and 64",
    ("16MiB", "65"): "65 is not within 1 and 64",
    ("16MiB", "-1"): "-1",
    ("16MiB", "two"): "two",
}


class BadInput(harness.E2eTest):

    def setUp(self):
        self.hvd = self.start("--backend", "sim")
        self.hvd.create("taken", "--program", _PROGRAM)
        self.hvd.do("memory", "set", "taken", "--range", "0x600000:8KiB", "--shared")

    def everything(self):
        """All that a refused command could have changed."""
        events = [event for event in self.hvd.events() if "bookmark" not in event]
        vms = self.hvd.do("vm", "list", "-o", "json").json()["vms"]
        return vms, events, {vm["name"]: self.hvd.runs(vm["name"].removeprefix("vms/"))
                             for vm in vms}

    def assertRefused(self, code, words, *command):
        """Refused with this code and these words, on stderr alone."""
        answer = self.hvd.hvctl(*command)
        self.assertCode(code, answer)
        self.assertEqual(answer.out, "")
        self.assertTrue(answer.err.startswith("hvctl: "), answer)
        self.assertIn(words, answer.err)

    def assertAllRefused(self, code, commands):
        """Each command, told by what is wrong with it, is refused; nothing changed."""
        before = self.everything()
        for what, (command, words) in commands.items():
            with self.subTest(what):
                self.assertRefused(code, words, *command)
        self.assertEqual(self.everything(), before)

    def create(self, name, memory="16MiB", vcpus="1"):
        return ["vm", "create", name, "--memory", memory, "--vcpus", vcpus]

    def test_RangesThatCannotBe(self):
        for kind in ("--shared", "--private"):
            self.assertAllRefused(_USAGE, {
                f"{what}, {kind}": (["memory", "set", "taken", "--range", ranges, kind], words)
                for what, (ranges, words) in _RANGES.items()})

    def test_MoreRangesThanACallTakes(self):
        ranges = [word for i in range(16385) for word in ("--range", f"{i * 8192:#x}:4KiB")]
        self.assertAllRefused(_USAGE, {
            "16,385 ranges": (["memory", "set", "taken", *ranges, "--shared"], "at most 16384")})

    def test_KindsThatCannotBe(self):
        command = ["memory", "set", "taken", "--range", "0x400000:4KiB"]
        self.assertAllRefused(_USAGE, {
            "neither": (command, "--private,--shared"),
            "both": ([*command, "--private", "--shared"], "--private excludes --shared")})
        self.assertAllRefused(_DENIED, {
            "bytes of private memory to shared": ([*command, "--shared", "--preserve"],
                                                  "only the guest itself")})

    def test_AddressesThatCannotBe(self):
        self.assertAllRefused(_USAGE, {
            "read beyond memory": (["memory", "read", "taken", "0x1000000", "16"],
                                   "outside the VM's memory"),
            "read across the end": (["memory", "read", "taken", "0xfffff8", "16"],
                                    "outside the VM's memory"),
            "read with the shared bit": (["memory", "read", "taken", "0x800000600000", "16"],
                                         "shared bit"),
            "read that wraps": (["memory", "read", "taken", "0xfffffffffffffff8", "16"], "wraps"),
            "read nothing": (["memory", "read", "taken", "0x600000", "0"], "0 bytes"),
            "write with the shared bit": (
                ["memory", "write", "taken", "0x800000600000", "--data", "x"], "shared bit"),
            "translate with the shared bit": (["memory", "translate", "taken", "0x800000600000"],
                                              "shared bit")})

    def test_NamesThatCannotBe(self):
        before = self.everything()
        for name, words in _NAMES.items():
            with self.subTest(name):
                self.assertRefused(_CONFLICT if name == "taken" else _USAGE, words,
                                   *self.create(name), "--program", _PROGRAM)
        self.assertEqual(self.everything(), before)

    def test_SizesThatCannotBe(self):
        self.assertAllRefused(_USAGE, {
            sizes: ([*self.create("new", *sizes), "--program", _PROGRAM], words)
            for sizes, words in _SIZES.items()})

    def test_ProgramsThatCannotBe(self):
        wrong = self.hvd.folder / "wrong.textproto"
        wrong.write_text("vcpus {\n  steps { raed { gpa: 0 } }\n}\n")
        outside = self.hvd.folder / "interpreter.textproto"
        outside.write_text("vcpus { steps { read { gpa: 0x1000 } } }")
        unaligned = self.hvd.folder / "unaligned.textproto"
        unaligned.write_text("vcpus { steps { read { gpa: 0x400001 } } }")
        empty = self.hvd.folder / "empty.textproto"
        empty.write_text("")
        create = [*self.create("new"), "--program"]
        self.assertAllRefused(_USAGE, {
            "missing": ([*create, "/nowhere/at/all"], "/nowhere/at/all: No such file"),
            "a folder": ([*create, "/tmp"], "not a regular file"),
            "no text": ([*create, harness.image("hello")], "hello.elf:1:1"),
            "a misspelt step": ([*create, wrong], "raed"),
            "no step": ([*create, empty], "no vCPU has a step"),
            "memory of the interpreter": ([*create, outside], "0x1000"),
            "unaligned": ([*create, unaligned], "0x400001")})

    def test_AnImageWithoutAProgramOnSim(self):
        self.assertAllRefused(_CONFLICT, {
            "image on sim": ([*self.create("new"), "--image", harness.image("hello")],
                             "cannot run on sim")})

    def test_ImagesThatCannotBeSent(self):
        large = self.hvd.folder / "large"
        large.touch()
        os.truncate(large, 64 * MIB + 1)
        self.assertAllRefused(_USAGE, {
            "over 64 MiB": ([*self.create("new"), "--image", large], "at most 64MiB"),
            "missing": ([*self.create("new"), "--image", "/nowhere/at/all"],
                        "/nowhere/at/all: No such file"),
            "a folder": ([*self.create("new"), "--image", "/tmp"], "not a regular file")})

    def test_ImagesThatCannotBe(self):
        self.hvd = self.start_with_kvm()
        create = [*self.create("new"), "--backend", "kvm", "--image"]
        commands = {}
        for i, (what, (content, words)) in enumerate(images.bad().items()):
            path = self.hvd.folder / f"image-{i}"
            path.write_bytes(content)
            commands[what] = ([*create, path], words)
        self.assertAllRefused(_USAGE, commands)
        # The same maker makes one that runs: it is what is wrong that is refused.
        path = self.hvd.folder / "good"
        path.write_bytes(images.good())
        self.hvd.run("good", "--image", path, "--backend", "kvm")
        self.assertExits(0, self.hvd, "good")

    def test_VmsThatAreNotThere(self):
        commands = {verb: (["vm", verb, "nope"], "no VM named nope")
                    for verb in ("get", "start", "stop", "delete", "wait", "console")}
        commands["set"] = (["memory", "set", "nope", "--range", "0:4KiB", "--shared"],
                           "no VM named nope")
        for command in (["memory", "get", "nope"], ["memory", "read", "nope", "0", "1"],
                        ["memory", "translate", "nope", "0"], ["conversion", "list", "nope"],
                        ["conversion", "approve", "nope", "1"]):
            commands[" ".join(command)] = (command, "no VM named nope")
        self.assertAllRefused(_NOT_FOUND, commands)

    def test_StatesThatDoNotAllowIt(self):
        self.assertAllRefused(_CONFLICT, {"stop a defined VM": (["vm", "stop", "taken"],
                                                                "does not run")})
        self.hvd.do("memory", "set", "taken", "--range", "0x600000:8KiB", "--private")
        self.hvd.do("vm", "start", "taken")
        self.assertExits(0, self.hvd, "taken")
        self.assertAllRefused(_CONFLICT, {"start a stopped VM": (["vm", "start", "taken"],
                                                                 "create it again")})
        # Stopping twice is what was wanted.
        before = self.everything()
        self.hvd.do("vm", "stop", "taken")
        self.assertEqual(self.everything(), before)

        self.hvd.run("parked", "--program", _PROGRAM, "--policy", "orchestrator")
        self.hvd.wait_for_request("parked")
        self.assertAllRefused(_CONFLICT, {"start a running VM": (["vm", "start", "parked"],
                                                                 "runs already")})

    def test_DecisionsAndCursorsThatCannotBe(self):
        self.assertAllRefused(_USAGE, {
            "no id": (["conversion", "approve", "taken"], "or --all"),
            "no number": (["conversion", "deny", "taken", "x"], "x"),
            "cursor": (["events", "--since", "yesterday"], "cursor is malformed"),
            "filter": (["events", "--vm", "NOPE"], '"NOPE" is no VM name'),
            "no timeout": ([*self.create("new"), "--program", _PROGRAM, "--policy", "orchestrator",
                            "--decision-timeout", "0s"], "too short"),
            "long timeout": ([*self.create("new"), "--program", _PROGRAM, "--policy",
                              "orchestrator", "--decision-timeout", "25h"], "1ms and 24h"),
            "timeout without its policy": ([*self.create("new"), "--program", _PROGRAM,
                                            "--decision-timeout", "1s"], "--policy orchestrator")})

    def test_CommandsThatAreNone(self):
        for command in ([], ["vm"], ["vm", "create"], ["frobnicate"], ["vm", "list", "-o", "xml"]):
            with self.subTest(command):
                self.assertRefused(_USAGE, "hint: ", *command)


if __name__ == "__main__":
    junit.main()
