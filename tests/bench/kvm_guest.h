// A VM of the daemon on kvm, and when its guest printed something.
#ifndef TWINROOT_TESTS_BENCH_KVM_GUEST_H_
#define TWINROOT_TESTS_BENCH_KVM_GUEST_H_

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "daemon/host/vm_registry.h"

namespace twinroot::bench {

class KvmGuest {
 public:
  struct Options {
    uint64_t memory_bytes = uint64_t{64} << 20;
    uint32_t vcpus = 1;
  };
  // A guest that leaves `times` times in a row for the port of the console, and prints each time.
  static std::unique_ptr<KvmGuest> ThatExits(uint32_t times);
  // `program`: text of an AccessProgram.
  explicit KvmGuest(const std::string& program) : KvmGuest(program, Options()) {}
  KvmGuest(const std::string& program, const Options& options);
  ~KvmGuest();

  host::Vm& vm() { return *vm_; }
  // Ends the program if the guest does not end well.
  void Run();
  // The guest runs on.
  void RunUntilSecondPrint();
  // Nanoseconds from the first thing that the guest printed to the last.
  double BetweenPrints() const;

  // Why no guest runs here; empty: they do.
  static std::string WhyNot();

 private:
  explicit KvmGuest(host::VmSpec spec);

  std::shared_ptr<host::Vm> vm_;
  std::unique_ptr<host::Vm::Waiter> on_console_;
  mutable std::mutex mutex_;
  std::condition_variable printed_;
  std::vector<double> prints_;  // guarded by mutex_
};

}  // namespace twinroot::bench

#endif  // TWINROOT_TESTS_BENCH_KVM_GUEST_H_
