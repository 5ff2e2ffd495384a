// The ACPI tables of a VM that runs an operating system: its processors, its interrupt controller,
// and how it powers off and resets. Pure; thread-safe.
#ifndef TWINROOT_DAEMON_VCPU_KVM_ACPI_TABLES_H_
#define TWINROOT_DAEMON_VCPU_KVM_ACPI_TABLES_H_

#include <cstdint>
#include <string>

namespace twinroot::kvm {

// The ports that the tables tell of.
inline constexpr uint16_t kPortPm1Event = 0x600;    // status and enable, 2 bytes each
inline constexpr uint16_t kPortPm1Control = 0x604;  // 2 bytes
inline constexpr uint16_t kPortReset = 0xCF9;
inline constexpr uint8_t kResetValue = 0x06;
inline constexpr uint8_t kSleepTypeOff = 5;  // of the state S5

// What lies at `gpa` (a multiple of 16), beginning with the root pointer.
std::string MakeAcpiTables(uint64_t gpa, uint32_t vcpus);

}  // namespace twinroot::kvm

#endif  // TWINROOT_DAEMON_VCPU_KVM_ACPI_TABLES_H_
