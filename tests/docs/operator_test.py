"""The operator's guide names every alert, and quotes what hvd and hvctl really say."""

import re
import unittest

from tests import junit, source_tree

_PAGE = "docs/operator.md"
# In a quotation: what differs from time to time.
_PLACE = re.compile(r"\b[A-Z]{2,}\b")


def rows(text, heading, columns):
    """The cells of the table below a heading."""
    section = re.split(r"(?m)^## ", text.split(f"\n## {heading}\n")[1])[0]
    found = [[cell.strip() for cell in line.strip("| ").split(" | ")]
             for line in section.splitlines() if line.startswith("| ")]
    if not found or any(len(row) != columns for row in found):
        raise ValueError(f"no table of {columns} columns under {heading}")
    return found[1:]


def said(sources):
    """What the string literals of C++ sources say, those that stand together joined."""
    text = re.sub(r'"\s*\n\s*"', "", "\n".join(sources))
    # absl::StrCat(a, "b", c): what is between two literals is what differs.
    return "\n".join(re.findall(r'"((?:[^"\\\n]|\\.)*)"', text)).replace("{}", "\n")


class Guide(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        cls.page = (source_tree.root() / _PAGE).read_text()
        cls.said = said(text for top in ("daemon", "cli")
                        for _, text in source_tree.files(".cc", ".h", under=top))

    def test_EveryAlertIsThereWithItsSeverityAndItsRunbook(self):
        rules = (source_tree.root() / "deploy/prometheus/alert_rules.yml").read_text()
        alerts = re.findall(r"- alert: (\w+)(?:\n.*)*?\n +severity: (\w+)", rules)
        self.assertGreater(len(alerts), 10)
        listed = rows(self.page, "Observe", 3)
        self.assertEqual([(row[0], row[1]) for row in listed], alerts)
        for name, _, link in listed:
            self.assertTrue(link.endswith(f"](runbooks.md#{name.lower()})"), link)

    def test_WhatIsQuotedIsSaidByTheSources(self):
        quoted = 0
        for row in rows(self.page, "Troubleshoot", 3):
            if not (quote := re.match(r"`([^`]+)`", row[0])):
                continue
            quoted += 1
            for part in _PLACE.split(quote[1]):
                part = part.strip(" ;:()")
                with self.subTest(quote[1]):
                    self.assertIn(part, self.said)
        self.assertGreater(quoted, 20)

    def test_WordsThatAreMadeUpAreFound(self):
        self.assertNotIn("no such sentence anywhere", self.said)
        self.assertEqual(said(['f("one "\n  "two", x, "three");']), "one two\nthree")

    def test_LinksOfTheGuideLeadSomewhere(self):
        for page in ("docs/operator.md", "docs/limits.md"):
            text = (source_tree.root() / page).read_text()
            for path, anchor in re.findall(r"\]\(([\w./-]*)(?:#([\w-]+))?\)", text):
                target = (source_tree.root() / page).parent / path if path else (
                    source_tree.root() / page)
                with self.subTest(f"{page}: {path}#{anchor}"):
                    self.assertTrue(target.exists())
                    heads = {re.sub(r"[^\w -]", "", head).lower().replace(" ", "-")
                             for head in re.findall(r"(?m)^#+ (.+)$", target.read_text())}
                    self.assertTrue(not anchor or anchor in heads, heads)


if __name__ == "__main__":
    junit.main()
