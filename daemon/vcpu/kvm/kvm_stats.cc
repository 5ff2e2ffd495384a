#include "daemon/vcpu/kvm/kvm_stats.h"

#include <cstddef>
#include <cstring>
#include <string>
#include <utility>

#include "daemon/vcpu/kvm/kvm_abi.h"

namespace twinroot::kvm {
namespace {

template <typename T>
bool ReadAt(const KvmFd& fd, uint64_t offset, T& value) {
  return fd.api().Read(fd.get(), &value, sizeof value, offset) == sizeof value;
}

}  // namespace

KvmStat KvmStat::Open(const KvmFd& of, std::string_view name) {
  KvmFd fd = of.Make(KVM_GET_STATS_FD);
  kvm_stats_header header;
  if (!fd.valid() || !ReadAt(fd, 0, header)) return {};
  const uint64_t step = kStatsDescBytes + header.name_size;
  for (uint64_t i = 0; i < header.num_desc; ++i) {
    StatsDesc desc;
    std::string found(header.name_size, '\0');
    const uint64_t at = header.desc_offset + i * step;
    if (!ReadAt(fd, at, desc) ||
        fd.api().Read(fd.get(), found.data(), found.size(), at + kStatsDescBytes) !=
            static_cast<int64_t>(found.size())) {
      return {};
    }
    if (std::string_view(found.c_str()) != name) continue;
    KvmStat stat;
    stat.fd_ = std::move(fd);
    stat.offset_ = header.data_offset + desc.offset;
    return stat;
  }
  return {};
}

uint64_t KvmStat::Read() const {
  uint64_t value = 0;
  return kept() && ReadAt(fd_, offset_, value) ? value : 0;
}

}  // namespace twinroot::kvm
