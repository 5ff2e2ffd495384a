#include "daemon/vcpu/kvm/acpi_tables.h"

#include <concepts>
#include <cstring>
#include <string_view>
#include <utility>

namespace twinroot::kvm {
namespace {

constexpr uint64_t kLocalApic = 0xfee00000;
constexpr uint64_t kIoApic = 0xfec00000;
constexpr uint8_t kSciInterrupt = 9;

// Offsets are those of the ACPI specification 6.5, sections 5.2.5 to 5.2.12.
class Table {
 public:
  explicit Table(size_t size) : bytes_(size, '\0') {}
  // With the header that all but the root pointer and the FACS have.
  Table(std::string_view signature, uint8_t revision, size_t size) : Table(size) {
    Put(0, signature);
    Put(8, revision);
    Put(10, std::string_view("TWINRT"));
    Put(16, std::string_view("TWINROOT"));
    Put(24, uint32_t{1});
    Put(28, std::string_view("TWRT"));
    Put(32, uint32_t{1});
  }

  template <std::integral T>
  void Put(size_t offset, T value) {
    std::memcpy(bytes_.data() + offset, &value, sizeof value);
  }
  void Put(size_t offset, std::string_view text) {
    std::memcpy(bytes_.data() + offset, text.data(), text.size());
  }
  void Append(std::string_view bytes) { bytes_ += bytes; }

  // The bytes of [0, length) and the one at `at` sum up to 0.
  void Checksum(size_t at, size_t length) {
    uint8_t sum = 0;
    for (size_t i = 0; i < length; ++i) sum += static_cast<uint8_t>(bytes_[i]);
    bytes_[at] = static_cast<char>(-sum);
  }
  std::string Finish() && {
    Put(4, static_cast<uint32_t>(bytes_.size()));
    Checksum(9, bytes_.size());
    return std::move(bytes_);
  }
  std::string TakeAsIs() && { return std::move(bytes_); }

 private:
  std::string bytes_;
};

std::string Facs() {
  Table facs(64);
  facs.Put(0, std::string_view("FACS"));
  facs.Put(4, uint32_t{64});
  facs.Put(32, uint8_t{2});  // version
  return std::move(facs).TakeAsIs();
}

// One object: \_S5, the sleep type that powers off.
std::string Dsdt() {
  Table dsdt("DSDT", 2, 36);
  // NameOp "_S5_", PackageOp, length 6, 4 elements: BytePrefix 5 twice, ZeroOp twice.
  dsdt.Append(std::string_view("\x08_S5_\x12\x08\x04\x0a\x05\x0a\x05\x00\x00", 14));
  return std::move(dsdt).Finish();
}

std::string Fadt(uint64_t facs, uint64_t dsdt) {
  constexpr uint16_t kLegacyDevices = 1 << 0, kNoVga = 1 << 2, kNoCmosClock = 1 << 5;
  constexpr uint32_t kWbinvd = 1 << 0, kC1 = 1 << 2, kNoPowerButton = 1 << 4,
                     kNoSleepButton = 1 << 5, kNoFixedClock = 1 << 6, kResetRegister = 1 << 10;
  Table fadt("FACP", 6, 276);
  fadt.Put(36, static_cast<uint32_t>(facs));
  fadt.Put(40, static_cast<uint32_t>(dsdt));
  fadt.Put(46, uint16_t{kSciInterrupt});
  fadt.Put(56, uint32_t{kPortPm1Event});
  fadt.Put(64, uint32_t{kPortPm1Control});
  fadt.Put(88, uint8_t{4});
  fadt.Put(89, uint8_t{2});
  fadt.Put(96, uint16_t{0xffff});  // no C2, no C3
  fadt.Put(98, uint16_t{0xffff});
  fadt.Put(109, static_cast<uint16_t>(kLegacyDevices | kNoVga | kNoCmosClock));
  fadt.Put(112, kWbinvd | kC1 | kNoPowerButton | kNoSleepButton | kNoFixedClock | kResetRegister);
  const auto port = [&fadt](size_t offset, uint8_t bits, uint8_t access, uint64_t address) {
    fadt.Put(offset, uint8_t{1});  // a port
    fadt.Put(offset + 1, bits);
    fadt.Put(offset + 3, access);
    fadt.Put(offset + 4, address);
  };
  port(116, 8, 1, kPortReset);
  fadt.Put(128, kResetValue);
  fadt.Put(140, dsdt);
  port(148, 32, 2, kPortPm1Event);
  port(172, 16, 2, kPortPm1Control);
  return std::move(fadt).Finish();
}

std::string Madt(uint32_t vcpus) {
  Table madt("APIC", 4, 44);
  madt.Put(36, static_cast<uint32_t>(kLocalApic));
  madt.Put(40, uint32_t{1});  // there are 8259s too
  for (uint32_t vcpu = 0; vcpu < vcpus; ++vcpu) {
    const char id = static_cast<char>(vcpu);
    const char entry[] = {0, 8, id, id, 1, 0, 0, 0};  // enabled
    madt.Append(std::string_view(entry, sizeof entry));
  }
  Table io_apic(12);
  io_apic.Put(0, uint8_t{1});
  io_apic.Put(1, uint8_t{12});
  io_apic.Put(4, static_cast<uint32_t>(kIoApic));
  madt.Append(std::move(io_apic).TakeAsIs());
  // ISA interrupts go to the pins of their numbers; the SCI alone is a level, active high.
  const char sci[] = {2, 10, 0, kSciInterrupt, kSciInterrupt, 0, 0, 0, 0x0d, 0};
  madt.Append(std::string_view(sci, sizeof sci));
  const char nmi[] = {4, 6, '\xff', 0, 0, 1};  // LINT1 of every processor
  madt.Append(std::string_view(nmi, sizeof nmi));
  return std::move(madt).Finish();
}

}  // namespace

std::string MakeAcpiTables(uint64_t gpa, uint32_t vcpus) {
  std::string blob(64, '\0');  // the root pointer comes last
  const auto add = [&blob, gpa](const std::string& table) {
    const uint64_t at = gpa + blob.size();
    blob += table;
    blob.resize((blob.size() + 63) / 64 * 64);  // the FACS wants it
    return at;
  };
  const uint64_t facs = add(Facs());
  const uint64_t dsdt = add(Dsdt());
  const uint64_t fadt = add(Fadt(facs, dsdt));
  const uint64_t madt = add(Madt(vcpus));
  Table list("XSDT", 1, 36 + 2 * 8);
  list.Put(36, fadt);
  list.Put(44, madt);
  const uint64_t xsdt = add(std::move(list).Finish());

  Table root(36);
  root.Put(0, std::string_view("RSD PTR "));
  root.Put(9, std::string_view("TWINRT"));
  root.Put(15, uint8_t{2});
  root.Put(20, uint32_t{36});
  root.Put(24, xsdt);
  root.Checksum(8, 20);
  root.Checksum(32, 36);
  blob.replace(0, 36, std::move(root).TakeAsIs());
  return blob;
}

}  // namespace twinroot::kvm
