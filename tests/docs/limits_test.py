"""docs/limits.md says the numbers that the sources say, and no bound that answers name is missing."""

import re
import unittest

from tests import junit, source_tree

_PAGE = "docs/limits.md"
_UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "s": 1, "min": 60, "h": 3600}
_CALLS = {"Minutes": 60, "Seconds": 1, "Hours": 3600}


def rows(text):
    """[(what, limit, [names of where it is set], what is told)] of every table of a page."""
    found = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| ") and len(cells) == 4 and cells[0] != "what":
            found.append((cells[0], cells[1], re.findall(r"`([^`]+)`", cells[2]), cells[3]))
    return found


def number(words):
    """4096 of "4,096", 65536 of "64 KiB", 600 of "10 min"."""
    digits, _, unit = words.partition(" ")
    return int(digits.replace(",", "")) * (_UNITS[unit] if unit else 1)


def value(expression):
    """Of a constant of C++: numbers, products, shifts, and Abseil's durations in seconds."""
    plain = re.sub(r"(?:u?int\d+_t|size_t)\{(\d+)\}", r"\1", expression.replace("'", ""))
    plain = re.sub(r"absl::(\w+)\((\d+)\)",
                   lambda call: str(int(call[2]) * _CALLS[call[1]]), plain)
    if not re.fullmatch(r"[\d *<]+", plain):
        raise ValueError(f"not a number: {expression}")
    return eval(plain)  # pylint: disable=eval-used  # digits, * and << only


def constant(text, name):
    """What `name` is set to in a source, or in a unit file. Raises ValueError if not once."""
    found = re.findall(rf"\b{name} ?= ?([^;,()\n]+(?:\(\d+\))?)[;,)\n]", text)
    if len(found) != 1:
        raise ValueError(f"{name} is set {len(found)} times")
    return value(found[0])


def setting(text, key):
    """The number of a key of deploy/hvd.yaml, such as limits.message_bytes."""
    indent = "  " if "." in key else ""
    [found] = re.findall(rf"(?m)^{indent}{key.split('.')[-1]}: (\d+)$", text)
    return int(found)


class Limits(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        cls.top = source_tree.root()
        cls.page = (cls.top / _PAGE).read_text()

    def test_EveryNumberIsWhatItsSourceSays(self):
        self.assertGreater(len(rows(self.page)), 40)
        for what, limit, places, _ in rows(self.page):
            with self.subTest(what):
                self.assertTrue([place for place in places if ":" in place])
                for place in places:
                    path, colon, name = place.partition(":")
                    if colon:
                        said = constant((self.top / path).read_text(), name)
                    else:
                        said = setting((self.top / "deploy/hvd.yaml").read_text(), place)
                    self.assertEqual(number(limit), said, place)

    def test_EveryWordThatAnswersCarryIsOne(self):
        known = (self.top / "cli/explanations.cc").read_text()
        for what, _, _, told in rows(self.page):
            for word in re.findall(r"^`([A-Z_]+)`$", told):
                self.assertIn(f'"{word}"', known, what)

    def test_EveryBoundThatAnswersNameIsHere(self):
        reasons = re.findall(r'StatusCode::RESOURCE_EXHAUSTED, "([A-Z_]+)"',
                             (self.top / "cli/explanations.cc").read_text())
        reasons += re.findall(r'"(TOO_MANY_[A-Z_]+|\w+_TOO_LARGE)"',
                              (self.top / "daemon/reasons.h").read_text())
        self.assertGreater(len(reasons), 8)
        told = {word for row in rows(self.page) for word in re.findall(r"[A-Z_]{4,}", row[3])}
        self.assertEqual(set(reasons) - told, set())

    def test_ItReadsNumbersAsTheyAreWritten(self):
        for words, expected in [("4,096", 4096), ("64 KiB", 65536), ("10 min", 600)]:
            self.assertEqual(number(words), expected)
        for source, expected in [
                ("inline constexpr uint64_t kX = uint64_t{64} << 30;", 64 << 30),
                ("uint32_t kX = 1'000'000;", 1000000), ("size_t kX = 512 * 1024;", 512 * 1024),
                ("absl::Duration kX = absl::Minutes(2);", 120), ("kX=17\n", 17),
                ("explicit C(size_t kX = size_t{1} << 20) : c(kX) {}", 1 << 20)]:
            with self.subTest(source):
                self.assertEqual(constant(source, "kX"), expected)
        for source in ["", "kX = 1; kX = 2;", "kX = other;"]:
            with self.subTest(source), self.assertRaises(ValueError):
                constant(source, "kX")


if __name__ == "__main__":
    junit.main()
