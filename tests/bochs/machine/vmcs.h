// The fields of a VMCS that this machine uses (SDM vol. 3D, "Field Encoding in VMCS").
#ifndef TWINROOT_TESTS_BOCHS_MACHINE_VMCS_H_
#define TWINROOT_TESTS_BOCHS_MACHINE_VMCS_H_

#include <stdint.h>

namespace twinroot::bochs {

enum class Field : uint64_t {
  kEptPointer = 0x201A,
  kGuestPhysicalAddress = 0x2400,
  kVmcsLinkPointer = 0x2800,
  kGuestEfer = 0x2806,
  kGuestPdpte0 = 0x280A,
  kHostEfer = 0x2C02,
  kPinControls = 0x4000,
  kProcessorControls = 0x4002,
  kExceptionBitmap = 0x4004,
  kPageFaultMask = 0x4006,
  kPageFaultMatch = 0x4008,
  kCr3TargetCount = 0x400A,
  kExitControls = 0x400C,
  kExitMsrStoreCount = 0x400E,
  kExitMsrLoadCount = 0x4010,
  kEntryControls = 0x4012,
  kEntryMsrLoadCount = 0x4014,
  kEntryInterruption = 0x4016,
  kSecondaryControls = 0x401E,
  kInstructionError = 0x4400,
  kExitReason = 0x4402,
  kExitInterruption = 0x4404,
  kExitErrorCode = 0x4406,
  kGuestEsLimit = 0x4800,
  kGuestGdtrLimit = 0x4810,
  kGuestIdtrLimit = 0x4812,
  kGuestEsRights = 0x4814,
  kGuestCsRights = 0x4816,
  kGuestLdtrRights = 0x4820,
  kGuestTrRights = 0x4822,
  kGuestInterruptibility = 0x4824,
  kGuestActivity = 0x4826,
  kGuestSysenterCs = 0x482A,
  kHostSysenterCs = 0x4C00,
  kCr0Mask = 0x6000,
  kCr4Mask = 0x6002,
  kExitQualification = 0x6400,
  kGuestLinearAddress = 0x640A,
  kGuestCr0 = 0x6800,
  kGuestCr3 = 0x6802,
  kGuestCr4 = 0x6804,
  kGuestEsBase = 0x6806,
  kGuestGdtrBase = 0x6816,
  kGuestIdtrBase = 0x6818,
  kGuestDr7 = 0x681A,
  kGuestRsp = 0x681C,
  kGuestRip = 0x681E,
  kGuestRflags = 0x6820,
  kGuestPendingDebug = 0x6822,
  kGuestSysenterEsp = 0x6824,
  kGuestSysenterEip = 0x6826,
  kGuestEsSelector = 0x0800,
  kGuestCsSelector = 0x0802,
  kGuestSsSelector = 0x0804,
  kGuestLdtrSelector = 0x080C,
  kGuestTrSelector = 0x080E,
  kHostEsSelector = 0x0C00,
  kHostCsSelector = 0x0C02,
  kHostTrSelector = 0x0C0C,
  kHostCr0 = 0x6C00,
  kHostCr3 = 0x6C02,
  kHostCr4 = 0x6C04,
  kHostFsBase = 0x6C06,
  kHostGsBase = 0x6C08,
  kHostTrBase = 0x6C0A,
  kHostGdtrBase = 0x6C0C,
  kHostIdtrBase = 0x6C0E,
  kHostSysenterEsp = 0x6C10,
  kHostSysenterEip = 0x6C12,
};
// Fields of one kind stand two apart: ES, CS, SS, DS, FS, GS, LDTR, TR.
constexpr Field Next(Field first, int index) {
  return static_cast<Field>(static_cast<uint64_t>(first) + 2 * static_cast<uint64_t>(index));
}

inline bool Write(Field field, uint64_t value) {
  bool failed;
  asm volatile("vmwrite %2, %1"
               : "=@ccbe"(failed)
               : "r"(static_cast<uint64_t>(field)), "r"(value)
               : "memory");
  return !failed;
}
inline uint64_t Read(Field field) {
  uint64_t value = 0;
  asm volatile("vmread %1, %0" : "=r"(value) : "r"(static_cast<uint64_t>(field)) : "cc");
  return value;
}

}  // namespace twinroot::bochs

#endif  // TWINROOT_TESTS_BOCHS_MACHINE_VMCS_H_
