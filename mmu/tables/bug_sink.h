// Who hears of a broken invariant. Declared here, implemented by the VM: it then refuses work.
#ifndef TWINROOT_MMU_TABLES_BUG_SINK_H_
#define TWINROOT_MMU_TABLES_BUG_SINK_H_

#include <string>

namespace twinroot::mmu {

// Thread-safe; callable under every lock.
class BugSink {
 public:
  virtual ~BugSink() = default;
  virtual void ReportBug(const std::string& what) = 0;
};

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_TABLES_BUG_SINK_H_
