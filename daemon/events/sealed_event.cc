#include "daemon/events/sealed_event.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <google/protobuf/util/time_util.h>
#include <google/protobuf/wire_format_lite.h>

#include <utility>

namespace twinroot::events {
namespace {

// Of cursor, time and sequence, so that they fit without another allocation.
constexpr size_t kPlaceBytes = 64;

}  // namespace

SealedEvent::SealedEvent(const v1::Event& event)
    : vm_(event.vm()),
      kind_(event.kind_case()),
      deletes_vm_(event.has_vm_state() && event.vm_state().deleted()) {
  bytes_.reserve(event.ByteSizeLong() + kPlaceBytes);
  event.AppendToString(&bytes_);
}

SealedEvent::SealedEvent(std::string vm, v1::Event::KindCase kind, std::string_view stored,
                         const std::string& cursor)
    : vm_(std::move(vm)), kind_(kind), stored_(stored.size()) {
  bytes_.reserve(stored.size() + kPlaceBytes);
  bytes_ = stored;
  AddCursor(cursor);
}

void SealedEvent::Place(int64_t time, uint64_t vm_sequence, const std::string& cursor) {
  time_ = time;
  vm_sequence_ = vm_sequence;
  v1::Event place;
  place.set_vm_sequence(vm_sequence);
  *place.mutable_time() = google::protobuf::util::TimeUtil::NanosecondsToTimestamp(time);
  place.AppendToString(&bytes_);
  stored_ = bytes_.size();
  AddCursor(cursor);
}

void SealedEvent::AddCursor(const std::string& cursor) {
  using google::protobuf::internal::WireFormatLite;
  google::protobuf::io::StringOutputStream stream(&bytes_);
  google::protobuf::io::CodedOutputStream coded(&stream);
  WireFormatLite::WriteString(v1::Event::kCursorFieldNumber, cursor, &coded);
}

v1::Event SealedEvent::Parse() const {
  v1::Event event;
  event.ParseFromString(bytes_);
  return event;
}

}  // namespace twinroot::events
