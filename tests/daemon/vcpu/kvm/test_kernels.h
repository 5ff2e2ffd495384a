// Kernels of a few instructions, in the two formats that a loader takes.
#ifndef TWINROOT_TESTS_DAEMON_VCPU_KVM_TEST_KERNELS_H_
#define TWINROOT_TESTS_DAEMON_VCPU_KVM_TEST_KERNELS_H_

#include <elf.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

namespace twinroot::kvm {

inline constexpr uint64_t kKernelBase = 0x1000000;  // where Linux is loaded, too

template <typename T>
void PutAt(std::string& bytes, size_t offset, T value) {
  std::memcpy(bytes.data() + offset, &value, sizeof value);
}

template <typename T>
std::string BytesOf(const T& value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof value);
}

// An ELF with one segment at kKernelBase and a PVH note; 32-bit code.
inline std::string PvhKernel(std::string_view code, uint64_t entry = kKernelBase) {
  Elf64_Ehdr header = {};
  std::memcpy(header.e_ident, ELFMAG, SELFMAG);
  header.e_ident[EI_CLASS] = ELFCLASS64;
  header.e_ident[EI_DATA] = ELFDATA2LSB;
  header.e_type = ET_EXEC;
  header.e_machine = EM_X86_64;
  header.e_phoff = sizeof header;
  header.e_phentsize = sizeof(Elf64_Phdr);
  header.e_phnum = 2;
  header.e_entry = kKernelBase;  // of another protocol: Linux says it by its physical address
  const auto linux_note = Elf64_Nhdr{6, 4, 1};
  const auto xen_note = Elf64_Nhdr{4, 8, 18};
  std::string notes = BytesOf(linux_note) + std::string("Linux\0\0\0", 8) + std::string(4, 'x');
  notes += BytesOf(xen_note) + std::string("Xen\0", 4) + BytesOf(entry);
  Elf64_Phdr load = {};
  load.p_type = PT_LOAD;
  load.p_offset = sizeof header + 2 * sizeof(Elf64_Phdr);
  load.p_vaddr = 0xffffffff81000000;
  load.p_paddr = kKernelBase;
  load.p_filesz = code.size();
  load.p_memsz = code.size() + 0x1000;
  Elf64_Phdr note = {};
  note.p_type = PT_NOTE;
  note.p_offset = load.p_offset + code.size();
  note.p_filesz = notes.size();
  return BytesOf(header) + BytesOf(load) + BytesOf(note) + std::string(code) + notes;
}

// A bzImage, version 2.15; 64-bit code.
inline std::string BzKernel(std::string_view code) {
  std::string bytes(2 * 512, '\0');  // one sector of setup after the first
  PutAt(bytes, 0x1f1, uint8_t{1});
  PutAt(bytes, 0x1fe, uint16_t{0xaa55});
  bytes.replace(0x200, 6, "\xeb\x6aHdrS", 6);  // the header ends at 0x26c
  PutAt(bytes, 0x206, uint16_t{0x020f});
  PutAt(bytes, 0x22c, uint32_t{0x7fffffff});  // the initrd's highest byte
  PutAt(bytes, 0x236, uint16_t{1});           // has a 64-bit entry
  PutAt(bytes, 0x238, uint32_t{100});         // bytes of a command line
  PutAt(bytes, 0x258, kKernelBase);
  PutAt(bytes, 0x260, uint32_t{0x200000});  // bytes that it needs there
  return bytes + std::string(0x200, '\x90') + std::string(code);
}

}  // namespace twinroot::kvm

#endif  // TWINROOT_TESTS_DAEMON_VCPU_KVM_TEST_KERNELS_H_
