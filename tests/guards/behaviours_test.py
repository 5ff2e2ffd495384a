"""Every numbered behaviour that the engine promises has a test named after it, and it is built."""

import pathlib
import re
import unittest

from tests import junit, source_tree

# The numbers are those of the engine's requirements; a test of A4 is named "A4_...".
_PROMISED = """
    A1 A2 A3 A4 A5 A6 A7 A8 A9 A10 A11
    B1 B2 B3 B4 B5 B6 B7 B8 B9 B10
    C1 C2 C3 C4 C5 C6 C7 C8
    D1 D2 D3 D4 D5 D6 D7 D8 D9 D10 D11
    E1 E2 E3
    F1 F2 F3 F4 F5 F6 F7 F8 F9 F10 F11 F12 F13
""".split()
_TEST = re.compile(r"^\s*(?:TYPED_)?TEST(?:_F|_P)?\(\s*\w+,\s*([A-F]\d+)_[A-Z]\w+\s*\)", re.M)


def build_file(path, top):
    """The BUILD file of the package that a file belongs to, as (package folder, text)."""
    for folder in pathlib.Path(path).parents:
        if (top / folder / "BUILD.bazel").is_file():
            return folder, (top / folder / "BUILD.bazel").read_text()
    raise RuntimeError(f"{path} belongs to no package")


class Behaviours(unittest.TestCase):

    def test_EveryPromisedBehaviourHasATest(self):
        named = {number for _, text in source_tree.files("_test.cc", under="tests")
                 for number in _TEST.findall(text)}
        missing = [number for number in _PROMISED if number not in named]
        self.assertEqual(missing, [], f"no test is named {missing}")

    def test_EveryTestSourceIsBuilt(self):
        top = source_tree.root()
        forgotten = []
        for path, _ in source_tree.files("_test.cc", "_test.py", "_test.sh", under="tests"):
            folder, text = build_file(path, top)
            name = str(pathlib.Path(path).relative_to(folder))
            # By file name, by target name, or by a glob or list that makes targets from stems.
            if name not in text and pathlib.Path(name).stem not in text and "glob(" not in text:
                forgotten.append(f"{path} is not in {folder}/BUILD.bazel")
        self.assertEqual(forgotten, [], "\n".join(forgotten))

    def test_ANameCountsOnlyAsATest(self):
        self.assertEqual(_TEST.findall("TEST(Zap, A4_ZapReachesEveryAlias) {"), ["A4"])
        self.assertEqual(_TEST.findall("TEST_F(Zap,\n       A4_ZapReachesEveryAlias) {"), ["A4"])
        self.assertEqual(_TEST.findall("// TEST(Zap, A4_ZapReachesEveryAlias)"), [])
        self.assertEqual(_TEST.findall("TEST(Zap, DISABLED_A4_ZapReachesEveryAlias)"), [])


if __name__ == "__main__":
    junit.main()
