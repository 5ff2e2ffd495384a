// What the label `vm` of a VM's series says: its name, or "_other" (no VM can be called so) if as
// many VMs as may have series of their own have them already. It stays so for the VM's life, or a
// counter would jump. The journal's events say when that begins and ends.
// Thread-safe.
#ifndef TWINROOT_DAEMON_OBS_VM_LABELS_H_
#define TWINROOT_DAEMON_OBS_VM_LABELS_H_

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>

namespace twinroot::obs {

inline constexpr char kOther[] = "_other";

class VmLabels {
 public:
  enum class Label : uint8_t { kOwn, kOther };

  explicit VmLabels(uint32_t max_own) : max_own_(max_own) {}

  // The VM is there from now on; again: nothing.
  Label Enter(const std::string& vm) {
    std::lock_guard lock(mutex_);
    const auto [it, first] = labels_.try_emplace(vm, Label::kOther);
    if (first && own_ < max_own_) {
      it->second = Label::kOwn;
      ++own_;
    }
    return it->second;
  }
  void Leave(const std::string& vm) {
    std::lock_guard lock(mutex_);
    const auto it = labels_.find(vm);
    if (it == labels_.end()) return;
    own_ -= it->second == Label::kOwn;
    labels_.erase(it);
  }

  // Nullopt: the VM has not entered, or has left.
  std::optional<Label> Find(const std::string& vm) const {
    std::lock_guard lock(mutex_);
    const auto it = labels_.find(vm);
    return it == labels_.end() ? std::nullopt : std::optional(it->second);
  }
  size_t folded() const {
    std::lock_guard lock(mutex_);
    return labels_.size() - own_;
  }

 private:
  const uint32_t max_own_;
  mutable std::mutex mutex_;
  std::unordered_map<std::string, Label> labels_;
  size_t own_ = 0;
};

}  // namespace twinroot::obs

#endif  // TWINROOT_DAEMON_OBS_VM_LABELS_H_
