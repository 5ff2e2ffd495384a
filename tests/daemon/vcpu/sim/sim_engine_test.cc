// A sim machine on the real engine and real backings, under a VM that converts at once (AUTO). A
// flush that the engine forgot shows here as content that should be gone.
#include <atomic>
#include <memory>
#include <thread>
#include <variant>

#include "daemon/memory/guest_ram.h"
#include "daemon/memory/hpa_space.h"
#include "daemon/memory/mapping.h"
#include "daemon/memory/physical_map.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu/vm/guest_address_space.h"
#include "tests/daemon/vcpu/sim/sim_test_base.h"

namespace twinroot::sim {
namespace {

using mmu::Gfn;
using mmu::GfnRange;
using mmu::MemoryKind;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using vcpu::MapGpaResult;
using vcpu::MapGpaVerdict;
using vcpu::StopReason;
using vcpu::VcpuIndex;
using vcpu::Verdict;

constexpr uint64_t kMemory = uint64_t{16} << 20;
constexpr size_t kTablePages = 64;
constexpr uint64_t kAttributePrivate = 1 << 4;
constexpr uint64_t kAttributePreserve = 1 << 5;

class SimEngineTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ram_ = *memory::GuestRam::Create(kMemory, &hpa_space_);
    table_hpas_ = *hpa_space_.Allocate(kTablePages * mmu::kPageSize);
    arena_ = *memory::Mapping::Anonymous(kTablePages * mmu::kPageSize);
    pool_ = std::make_unique<mmu::TablePool>(table_hpas_.base(), arena_.data(), kTablePages);
    physical_map_.Add(table_hpas_.base(), arena_.data(), arena_.size());
    for (memory::RamSlot& slot : ram_->slots()) {
      for (const MemoryKind kind : mmu::kAllKinds) {
        physical_map_.Add(slot.pages(kind).hpa(), slot.pages(kind).data(), slot.pages(kind).size());
      }
    }
    client_.on_violation = [this](VcpuIndex, const mmu::Fault& fault) { return Resolve(fault); };
    client_.on_map_gpa = [this](VcpuIndex, const vcpu::MapGpaCall& call) { return MapGpa(call); };
  }

  // Until the vCPUs run, `before` may use the engine.
  void Start(
      const std::string& program, uint32_t vcpus, const std::function<void()>& before = [] {}) {
    SimConfig config;
    config.vcpus = vcpus;
    config.program = CompileText(program, vcpus, kMemory);
    machine_ = MakeSimMachine(config, &physical_map_, &client_);
    mmu::GuestAddressSpace::Environment environment;
    environment.pool = pool_.get();
    environment.pages = ram_.get();
    environment.flusher = machine_->flusher();
    mmu::GuestAddressSpace::Config space = {.layout = *mmu::GpaLayout::Create(47, 48, 46),
                                            .capabilities = {}};
    space.mmio_caching = mmu::MmioCaching::kMisconfiguration;
    client_.on_misconfiguration = [this](mmu::Gpa gpa) { return Misconfigured(gpa); };
    engine_ = *mmu::GuestAddressSpace::Create(space, environment);
    for (const mmu::Memslot& slot : ram_->Memslots()) ASSERT_TRUE(engine_->AddMemslot(slot).ok());
    machine_->Attach(engine_.get());
    before();
    ASSERT_TRUE(machine_->Start().ok());
  }
  FakeClient::Notes End(uint32_t vcpus) {
    EXPECT_TRUE(client_.WaitForEnd(vcpus));
    machine_->RequestStop();
    machine_->Join();
    EXPECT_TRUE(engine_->Audit().ok()) << engine_->Audit();
    return client_.notes();
  }
  FakeClient::Notes Run(
      const std::string& program, uint32_t vcpus = 1, const std::function<void()>& before = [] {}) {
    Start(program, vcpus, before);
    return End(vcpus);
  }

  Verdict Resolve(const mmu::Fault& fault) {
    const mmu::FaultOutcome outcome = engine_->HandleFault(fault);
    if (const auto* exit = std::get_if<mmu::MemoryFaultExit>(&outcome)) {
      ++implicit_;
      const absl::Status status = Convert({Gfn(exit->gpa.value >> mmu::kPageShift), 1},
                                          exit->wanted, mmu::Content::kDestroy);
      if (status.ok()) return Verdict::kResume;
      client_.OnFatal(StopReason::kMemoryFault, "nothing to convert");
      return Verdict::kStop;
    }
    if (std::holds_alternative<mmu::Mmio>(outcome)) {
      client_.OnFatal(StopReason::kMmioOutsideMemory, "outside");
      return Verdict::kStop;
    }
    if (const auto* failed = std::get_if<mmu::Failed>(&outcome)) {
      client_.OnFatal(StopReason::kEngineBug, failed->status.ToString());
      return Verdict::kStop;
    }
    return Verdict::kResume;
  }
  std::optional<Verdict> Misconfigured(mmu::Gpa gpa) {
    const mmu::MmioOutcome outcome = engine_->HandleMisconfiguration(gpa);
    if (std::holds_alternative<mmu::Retry>(outcome)) return Verdict::kResume;
    if (!std::holds_alternative<mmu::CachedMmio>(outcome)) return std::nullopt;
    client_.OnFatal(StopReason::kMmioOutsideMemory, "outside, as is known");
    return Verdict::kStop;
  }
  bool IsMmio(uint64_t gpa, MemoryKind alias) {
    const mmu::Gpa raw = engine_->layout().GpaOf(Gfn(gpa >> mmu::kPageShift), alias);
    return std::holds_alternative<mmu::Mmio>(engine_->HandleFault({raw, mmu::Access::Read()}));
  }
  MapGpaVerdict MapGpa(const vcpu::MapGpaCall& call) {
    const absl::Status status = Convert(
        {Gfn(call.gpa >> mmu::kPageShift), call.pages},
        call.attributes & kAttributePrivate ? MemoryKind::kPrivate : MemoryKind::kShared,
        call.attributes & kAttributePreserve ? mmu::Content::kPreserve : mmu::Content::kDestroy);
    return {Verdict::kResume, status.ok() ? MapGpaResult::kOk : MapGpaResult::kInvalid};
  }
  absl::Status Convert(GfnRange range, MemoryKind kind, mmu::Content content) {
    return engine_
        ->SetMemoryAttributes({.ranges = {range},
                               .kind = kind,
                               .content = content,
                               .requester = mmu::Requester::kGuest})
        .status();
  }

  memory::HpaSpace hpa_space_;
  std::unique_ptr<memory::GuestRam> ram_;
  memory::HpaRange table_hpas_;
  memory::Mapping arena_;
  std::unique_ptr<mmu::TablePool> pool_;
  memory::PhysicalMap physical_map_;
  FakeClient client_;
  std::atomic<int> implicit_{0};
  std::unique_ptr<vcpu::Machine> machine_;  // outlives the engine, which flushes it
  std::unique_ptr<mmu::GuestAddressSpace> engine_;
};

TEST_F(SimEngineTest, ConversionsDestroyOrPreserveAsTheGuestAsked) {
  const FakeClient::Notes notes = Run(R"(vcpus {
      steps { write { gpa: 0x400000 value: 0x5EC2E7 } }
      steps { write { gpa: 0x401000 value: 0x401 } }
      steps { read { gpa: 0x400000 alias: MEMORY_KIND_SHARED expect: 0 } }
      steps { write { gpa: 0x400000 alias: MEMORY_KIND_SHARED value: 7 } }
      steps { read { gpa: 0x400000 expect: 0 } }
      steps { write { gpa: 0x400000 value: 9 } }
      steps { map_gpa { gpa: 0x400000 pages: 1 kind: MEMORY_KIND_SHARED preserve: true } }
      steps { expect { value: 0 } }
      steps { read { gpa: 0x400000 alias: MEMORY_KIND_SHARED expect: 9 } }
      steps { map_gpa { gpa: 0x400000 pages: 1 kind: MEMORY_KIND_PRIVATE } }
      steps { read { gpa: 0x400000 expect: 0 } }
      steps { read { gpa: 0x401000 expect: 0x401 } }
      steps { map_gpa { gpa: 0x1000000 pages: 1 kind: MEMORY_KIND_SHARED } }
      steps { expect { value: 0xFFFFFFFFFFFFFFEA } } })");
  EXPECT_EQ(notes.console, "");
  EXPECT_THAT(notes.fatal, IsEmpty());
  EXPECT_THAT(notes.ended, ElementsAre(0u));
  EXPECT_EQ(implicit_, 2);
}

TEST_F(SimEngineTest, D1_PrivateAccessOutsideMemoryIsAMemoryFault) {
  const FakeClient::Notes notes = Run("vcpus { steps { read { gpa: 0x1000000 } } }");
  ASSERT_THAT(notes.fatal, SizeIs(1));
  EXPECT_EQ(notes.fatal[0].first, StopReason::kMemoryFault);
}

TEST_F(SimEngineTest, D1_SharedAccessOutsideMemoryIsMmio) {
  const FakeClient::Notes notes =
      Run("vcpus { steps { read { gpa: 0x1000000 alias: MEMORY_KIND_SHARED } } }");
  ASSERT_THAT(notes.fatal, SizeIs(1));
  EXPECT_EQ(notes.fatal[0].first, StopReason::kMmioOutsideMemory);
}

TEST_F(SimEngineTest, F9_AMarkedAddressLeavesTheGuestAsAMisconfiguration) {
  const FakeClient::Notes notes =
      Run("vcpus { steps { read { gpa: 0x1000000 alias: MEMORY_KIND_SHARED } } }", 1,
          [&] { EXPECT_TRUE(IsMmio(0x1000000, MemoryKind::kShared)); });
  ASSERT_THAT(notes.fatal, SizeIs(1));
  EXPECT_EQ(notes.fatal[0].first, StopReason::kMmioOutsideMemory);
  EXPECT_THAT(notes.violations, IsEmpty());
  EXPECT_THAT(notes.misconfigurations, SizeIs(1));
}

TEST_F(SimEngineTest, F9_MemoryWhereAMarkStoodIsUsedAsMemory) {
  const FakeClient::Notes notes = Run(
      R"(vcpus {
      steps { write { gpa: 0x400000 alias: MEMORY_KIND_SHARED value: 7 } }
      steps { read { gpa: 0x400000 alias: MEMORY_KIND_SHARED expect: 7 } } })",
      1, [&] {
        const std::vector<mmu::Memslot> slots = ram_->Memslots();
        for (const mmu::Memslot& slot : slots) {
          ASSERT_TRUE(engine_->RemoveMemslot(slot.range.first).ok());
        }
        EXPECT_TRUE(IsMmio(0x400000, MemoryKind::kShared));
        for (const mmu::Memslot& slot : slots) ASSERT_TRUE(engine_->AddMemslot(slot).ok());
      });
  EXPECT_EQ(notes.console, "");
  EXPECT_THAT(notes.fatal, IsEmpty());
  EXPECT_THAT(notes.misconfigurations, SizeIs(1));
}

TEST_F(SimEngineTest, CodeThatTheGuestHasWrittenIsFetched) {
  const FakeClient::Notes notes = Run(R"(vcpus {
      steps { write { gpa: 0x400010 size: 1 value: 0xC3 } } steps { fetch { gpa: 0x400010 } }
      steps { fetch { gpa: 0x400011 } } })");
  ASSERT_THAT(notes.fatal, SizeIs(1));
  EXPECT_EQ(notes.fatal[0].first, StopReason::kTripleFault);
}

// Each vCPU works on its own pages, which lie between those of the others: a private word, a page
// that it converts to and fro. What it wrote by one kind never shows by the other, and a page just
// converted reads zero, while others convert and the host zaps at random.
TEST_F(SimEngineTest, A4_NoStaleTranslationSurvivesConversionsOfNeighbours) {
  constexpr uint32_t kVcpus = 4;
  std::string program;
  for (uint32_t i = 0; i < kVcpus; ++i) {
    const auto at = [&](uint64_t page) { return std::to_string(0x400000 + (page + i) * 0x1000); };
    const std::string keep = at(0), flip = at(kVcpus), door = at(2 * kVcpus);
    const std::string mark = std::to_string(0xA0 + i);
    program += "vcpus { steps { write { gpa: " + keep + " value: " + mark + " } }" +
               "steps { loop { count: 60 "
               // Implicitly to and fro: each side finds zero.
               "steps { read { gpa: " +
               flip +
               " expect: 0 } }"
               "steps { write { gpa: " +
               flip +
               " value: 0x111 } }"
               "steps { read { gpa: " +
               flip +
               " expect: 0x111 } }"
               "steps { read { gpa: " +
               flip +
               " alias: MEMORY_KIND_SHARED expect: 0 } }"
               "steps { write { gpa: " +
               flip +
               " alias: MEMORY_KIND_SHARED value: 0x222 } }"
               "steps { read { gpa: " +
               flip +
               " alias: MEMORY_KIND_SHARED expect: 0x222 } }"
               // Explicitly, keeping the bytes.
               "steps { write { gpa: " +
               door + " value: " + mark +
               " } }"
               "steps { map_gpa { gpa: " +
               door +
               " pages: 1 kind: MEMORY_KIND_SHARED preserve: true } } steps { expect {} }"
               "steps { read { gpa: " +
               door + " alias: MEMORY_KIND_SHARED expect: " + mark +
               " } }"
               "steps { map_gpa { gpa: " +
               door +
               " pages: 1 kind: MEMORY_KIND_PRIVATE } } steps { expect {} }"
               "steps { read { gpa: " +
               door +
               " expect: 0 } }"
               "steps { read { gpa: " +
               keep + " expect: " + mark + " } } } } }";
  }
  Start(program, kVcpus);
  std::atomic<bool> stop{false};
  std::thread host([&] {
    for (uint64_t i = 0; !stop; ++i) {
      const absl::Status status = engine_->Zap({Gfn(0x400 + i * 5 % (3 * kVcpus)), 1 + i % 4});
      EXPECT_TRUE(status.ok()) << status;
      std::this_thread::yield();
    }
  });
  const FakeClient::Notes notes = End(kVcpus);
  stop = true;
  host.join();
  EXPECT_EQ(notes.console, "");
  EXPECT_THAT(notes.fatal, IsEmpty());
  EXPECT_THAT(notes.ended, ElementsAre(0u, 1u, 2u, 3u));
  EXPECT_EQ(implicit_, 4 * (60 + 59));
}

}  // namespace
}  // namespace twinroot::sim
