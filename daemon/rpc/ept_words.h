// An EPT entry in words, for people who read a walk: "rwx table", "rw- 4K page WB", "not present",
// "frozen". Pure; thread-safe.
#ifndef TWINROOT_DAEMON_RPC_EPT_WORDS_H_
#define TWINROOT_DAEMON_RPC_EPT_WORDS_H_

#include <string>

#include "mmu/hw/ept_entry.h"
#include "mmu/types/access.h"
#include "mmu/types/level.h"

namespace twinroot::rpc {

// "rwx", with a dash for each right that is missing.
std::string AccessInWords(mmu::Access access);
// "rx": only those that are denied.
std::string DeniedInWords(mmu::Access denied);
std::string EptEntryInWords(mmu::EptEntry entry, mmu::Level level);

}  // namespace twinroot::rpc

#endif  // TWINROOT_DAEMON_RPC_EPT_WORDS_H_
