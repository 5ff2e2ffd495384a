"""Each mutation still changes what it says: its old text occurs exactly once in its file."""

import unittest

from tests import junit, source_tree
from tests.mutations import mutations


class Mutations(unittest.TestCase):

    def test_EachFindsItsPlaceOnce(self):
        tree = source_tree.root()
        entries = mutations.load(tree / "tests/mutations/mutations.toml")

        def text_of(path):
            return (tree / path).read_text() if (tree / path).is_file() else None

        found = list(mutations.mistakes(entries, text_of))
        self.assertEqual(found, [], "\n".join(found))
        self.assertGreater(len(entries), 50)

    def test_WhatIsWrongIsNamed(self):
        good = {"name": "a", "file": "f", "old": "x", "new": "y", "why": "z", "test": "//tests/t:t"}
        texts = {"f": "one x"}
        self.assertEqual(list(mutations.mistakes([good], texts.get)), [])
        for bad in ({"old": "gone"}, {"old": "e"}, {"file": "g"}, {"new": "x"}, {"test": "t"},
                    {"surprise": "s"}):
            with self.subTest(bad):
                text = dict(texts, f="one x, e")
                self.assertEqual(len(list(mutations.mistakes([{**good, **bad}], text.get))), 1)
        self.assertEqual(len(list(mutations.mistakes([good, good], texts.get))), 2)


if __name__ == "__main__":
    junit.main()
