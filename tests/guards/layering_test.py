"""The layer rule, over #include: types <- hw <- tables <- engine, shadow <- vm <- daemon.

Bazel's visibility states the same rule; this one also sees what a glob or a friend lets through.
"""

import re
import unittest

from tests import junit, source_tree

# Rooms of mmu/ -> the rooms of mmu/ that they may include. Downwards only; vmx reads tables as a
# processor does and shares nothing but the format.
_ROOMS = {
    "types": {"types"},
    "hw": {"types", "hw"},
    "tables": {"types", "hw", "tables"},
    "engine": {"types", "hw", "tables", "engine"},
    "shadow": {"types", "hw", "tables", "shadow"},
    "vm": {"types", "hw", "tables", "engine", "shadow", "vm"},
    "vmx": {"types", "hw", "vmx"},
}
# Top folders -> the top folders that they may include; twinroot/ is the generated proto code.
_FOLDERS = {
    "mmu": {"mmu"},
    "daemon": {"mmu", "daemon", "twinroot"},
    "cli": {"cli", "twinroot"},
}
# Foreign headers of the engine: the standard library, Abseil, liburcu. No gRPC, no proto, no
# logging, no system calls. Headers of the standard library have no dot and no folder.
_ENGINE_FOREIGN = re.compile(r"[a-z_]+|absl/.+|urcu(/.+|.*\.h)|stdint\.h")
_INCLUDE = re.compile(r'^\s*#\s*include\s*(["<])([^">]+)[">]', re.M)


def mistakes(path, text):
    """What is wrong with the includes of one source file, one sentence each."""
    parts = path.split("/")
    top, room = parts[0], parts[1]
    for kind, header in _INCLUDE.findall(text):
        target = header.split("/")
        ours = target[0] in set(_FOLDERS) | {"twinroot", "tests"}
        if top == "mmu" and room not in _ROOMS:
            yield f"{path}: room mmu/{room} is not in the layer rule"
            return
        if ours and target[0] not in _FOLDERS[top]:
            yield f"{path}: {top}/ must not include {header}"
        elif top == "mmu" and ours and target[1] not in _ROOMS[room]:
            yield f"{path}: mmu/{room} must not include {header}"
        elif top == "daemon" and target[:2] == ["mmu", "engine"]:
            yield f"{path}: the daemon holds the facade, not {header}"
        elif top == "mmu" and not ours and not _ENGINE_FOREIGN.fullmatch(header):
            yield f"{path}: the engine must not include {header}"
        elif kind == '"' and not ours and "/" not in header:
            yield f"{path}: includes are from the workspace root, not {header}"


class Layering(unittest.TestCase):

    def test_IncludesRunDownwards(self):
        found = [mistake for folder in _FOLDERS
                 for path, text in source_tree.files(".h", ".cc", under=folder)
                 for mistake in mistakes(path, text)]
        self.assertEqual(found, [], "\n".join(found))

    def test_TheRuleRefusesWhatItShould(self):
        for path, header in [
            ("mmu/types/level.h", '"mmu/hw/ept_entry.h"'),
            ("mmu/tables/root.h", '"mmu/vm/page_source.h"'),
            ("mmu/vmx/tlb.cc", '"mmu/tables/root.h"'),
            ("mmu/vm/fault.cc", '"mmu/vmx/tlb.h"'),
            ("mmu/vm/fault.cc", "<sys/mman.h>"),
            ("mmu/vm/fault.cc", "<unistd.h>"),
            ("mmu/vm/fault.cc", "<grpcpp/grpcpp.h>"),
            ("mmu/vm/fault.cc", '"spdlog/spdlog.h"'),
            ("mmu/vm/fault.cc", '"twinroot/v1/vm.pb.h"'),
            ("mmu/vm/fault.cc", '"daemon/host/vm.h"'),
            ("mmu/cellar/fault.cc", "<vector>"),
            ("cli/main.cc", '"daemon/host/vm.h"'),
            ("daemon/host/vm.cc", '"mmu/engine/map.h"'),
            ("daemon/host/vm.cc", '"vm.h"'),
        ]:
            with self.subTest(f"{path} {header}"):
                self.assertEqual(len(list(mistakes(path, f"#include {header}\n"))), 1)

    def test_TheRuleAllowsWhatItShould(self):
        for path, header in [
            ("mmu/vm/fault.cc", '"mmu/engine/map.h"'),
            ("mmu/vm/fault.cc", "<vector>"),
            ("mmu/vm/fault.cc", '"absl/status/status.h"'),
            ("mmu/engine/map.cc", "<urcu/urcu-memb.h>"),
            ("mmu/vmx/tlb.cc", '"mmu/hw/ept_entry.h"'),
            ("daemon/host/vm.cc", '"mmu/vm/guest_address_space.h"'),
            ("daemon/rpc/vm_service.cc", '"twinroot/v1/vm.grpc.pb.h"'),
            ("daemon/memory/mapping.cc", "<sys/mman.h>"),
        ]:
            with self.subTest(f"{path} {header}"):
                self.assertEqual(list(mistakes(path, f"#include {header}\n")), [])


if __name__ == "__main__":
    junit.main()
