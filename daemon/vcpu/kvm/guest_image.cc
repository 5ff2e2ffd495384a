#include "daemon/vcpu/kvm/guest_image.h"

#include <elf.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "daemon/memory/guest_ram.h"

namespace twinroot::kvm {
namespace {

absl::Status Bad(const std::string& what) { return absl::InvalidArgumentError("image: " + what); }

std::string Address(uint64_t value) { return absl::StrCat("0x", absl::Hex(value)); }

absl::Status CheckHeader(const Elf64_Ehdr& header) {
  if (header.e_ident[EI_CLASS] != ELFCLASS64) return Bad("a 32-bit ELF; build it for x86-64");
  if (header.e_ident[EI_DATA] != ELFDATA2LSB || header.e_machine != EM_X86_64) {
    return Bad("an ELF for another machine; build it for x86-64");
  }
  if (header.e_type != ET_EXEC) {
    return Bad("not a static executable (ET_EXEC); link it with -static -no-pie");
  }
  if (header.e_phnum == 0 || header.e_phentsize != sizeof(Elf64_Phdr)) {
    return Bad("an ELF without program headers; give the linked executable");
  }
  return absl::OkStatus();
}

absl::Status AddSegment(std::string_view bytes, const Elf64_Phdr& header, uint64_t entry,
                        GuestImage& image) {
  if (header.p_memsz == 0) return absl::OkStatus();
  if (header.p_filesz > header.p_memsz) return Bad("a segment has more bytes than memory");
  if (header.p_offset > bytes.size() || header.p_filesz > bytes.size() - header.p_offset) {
    return Bad("truncated: a segment's bytes lie behind the end of the file");
  }
  if (header.p_paddr + header.p_memsz < header.p_paddr) return Bad("a segment's address wraps");
  if (header.p_paddr < kImageBase) {
    return Bad(absl::StrCat("a segment at ", Address(header.p_paddr),
                            " reaches below 1 MiB, which belongs to the loader; link it at ",
                            Address(kImageBase), " or above"));
  }
  if (entry >= header.p_vaddr && entry - header.p_vaddr < header.p_memsz) {
    image.entry = header.p_paddr + (entry - header.p_vaddr);
  }
  image.segments.push_back(
      {header.p_paddr, bytes.substr(header.p_offset, header.p_filesz), header.p_memsz});
  return absl::OkStatus();
}

// Notes of an ELF: name size, description size, type, then both, each padded to 4 bytes.
constexpr uint32_t kNotePvhEntry = 18;  // XEN_ELFNOTE_PHYS32_ENTRY
constexpr std::string_view kNoteXen("Xen", 4);

std::optional<uint64_t> FindPvhEntry(std::string_view notes) {
  const auto padded = [](uint64_t size) { return (size + 3) & ~uint64_t{3}; };
  while (notes.size() >= sizeof(Elf64_Nhdr)) {
    Elf64_Nhdr note;
    std::memcpy(&note, notes.data(), sizeof note);
    notes.remove_prefix(sizeof note);
    const uint64_t size = padded(note.n_namesz) + padded(note.n_descsz);
    if (size > notes.size()) return std::nullopt;
    if (note.n_type == kNotePvhEntry && notes.substr(0, note.n_namesz) == kNoteXen &&
        (note.n_descsz == 4 || note.n_descsz == 8)) {
      uint64_t entry = 0;
      std::memcpy(&entry, notes.data() + padded(note.n_namesz), note.n_descsz);
      return entry;
    }
    notes.remove_prefix(size);
  }
  return std::nullopt;
}

template <typename T>
T Field(std::string_view bytes, size_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof value);
  return value;
}

// Linux's boot protocol (Documentation/arch/x86/boot.rst), version 2.12 or later.
bool IsBzImage(std::string_view bytes) {
  return bytes.size() > 0x268 && Field<uint16_t>(bytes, 0x1fe) == 0xaa55 &&
         bytes.substr(0x202, 4) == "HdrS";
}

absl::StatusOr<GuestImage> ParseBzImage(std::string_view bytes) {
  constexpr uint16_t kVersionWith64BitEntry = 0x020c;
  constexpr uint16_t kHas64BitEntry = 1;
  constexpr uint64_t k64BitEntry = 0x200;  // of the part that is loaded
  if (Field<uint16_t>(bytes, 0x206) < kVersionWith64BitEntry ||
      !(Field<uint16_t>(bytes, 0x236) & kHas64BitEntry)) {
    return Bad("a Linux kernel without a 64-bit entry; take one for x86-64, 3.8 or newer");
  }
  const uint8_t sectors = Field<uint8_t>(bytes, kSetupHeader);
  const uint64_t setup_bytes = (uint64_t{sectors == 0 ? uint8_t{4} : sectors} + 1) * 512;
  if (setup_bytes + k64BitEntry >= bytes.size()) return Bad("truncated: a kernel without its code");
  GuestImage image;
  image.protocol = GuestImage::Protocol::kLinux64;
  const uint64_t header_end = 0x202 + uint64_t{Field<uint8_t>(bytes, 0x201)};
  image.setup_header = bytes.substr(kSetupHeader, header_end - kSetupHeader);
  const std::string_view code = bytes.substr(setup_bytes);
  const uint64_t load = Field<uint64_t>(bytes, 0x258);    // where it prefers to run
  const uint64_t needed = Field<uint32_t>(bytes, 0x260);  // from there on, unpacked
  if (load < kImageBase || load >= memory::kLowRamLimit) {
    return Bad("a Linux kernel that wants to lie at " + Address(load));
  }
  image.segments.push_back({load, code, std::max<uint64_t>(needed, code.size())});
  image.entry = load + k64BitEntry;
  image.initrd_end = uint64_t{Field<uint32_t>(bytes, 0x22c)} + 1;
  image.max_cmdline = Field<uint32_t>(bytes, 0x238);
  return image;
}

absl::StatusOr<GuestImage> ParseElf(std::string_view bytes) {
  Elf64_Ehdr header;
  if (bytes.size() < EI_NIDENT) return Bad("truncated in the ELF header");
  if (bytes[EI_CLASS] == ELFCLASS32) return Bad("a 32-bit ELF; build it for x86-64");
  if (bytes.size() < sizeof header) return Bad("truncated in the ELF header");
  std::memcpy(&header, bytes.data(), sizeof header);
  if (absl::Status status = CheckHeader(header); !status.ok()) return status;
  const uint64_t table_bytes = uint64_t{header.e_phnum} * sizeof(Elf64_Phdr);
  if (header.e_phoff > bytes.size() || table_bytes > bytes.size() - header.e_phoff) {
    return Bad("truncated in the program headers");
  }
  GuestImage image;
  std::optional<uint64_t> pvh_entry;
  for (uint32_t i = 0; i < header.e_phnum; ++i) {
    Elf64_Phdr segment;
    std::memcpy(&segment, bytes.data() + header.e_phoff + i * sizeof segment, sizeof segment);
    if (segment.p_type == PT_INTERP || segment.p_type == PT_DYNAMIC) {
      return Bad("a dynamic executable; link it with -static -no-pie");
    }
    if (segment.p_type == PT_NOTE && segment.p_offset <= bytes.size()) {
      if (const auto entry = FindPvhEntry(bytes.substr(segment.p_offset, segment.p_filesz))) {
        pvh_entry = entry;
      }
    }
    if (segment.p_type != PT_LOAD) continue;
    if (absl::Status status = AddSegment(bytes, segment, header.e_entry, image); !status.ok()) {
      return status;
    }
  }
  if (image.segments.empty()) return Bad("no segment to load");
  if (pvh_entry.has_value()) {
    const auto holds = [&](const GuestImage::Segment& segment) {
      return *pvh_entry >= segment.gpa && *pvh_entry - segment.gpa < segment.data.size();
    };
    if (std::none_of(image.segments.begin(), image.segments.end(), holds)) {
      return Bad("the PVH entry point " + Address(*pvh_entry) + " lies in no segment");
    }
    image.protocol = GuestImage::Protocol::kPvh;
    image.entry = *pvh_entry;
  }
  if (image.entry == 0) {
    return Bad("the entry point " + Address(header.e_entry) + " lies in no segment");
  }
  return image;
}

}  // namespace

absl::StatusOr<GuestImage> ParseGuestImage(std::string_view bytes) {
  if (bytes.empty()) return Bad("the file is empty");
  GuestImage image;
  if (bytes.substr(0, SELFMAG) == std::string_view(ELFMAG, SELFMAG)) {
    absl::StatusOr<GuestImage> elf = ParseElf(bytes);
    if (!elf.ok()) return elf.status();
    image = *std::move(elf);
  } else if (IsBzImage(bytes)) {
    absl::StatusOr<GuestImage> kernel = ParseBzImage(bytes);
    if (!kernel.ok()) return kernel.status();
    image = *std::move(kernel);
  } else {
    image.segments.push_back({kImageBase, bytes, bytes.size()});
    image.entry = kImageBase;
  }
  std::sort(image.segments.begin(), image.segments.end(),
            [](const auto& a, const auto& b) { return a.gpa < b.gpa; });
  for (const GuestImage::Segment& segment : image.segments) {
    if (segment.gpa < image.end) {
      return Bad("segments overlap at " + Address(segment.gpa));
    }
    image.end = segment.gpa + segment.memory_bytes;
  }
  return image;
}

absl::Status CheckImageFits(const GuestImage& image, uint64_t memory_bytes, uint32_t vcpus) {
  const uint64_t low = std::min(memory_bytes, memory::kLowRamLimit);
  if (image.end > low) {
    return Bad(absl::StrCat("it reaches up to ", Address(image.end), ", but low memory ends at ",
                            Address(low), "; give the VM more memory"));
  }
  const uint64_t stacks = kStackBytes * vcpus;
  if (stacks > low || image.end > low - stacks) {
    return Bad(absl::StrCat("it reaches up to ", Address(image.end), " into the stacks (", vcpus,
                            " x 64 KiB below ", Address(low), "); give the VM more memory"));
  }
  return absl::OkStatus();
}

}  // namespace twinroot::kvm
