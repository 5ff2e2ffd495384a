// Private memory of kvm-native over a kernel that only notes what it is asked, and lacks memory.
#include "daemon/vcpu/kvm/native_memory.h"

#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <optional>
#include <vector>

#include "daemon/vcpu/kvm/kvm_abi.h"

namespace twinroot::kvm {
namespace {

using mmu::Gfn;
using mmu::GfnRange;
using mmu::Level;
using mmu::MemoryKind;

class ShortOfMemory : public KvmApi {
 public:
  int Open() override { return Descriptor(); }
  int Close(int fd) override { return close(fd); }
  int Ioctl(int, unsigned long request, void* argument) override {
    if (request == kCreateGuestMemfd) return Descriptor();
    if (request != kSetMemoryAttributes) return 0;
    const auto& change = *static_cast<const MemoryAttributes*>(argument);
    if (change.size > most_attributes) return Fail(ENOMEM);
    changed.push_back({Gfn(change.address >> 12), change.size >> 12});
    return 0;
  }
  void* Map(int, size_t) override { return nullptr; }
  void Unmap(void*, size_t) override {}
  int Fallocate(int, int, uint64_t offset, uint64_t length) override {
    if (length > most_bytes) return Fail(ENOSPC);
    allocated.push_back({Gfn(offset >> 12), length >> 12});
    return 0;
  }
  int64_t Read(int, void*, size_t, uint64_t) override { return Fail(EINVAL); }

  uint64_t most_attributes = ~uint64_t{0}, most_bytes = ~uint64_t{0};
  std::vector<GfnRange> changed, allocated;

 private:
  static int Descriptor() { return eventfd(0, EFD_CLOEXEC); }
  static int Fail(int error) {
    errno = error;
    return -1;
  }
};

class NativeMemoryTest : public testing::Test {
 protected:
  void SetUp() override {
    absl::StatusOr<Userfault> userfault = Userfault::Open();
    if (!userfault.ok()) GTEST_SKIP() << userfault.status().message();
    userfault_ = *std::move(userfault);
    ram_ = *memory::GuestRam::Create(uint64_t{8} << 20, &space_);
    trap_.emplace(MemoryKind::kPrivate, &*userfault_, [] {});
    ASSERT_TRUE(trap_->Open(*ram_).ok());
    memory_.emplace(&vm_, ram_.get(), &*trap_);
    ASSERT_TRUE(
        memory_->Add(trap_->windows().front(), ram_->slots()[0].private_pages, /*number=*/0).ok());
  }
  absl::StatusOr<mmu::PageSource::Page> Resolve(uint64_t gfn, Level wanted) {
    return memory_->Resolve(Gfn(gfn), MemoryKind::kPrivate, wanted);
  }

  ShortOfMemory kvm_;
  KvmFd vm_{&kvm_, kvm_.Open()};
  memory::HpaSpace space_;
  std::optional<Userfault> userfault_;
  std::unique_ptr<memory::GuestRam> ram_;
  std::optional<Projection> trap_;
  std::optional<NativeMemory> memory_;
};

TEST_F(NativeMemoryTest, ALargeLeafHasAllOfItsMemory) {
  const auto page = Resolve(515, Level::k2M);
  ASSERT_TRUE(page.ok()) << page.status();
  EXPECT_EQ(page->max_level, Level::k2M);
  EXPECT_EQ(kvm_.allocated, (std::vector<GfnRange>{{Gfn(512), 512}}));
}

TEST_F(NativeMemoryTest, WithoutMemoryForAllOfALeafThePageIsSmall) {
  kvm_.most_bytes = 4096;
  const auto page = Resolve(515, Level::k2M);
  ASSERT_TRUE(page.ok()) << page.status();
  EXPECT_EQ(page->max_level, Level::k4K);
  EXPECT_EQ(kvm_.allocated, (std::vector<GfnRange>{{Gfn(515), 1}}));
  kvm_.most_bytes = 0;
  EXPECT_EQ(Resolve(516, Level::k4K).status().code(), absl::StatusCode::kResourceExhausted);
}

TEST_F(NativeMemoryTest, WhatCannotBeTakenAwayAtOnceGoesInParts) {
  kvm_.most_attributes = uint64_t{2} << 20;
  ASSERT_TRUE(memory_->Remove({Gfn(5), 1200}).ok());
  EXPECT_EQ(kvm_.changed,
            (std::vector<GfnRange>{{Gfn(5), 507}, {Gfn(512), 512}, {Gfn(1024), 181}}));
  kvm_.most_attributes = 0;
  EXPECT_FALSE(memory_->Remove({Gfn(5), 1200}).ok());
}

}  // namespace
}  // namespace twinroot::kvm
