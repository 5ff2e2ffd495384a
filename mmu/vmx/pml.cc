#include "mmu/vmx/pml.h"

namespace twinroot::mmu::vmx {

void PageModificationLog::Write(Gpa gpa) {
  page_[index_] = gpa.value & ~kPageOffsetMask;
  --index_;
}

std::vector<Gpa> PageModificationLog::Take() {
  std::vector<Gpa> logged;
  const int lowest = full() ? 0 : index_ + 1;
  logged.reserve(static_cast<size_t>(kEntries - lowest));
  for (int entry = kEntries - 1; entry >= lowest; --entry) {
    logged.push_back(Gpa(page_[static_cast<size_t>(entry)]));
  }
  index_ = kEntries - 1;
  return logged;
}

}  // namespace twinroot::mmu::vmx
