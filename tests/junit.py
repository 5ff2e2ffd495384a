"""Runs a module's unittest cases and writes their results where Bazel collects them.

Without this a Python test would count as one case, whatever it contains, and a skip as a pass.
"""

import os
import sys
import unittest
import xml.etree.ElementTree as ElementTree


class _Result(unittest.TextTestResult):
    """Keeps (test, kind, message) of every case; kind is None for a pass."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.cases = {}

    def startTest(self, test):
        super().startTest(test)
        self.cases[test.id()] = (test, None, "")

    def _record(self, test, kind, message):
        self.cases[test.id()] = (test, kind, message)

    def addFailure(self, test, error):
        super().addFailure(test, error)
        self._record(test, "failure", self._exc_info_to_string(error, test))

    def addError(self, test, error):
        super().addError(test, error)
        self._record(test, "error", self._exc_info_to_string(error, test))

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self._record(test, "skipped", reason)

    def addSubTest(self, test, subtest, error):
        super().addSubTest(test, subtest, error)
        if error is not None:
            self._record(test, "failure", self._exc_info_to_string(error, subtest))


def main():
    """unittest.main() for a Bazel test, of all cases or of those whose names (Class, Class.test) are
    arguments; exits 1 on a failure or when there is no case."""
    module, names = sys.modules["__main__"], sys.argv[1:]
    load = unittest.defaultTestLoader
    suite = load.loadTestsFromNames(names, module) if names else load.loadTestsFromModule(module)
    result = unittest.TextTestRunner(resultclass=_Result, verbosity=2).run(suite)
    root = ElementTree.Element("testsuites")
    for test, kind, message in result.cases.values():
        suite_name, _, name = test.id().removeprefix("__main__.").rpartition(".")
        case = ElementTree.SubElement(root, "testcase", classname=suite_name, name=name)
        if kind:
            ElementTree.SubElement(case, kind, message=message)
    if "XML_OUTPUT_FILE" in os.environ:
        ElementTree.ElementTree(root).write(os.environ["XML_OUTPUT_FILE"], encoding="utf-8")
    sys.exit(not result.wasSuccessful() or not result.cases)
