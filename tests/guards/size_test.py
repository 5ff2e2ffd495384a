"""No source file is longer than 450 lines: a longer one is missing a noun."""

import unittest

from tests import junit, source_tree

_LIMIT = 450
_SOURCES = (".cc", ".h", ".S", ".py", ".sh", ".bzl", ".proto")


class Size(unittest.TestCase):

    def test_NoSourceFileIsTooLong(self):
        found = [f"{path}: {lines} lines" for path, text in source_tree.files(*_SOURCES)
                 if (lines := text.count("\n")) > _LIMIT]
        self.assertEqual(found, [], "\n".join(found))


if __name__ == "__main__":
    junit.main()
