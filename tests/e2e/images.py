"""Guest images that cannot be right, made here byte by byte."""

import struct

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_LOAD = 1
_CODE = b"\xb0\x00\xe6\xf4\xf4"  # mov al, 0; out 0xf4, al; hlt
_BASE = 0x100000


def elf(*segments, entry=_BASE, elf_class=2, machine=62, kind=2):
    """An ELF executable with segments (address, bytes in memory); each begins with a guest that
    exits at once. Defaults: 64-bit, x86-64, static."""
    offset = _HEADER.size + len(segments) * _SEGMENT.size
    ident = b"\x7fELF" + bytes([elf_class, 1, 1]) + bytes(9)
    headers = [_HEADER.pack(ident, kind, machine, 1, entry, _HEADER.size, 0, 0, _HEADER.size,
                            _SEGMENT.size, len(segments), 0, 0, 0)]
    headers += [_SEGMENT.pack(_LOAD, 7, offset, address, address, len(_CODE), size, 4096)
                for address, size in segments]
    return b"".join(headers) + _CODE


def good():
    return elf((_BASE, 4096))


def bad():
    """{what is wrong: (the image, words of the answer)}, for a VM of 16 MiB."""
    return {
        "empty": (b"", "is empty"),
        "truncated header": (good()[:40], "truncated in the ELF header"),
        "truncated program headers": (good()[:_HEADER.size + 8], "truncated in the program headers"),
        "truncated segment": (good()[:-1], "truncated: a segment's bytes"),
        "32-bit": (elf((_BASE, 4096), elf_class=1), "32-bit ELF"),
        "other machine": (elf((_BASE, 4096), machine=183), "another machine"),
        "shared object": (elf((_BASE, 4096), kind=3), "not a static executable"),
        "no segments": (elf(), "without program headers"),
        "overlapping segments": (elf((_BASE, 8192), (_BASE + 4096, 4096)), "segments overlap"),
        "below 1 MiB": (elf((_BASE - 4096, 8192)), "below 1 MiB"),
        "wrapping segment": (elf((_BASE, 4096), (2**64 - 4096, 8192)), "wraps"),
        "entry nowhere": (elf((_BASE, 4096), entry=0x900000), "lies in no segment"),
        "too large for the memory": (elf((_BASE, 32 << 20)), "give the VM more memory"),
        "into the stacks": (elf((_BASE, 15 << 20)), "into the stacks"),
        "flat, too large for the memory": (b"\xf4" * (16 << 20), "give the VM more memory"),
    }
