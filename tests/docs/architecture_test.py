"""Every file, folder and name that docs/architecture.md and its picture speak of exists."""

import re
import unittest
import xml.etree.ElementTree

from tests import junit, source_tree

_PAGE, _PICTURE = "docs/architecture.md", "docs/architecture.svg"
_CODE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\]\(([^)#]+)\)")
_PATH = re.compile(r"[a-z_0-9.]+(/[a-zA-Z_0-9.]+)*/?")
_NAME = re.compile(r"(?:([A-Z]\w+)::)?([A-Z][a-z]\w*)")
# Words in code's clothes that are neither: a rule, a reason, a field.
_OTHER = re.compile(r"[A-Z]+(_[A-Z]+)+|request_id|types <- .*")


_LABEL = re.compile(r"//([a-z/]+):([a-z_]+)")


def is_path(word):
    return "/" in word and _PATH.fullmatch(word)


class Source:
    """The C++ sources and the proto files, as one text and by what they declare."""

    def __init__(self):
        self.text = "\n".join(
            text for folder in ("mmu", "daemon", "cli", "proto")
            for _, text in source_tree.files(".h", ".cc", ".proto", under=folder))

    def declares(self, word):
        """Whether a name, or a member of a class, is defined or declared; uses do not count."""
        scope, name = _NAME.fullmatch(word).groups()
        if scope is None:
            return re.search(rf"(?:class|struct|message|enum class) {name}\b"
                             rf"|^\s*[\w:<>*&,\[\] ]+[ *&]{name}\(", self.text, re.M) is not None
        if re.search(rf"\b{scope}::{name}\(", self.text):
            return True
        body = re.search(rf"^class {scope}\b[^;{{]*\{{(.*?)^\}};", self.text, re.M | re.S)
        return body is not None and re.search(rf"\b{name}\(", body[1]) is not None


class Architecture(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        cls.root = source_tree.root()
        cls.source = Source()

    def words(self):
        """What stands in code's clothes on the page, and what the picture names."""
        page = (self.root / _PAGE).read_text()
        found = [word for word in _CODE.findall(page) if not _OTHER.fullmatch(word)]
        for element in xml.etree.ElementTree.parse(self.root / _PICTURE).iter():
            text = (element.text or "").strip()
            if element.get("class") in ("what", "name"):
                found += re.findall(r"[a-z]+/[a-z]+|[A-Z]\w+(?:::[A-Z]\w+)?", text)
        return [word for word in found if not _OTHER.fullmatch(word)]

    def test_WhatItNamesExists(self):
        words = self.words()
        paths = [word for word in words if is_path(word)]
        self.assertGreater(len(paths), 50)
        names = [word for word in words if _NAME.fullmatch(word)]
        self.assertGreater(len(names), 60)
        labels = [word for word in words if _LABEL.fullmatch(word)]
        paths += ["{}/{}.py".format(*_LABEL.fullmatch(label).groups()) for label in labels]
        self.assertEqual(sorted(set(words) - set(paths) - set(names) - set(labels)), [])
        missing = [path for path in paths if not (self.root / path).exists()]
        missing += [name for name in names if not self.source.declares(name)]
        self.assertEqual(sorted(set(missing)), [])

    def test_AFileThatIsNamedWithANameHasIt(self):
        page = (self.root / _PAGE).read_text().replace("\n", " ")
        pairs = re.findall(r"`([A-Z]\w+(?:::\w+)?)`\s+in\s+`([a-z/_0-9]+\.(?:h|cc))`", page)
        self.assertGreater(len(pairs), 10)
        for name, path in pairs:
            self.assertIn(name.rsplit("::", 1)[-1], (self.root / path).read_text(), path)

    def test_ItsLinksLeadSomewhere(self):
        links = _LINK.findall((self.root / _PAGE).read_text())
        self.assertGreater(len(links), 3)
        self.assertEqual([link for link in links if not (self.root / "docs" / link).exists()], [])

    def test_WhatDoesNotExistIsFound(self):
        for name in ("NoSuchClass", "ConversionDesk::NoSuchCall", "NoSuch::Api"):
            self.assertFalse(self.source.declares(name), name)


if __name__ == "__main__":
    junit.main()
