// What a request must obey before anything is asked of a VM: names, ranges, page sizes, tokens.
// What a range must obey inside its VM's memory is the engine's to say. Pure; thread-safe.
#ifndef TWINROOT_DAEMON_RPC_CHECKS_H_
#define TWINROOT_DAEMON_RPC_CHECKS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "google/protobuf/duration.pb.h"
#include "google/protobuf/repeated_ptr_field.h"
#include "mmu/types/gfn_range.h"
#include "twinroot/v1/common.pb.h"

namespace twinroot::rpc {

inline constexpr int kMaxRanges = 16384;
// Bytes of guest memory that one call reads or writes.
inline constexpr uint64_t kMaxTransfer = uint64_t{1} << 20;

// "demo", where `field` takes a bare name.
absl::Status CheckBareName(const std::string& field, const std::string& name);
// "demo" out of "vms/demo".
absl::StatusOr<std::string> BareNameOf(const std::string& field, const std::string& resource_name);
std::string ResourceNameOf(const std::string& bare_name);

// The frames of one range: 4 KiB aligned, not empty, not wrapping.
absl::StatusOr<mmu::GfnRange> CheckRange(const std::string& field, const v1::MemoryRange& range);
// 1 to kMaxRanges of them, in the order given, no two overlapping.
absl::StatusOr<std::vector<mmu::GfnRange>> CheckRanges(
    const google::protobuf::RepeatedPtrField<v1::MemoryRange>& ranges);

absl::StatusOr<absl::Duration> CheckDuration(const std::string& field,
                                             const google::protobuf::Duration& duration,
                                             absl::Duration least, absl::Duration most);

// An etag names a version of a VM; opaque to the caller. "" is nullopt.
std::string EtagOf(uint64_t version);
absl::StatusOr<std::optional<uint64_t>> ParseEtag(const std::string& field,
                                                  const std::string& etag);

// 0 becomes `by_default`; more than `most` is refused.
absl::StatusOr<size_t> CheckPageSize(uint32_t page_size, uint32_t by_default, uint32_t most);

// A page token names the last VM of the page before; opaque to the caller.
std::string PageTokenAfter(const std::string& bare_name);
absl::StatusOr<std::string> ParsePageToken(const std::string& token);

}  // namespace twinroot::rpc

#endif  // TWINROOT_DAEMON_RPC_CHECKS_H_
