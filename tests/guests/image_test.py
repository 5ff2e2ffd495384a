"""What every guest image promises its loader, read from the ELF files themselves."""

import os
import pathlib
import struct
import unittest

from tests import junit

_MIB = 1 << 20
_PROGRAM_BYTES = 512 << 10  # the largest access program, placed behind the interpreter
_ET_EXEC, _EM_X86_64, _PT_LOAD, _PF_X = 2, 62, 1, 1
_SHT_SYMTAB, _SHT_RELA, _SHT_DYNAMIC, _SHT_REL, _SHT_INIT_ARRAY = 2, 4, 6, 9, 14
_RUNFILES = pathlib.Path(os.environ["TEST_SRCDIR"], os.environ["TEST_WORKSPACE"])
_INTERPRETER = _RUNFILES / "daemon/vcpu/kvm/interpreter/interpreter.elf"


class _Image:
    """The parts of an ELF file that a loader reads, and those that must not be there."""

    def __init__(self, path):
        self.data = path.read_bytes()
        (ident, self.type, self.machine, _, self.entry, program_offset, section_offset, _, _,
         program_size, programs, section_size, sections, _) = struct.unpack_from(
             "<16sHHIQQQIHHHHHH", self.data)
        self.is_elf64 = ident[:6] == b"\x7fELF\x02\x01"
        # (type, flags, offset, vaddr, paddr, filesz, memsz, align)
        self.segments = [struct.unpack_from("<IIQQQQQQ", self.data, program_offset + i * program_size)
                         for i in range(programs)]
        # (name, type, flags, addr, offset, size, link, info, addralign, entsize)
        self.sections = [struct.unpack_from("<IIQQQQIIQQ", self.data, section_offset + i * section_size)
                         for i in range(sections)]

    def symbols(self):
        """(name, section index) of every named symbol."""
        for _, kind, _, _, offset, size, link, *_ in self.sections:
            if kind != _SHT_SYMTAB:
                continue
            names = self.sections[link][4]
            for at in range(offset, offset + size, 24):
                name, _, _, section, _, _ = struct.unpack_from("<IBBHQQ", self.data, at)
                start = names + name
                text = self.data[start:self.data.index(b"\0", start)].decode()
                if text:
                    yield text, section


def _images():
    images = sorted((_RUNFILES / "tests/guests").glob("*.elf")) + [_INTERPRETER]
    return {path.stem: _Image(path) for path in images}


class Images(unittest.TestCase):

    def setUp(self):
        self.images = _images()

    def test_EverySampleGuestIsHere(self):
        self.assertEqual(
            set(self.images),
            {"convert", "hello", "hostile", "interpreter", "orchestrated", "ports", "smp", "touch"})

    def test_AreStaticExecutablesEnteredAtOneMebibyte(self):
        for name, image in self.images.items():
            with self.subTest(name):
                self.assertTrue(image.is_elf64)
                self.assertEqual((image.type, image.machine), (_ET_EXEC, _EM_X86_64))
                self.assertEqual(image.entry, _MIB)
                # No interpreter, no dynamic section, no thread-local storage.
                self.assertEqual({segment[0] for segment in image.segments}, {_PT_LOAD})

    def test_SegmentsAreIdentityMappedPagesInTheSecondMebibyte(self):
        for name, image in self.images.items():
            with self.subTest(name):
                end = _MIB
                for _, flags, _, vaddr, paddr, filesz, memsz, _ in image.segments:
                    self.assertEqual(vaddr, paddr)
                    self.assertEqual(paddr % 4096, 0)
                    self.assertGreaterEqual(paddr, end, "segments overlap or are out of order")
                    self.assertLessEqual(filesz, memsz)
                    if paddr <= image.entry < paddr + memsz:
                        self.assertTrue(flags & _PF_X)
                    end = paddr + memsz
                self.assertLessEqual(end, 2 * _MIB - _PROGRAM_BYTES)

    def test_NeedNoLoaderAndNoRuntime(self):
        unwanted = {_SHT_RELA, _SHT_REL, _SHT_DYNAMIC, _SHT_INIT_ARRAY}
        for name, image in self.images.items():
            with self.subTest(name):
                self.assertFalse(unwanted & {section[1] for section in image.sections})
                symbols = list(image.symbols())
                self.assertIn("GuestMain", [symbol for symbol, _ in symbols])
                undefined = [symbol for symbol, section in symbols if section == 0]
                runtime = [symbol for symbol, _ in symbols
                           if symbol.startswith(("__asan", "__tsan", "__ubsan", "__stack_chk"))]
                self.assertEqual(undefined + runtime, [])

    def test_AreSmall(self):
        for name, image in self.images.items():
            with self.subTest(name):
                self.assertLess(len(image.data), 64 << 10)

    def test_TheEmbeddedInterpreterIsTheInterpreter(self):
        text = _INTERPRETER.with_suffix(".elf.inc").read_text()
        embedded = bytes(int(byte, 16) for byte in text.replace("\n", "").split(",") if byte)
        self.assertEqual(embedded, _INTERPRETER.read_bytes())


if __name__ == "__main__":
    junit.main()
