#include "daemon/rpc/ept_words.h"

#include "absl/strings/str_cat.h"
#include "mmu/hw/mem_type.h"
#include "mmu/hw/soft_bits.h"

namespace twinroot::rpc {
namespace {

const char* SizeInWords(mmu::Level level) {
  switch (level) {
    case mmu::Level::k4K:
      return "4K";
    case mmu::Level::k2M:
      return "2M";
    case mmu::Level::k1G:
      return "1G";
    case mmu::Level::k512G:
      return "512G";
    case mmu::Level::k256T:
      return "256T";
  }
  return "?";
}

const char* MemTypeInWords(uint64_t encoding) {
  if (!mmu::IsMemType(encoding)) return "reserved type";
  switch (static_cast<mmu::MemType>(encoding)) {
    case mmu::MemType::kUncacheable:
      return "UC";
    case mmu::MemType::kWriteCombining:
      return "WC";
    case mmu::MemType::kWriteThrough:
      return "WT";
    case mmu::MemType::kWriteProtected:
      return "WP";
    case mmu::MemType::kWriteBack:
      return "WB";
  }
  return "reserved type";
}

}  // namespace

std::string AccessInWords(mmu::Access access) {
  return {access.read() ? 'r' : '-', access.write() ? 'w' : '-', access.fetch() ? 'x' : '-'};
}

std::string DeniedInWords(mmu::Access denied) {
  return absl::StrCat(denied.read() ? "r" : "", denied.write() ? "w" : "",
                      denied.fetch() ? "x" : "");
}

std::string EptEntryInWords(mmu::EptEntry entry, mmu::Level level) {
  if (entry == mmu::kFrozenEntry) return "frozen";
  if (!entry.present()) return "not present";
  const std::string access = AccessInWords(entry.access());
  if (!entry.IsLeaf(level)) return absl::StrCat(access, " table");
  return absl::StrCat(access, " ", SizeInWords(level), " page ", MemTypeInWords(entry.mem_type()));
}

}  // namespace twinroot::rpc
