"""Every reason that an error may carry is listed once, said to users, and produced by a test."""

import re
import unittest

from tests import junit, source_tree

_REASON = re.compile(r'inline constexpr char (k\w+)\[\]\s*=\s*"([A-Z][A-Z0-9_]+)";')
# Where tests meet real errors; those of hvctl make errors up.
_PLACES = ("tests/daemon", "tests/e2e", "tests/guests")


def reasons():
    """(name of the constant, reason) of each."""
    [text] = [text for path, text in source_tree.files("reasons.h", under="daemon")]
    return _REASON.findall(text)


class Reasons(unittest.TestCase):

    def test_NoReasonIsListedTwice(self):
        listed = [reason for _, reason in reasons()]
        self.assertGreater(len(listed), 30)
        self.assertEqual(sorted(set(listed)), sorted(listed))

    def test_EveryReasonIsProducedByATest(self):
        tests = "\n".join(text for place in _PLACES
                          for _, text in source_tree.files("_test.cc", "_test.py", under=place))
        missing = [reason for name, reason in reasons()
                   if f'"{reason}"' not in tests and f"reason::{name}" not in tests]
        self.assertEqual(missing, [], f"no test expects {missing}")


if __name__ == "__main__":
    junit.main()
