// Lists of ranges, and the small words that callers hand back (page tokens, etags, cursors): what
// is taken is what a naive model takes, and a word has one spelling.
#include <google/protobuf/repeated_ptr_field.h>

#include <cstdint>
#include <cstring>
#include <string>

#include "absl/status/status.h"
#include "daemon/events/cursor.h"
#include "daemon/rpc/checks.h"
#include "tests/fuzz/require.h"

namespace twinroot {
namespace {

using fuzz::Require;

__extension__ using Wide = unsigned __int128;

constexpr uint64_t kPage = 4096;

bool GoodAlone(const v1::MemoryRange& range) {
  return range.size() != 0 && range.gpa() % kPage == 0 && range.size() % kPage == 0 &&
         Wide{range.gpa()} + range.size() <= Wide{1} << 64;
}

bool Overlap(const v1::MemoryRange& a, const v1::MemoryRange& b) {
  return Wide{a.gpa()} < Wide{b.gpa()} + b.size() && Wide{b.gpa()} < Wide{a.gpa()} + a.size();
}

// The sentence that names the first bad range, or nothing.
std::string WhatIsWrong(const google::protobuf::RepeatedPtrField<v1::MemoryRange>& ranges) {
  if (ranges.empty()) return "ranges: ";
  for (int i = 0; i < ranges.size(); ++i) {
    if (!GoodAlone(ranges[i])) return "ranges[" + std::to_string(i) + "]";
  }
  for (int i = 0; i < ranges.size(); ++i) {
    for (int j = 0; j < i; ++j) {
      if (Overlap(ranges[i], ranges[j])) return "overlaps ranges[";
    }
  }
  return "";
}

void Ranges(const uint8_t* data, size_t size) {
  google::protobuf::RepeatedPtrField<v1::MemoryRange> ranges;
  // Four bytes a range: few pages, so that neighbours and overlaps are common; a flag takes it to
  // the end of the address space, another one off its alignment.
  for (; size >= 4; data += 4, size -= 4) {
    v1::MemoryRange* range = ranges.Add();
    const uint64_t base = data[0] & 1 ? uint64_t{0} - 64 * kPage : 0;
    range->set_gpa(base + (data[1] % 64) * kPage + ((data[0] & 6) == 6 ? data[3] : 0));
    range->set_size((data[2] % 16) * kPage + ((data[0] & 24) == 24 ? data[3] : 0));
    if ((data[0] & 224) == 224) range->set_size(uint64_t{0} - range->size());
  }
  const auto checked = rpc::CheckRanges(ranges);
  const std::string wrong = WhatIsWrong(ranges);
  if (!wrong.empty()) {
    const std::string message(checked.status().message());
    Require(absl::IsInvalidArgument(checked.status()), "a bad list is refused");
    Require(message.find(wrong) != std::string::npos, "'" + message + "' says: " + wrong);
    return;
  }
  Require(checked.ok(), "a good list is taken");
  Require(checked->size() == static_cast<size_t>(ranges.size()), "none is lost");
  for (int i = 0; i < ranges.size(); ++i) {
    const mmu::GfnRange range = (*checked)[static_cast<size_t>(i)];
    Require(range.first.value == ranges[i].gpa() / kPage && range.count == ranges[i].size() / kPage,
            "ranges are as they were given, in the order given");
  }
}

void Words(const std::string& text) {
  if (const auto cursor = events::ParseCursor(text)) {
    Require(events::CursorText(cursor->epoch, cursor->position) == text, "one spelling: " + text);
  }
  if (const auto etag = rpc::ParseEtag("etag", text); etag.ok()) {
    Require(etag->has_value() ? rpc::EtagOf(**etag) == text : text.empty(),
            "one spelling: " + text);
  }
  if (const auto token = rpc::ParsePageToken(text); token.ok() && !text.empty()) {
    Require(rpc::PageTokenAfter(*token) == text, "one spelling: " + text);
  }
  // And what is given out is taken back.
  const auto name = rpc::BareNameOf("name", "vms/" + text);
  Require(name.ok() == rpc::CheckBareName("vm", text).ok(), "a name is one everywhere: " + text);
  if (name.ok()) {
    Require(*name == text && rpc::ResourceNameOf(text) == "vms/" + text, "the name is " + text);
    const auto token = rpc::ParsePageToken(rpc::PageTokenAfter(text));
    Require(token.ok() && *token == text, "the token of " + text);
  } else {
    for (const char c : name.status().message()) {
      Require(static_cast<unsigned char>(c) >= ' ' && c != 127, "messages are printable");
    }
  }
  uint64_t position = 0;
  std::memcpy(&position, text.data(), std::min(text.size(), sizeof position));
  const auto back = events::ParseCursor(events::CursorText("0123456789abcdef", position));
  Require(back.has_value() && back->position == position, "a cursor that was given out is taken");
}

}  // namespace
}  // namespace twinroot

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  if (data[0] & 1) {
    twinroot::Ranges(data + 1, size - 1);
  } else {
    twinroot::Words(std::string(reinterpret_cast<const char*>(data + 1), size - 1));
  }
  return 0;
}
