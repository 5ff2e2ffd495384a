// An event as it is kept and told: serialized once, for the disk and for everybody who is told.
// Never changed once it has its place; then shared without a lock.
//
// Whatever is added later follows as bytes of its own: messages that are written one after the
// other are read as one (Protocol Buffers, "Encoding", "Last One Wins").
#ifndef TWINROOT_DAEMON_EVENTS_SEALED_EVENT_H_
#define TWINROOT_DAEMON_EVENTS_SEALED_EVENT_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "twinroot/v1/event.pb.h"

namespace twinroot::events {

class SealedEvent {
 public:
  // Without cursor, time and sequence, which Place gives.
  explicit SealedEvent(const v1::Event& event);
  // Of what stored() was.
  SealedEvent(std::string vm, v1::Event::KindCase kind, std::string_view stored,
              const std::string& cursor);

  // Once, before anybody else has it. `time` in nanoseconds since 1970.
  void Place(int64_t time, uint64_t vm_sequence, const std::string& cursor);

  const std::string& vm() const { return vm_; }
  v1::Event::KindCase kind() const { return kind_; }
  int64_t time() const { return time_; }  // 0 if it comes from the disk; so the next two
  uint64_t vm_sequence() const { return vm_sequence_; }
  bool deletes_vm() const { return deletes_vm_; }

  // A v1::Event on the wire.
  const std::string& bytes() const { return bytes_; }
  // The same without its cursor, which names the journal's epoch.
  std::string_view stored() const { return std::string_view(bytes_).substr(0, stored_); }
  v1::Event Parse() const;

 private:
  void AddCursor(const std::string& cursor);

  std::string vm_;
  v1::Event::KindCase kind_;
  int64_t time_ = 0;
  uint64_t vm_sequence_ = 0;
  bool deletes_vm_ = false;
  std::string bytes_;
  size_t stored_ = 0;
};

using SharedEvent = std::shared_ptr<const SealedEvent>;

}  // namespace twinroot::events

#endif  // TWINROOT_DAEMON_EVENTS_SEALED_EVENT_H_
