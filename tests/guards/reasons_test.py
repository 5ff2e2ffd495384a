"""Every reason that an error may carry is listed once, said to users, and produced by a test."""

import re
import unittest

from tests import junit, source_tree

_REASON = re.compile(r'inline constexpr char (k\w+)\[\]\s*=\s*"([A-Z][A-Z0-9_]+)";')
# In vm.proto, without the signs of the comment.
_STOP_REASONS = re.compile(r"Why a STOPPED VM has no exit code: ([^.]+)\.")
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

    def explained(self, subject):
        """The words that hvctl explains as this Subject."""
        [text] = [text for path, text in source_tree.files("explanations.cc", under="cli")]
        code = text.split("const std::vector<Explanation>& Explanations()")[0]
        words = []
        for function in re.split(r"\nvoid ", code)[1:]:
            if f"Subject::{subject}," in function:
                words += re.findall(r'add\((?:StatusCode::\w+,\s*)?"([A-Z][A-Z0-9_]+)"', function)
        self.assertGreater(len(words), 10)
        return sorted(words)

    def test_HvctlExplainsEveryReasonAndNoOther(self):
        self.assertEqual(self.explained("kReason"), sorted(reason for _, reason in reasons()))

    def test_HvctlExplainsEveryStopReasonAndNoOther(self):
        [text] = [text for _, text in source_tree.files("vm.proto", under="proto")]
        [listed] = _STOP_REASONS.findall(re.sub(r"\n\s*//", "", text))
        self.assertEqual(self.explained("kStopReason"), sorted(listed.replace(",", "").split()))


if __name__ == "__main__":
    junit.main()
