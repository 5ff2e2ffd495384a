// Random guests that rewrite their own page tables see the same through EPT and on shadow tables,
// whatever the host does to their memory meanwhile: each result is printed, and at the end every
// word of the tables and of the data.
#include <cstdint>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "tests/daemon/host/vm_fixture.h"

namespace twinroot::host {
namespace {

using Step = v1::MoveStep;

constexpr uint64_t kPage = mmu::kPageSize;
constexpr uint64_t kP = 1, kW = 2, kU = 4, kA = 0x20, kD = 0x40, kLarge = 0x80;
constexpr uint64_t kNx = uint64_t{1} << 63, kReserved = uint64_t{1} << 51;
constexpr uint64_t kOn = 0x8000'0001, kWp = 0x1'0000;
// Two roots; all of the tables lie in 4 MiB to 6 MiB, which both map as it is.
constexpr uint64_t kRoots[] = {0x400000, 0x408000};
constexpr uint64_t kDirectories[] = {0x402000, 0x405000};
constexpr uint64_t kTables[] = {0x403000, 0x406000};
constexpr uint64_t kData[] = {0x500000, 0x501000, 0x502000, 0x503000};
constexpr uint64_t kEntries = 4;  // of each that are used

class RandomProgram {
 public:
  explicit RandomProgram(uint64_t seed) : random_(seed) {}

  v1::AccessProgram Make(int steps) {
    for (const uint64_t root : kRoots)
      Write(root, (root == kRoots[0] ? 0x401000 : 0x409000) | 0x27);
    for (const uint64_t top : {0x401000, 0x409000}) {
      Write(top, 0x404000 | 0x27);
      Write(top + 8, (top == 0x401000 ? kDirectories[0] : kDirectories[1]) | 0x27);
    }
    // With five levels this directory is the level above, and a directory has the same page.
    Write(0x404000, 0x40A000 | 0x27);
    Write(0x404008, kDirectories[0] | 0x27);
    for (const uint64_t directory : {0x404000, 0x40A000}) Write(directory + 16, 0x4000E7);
    for (const uint64_t table : Changing()) {
      for (uint64_t i = 0; i < kEntries; ++i) Write(table + 8 * i, Entry());
    }
    for (const uint64_t page : kData) Write(page + 0x800, 0xC3);
    Move(Step::REGISTER_EFER, 0x900);
    Move(Step::REGISTER_CR4, cr4_);
    Move(Step::REGISTER_CR3, kRoots[0]);
    Move(Step::REGISTER_CR0, kOn | kWp);
    for (int i = 0; i < steps; ++i) Random();
    Move(Step::REGISTER_CR0, 1);
    for (uint64_t page = 0x400000; page < 0x40B000; page += kPage) {
      for (uint64_t i = 0; i < kEntries; ++i) Read(page + 8 * i);
    }
    for (const uint64_t page : kData) {
      for (uint64_t i = 0; i < kEntries; ++i) Read(page + 8 * i);
    }
    return program_;
  }

 private:
  uint64_t Pick(uint64_t below) { return random_() % below; }
  template <size_t n>
  uint64_t Of(const uint64_t (&all)[n]) {
    return all[Pick(n)];
  }
  static std::vector<uint64_t> Changing() {
    return {kDirectories[0], kDirectories[1], kTables[0], kTables[1]};
  }
  v1::AccessStep& Add() { return *program_.mutable_vcpus(0)->add_steps(); }
  void Print() { Add().mutable_print_result(); }
  void Move(Step::Register to, uint64_t value) {
    v1::MoveStep& move = *Add().mutable_move();
    move.set_to(to);
    move.set_value(value);
  }
  void Read(uint64_t at) {
    v1::ReadStep& read = *Add().mutable_read();
    read.set_gpa(at);
    read.set_catch_fault(true);
    Print();
  }
  void Write(uint64_t at, uint64_t value) {
    v1::WriteStep& write = *Add().mutable_write();
    write.set_gpa(at);
    write.set_value(value);
    write.set_catch_fault(true);
    Print();
    // It may have been a table.
    Add().mutable_invalidate();
  }
  uint64_t Entry() {
    uint64_t flags = Pick(8) == 0 ? 0 : kP;
    if (Pick(3) != 0) flags |= kW;
    if (Pick(3) != 0) flags |= kU;
    if (Pick(2) == 0) flags |= kA;
    if (Pick(2) == 0) flags |= kD;
    if (Pick(6) == 0) flags |= kNx;
    if (Pick(40) == 0) flags |= kReserved;
    switch (Pick(6)) {
      case 0:
      case 1:
        return flags | Of(kTables);
      case 2:
        return flags | kLarge | (0x400000 + 0x200000 * Pick(3));
      case 3:
        return flags | Changing()[Pick(4)];
      default:
        return flags | Of(kData);
    }
  }
  uint64_t Address() {
    const uint64_t offset = 8 * Pick(kEntries);
    switch (Pick(8)) {
      case 0:  // with four levels a directory is a table here
        return 0x200000 + kPage * Pick(kEntries) + offset;
      case 1:
        return Of(kData) + offset;
      default:
        return 0x4000'0000 + 0x20'0000 * Pick(kEntries) + kPage * Pick(kEntries) + offset;
    }
  }
  void Random() {
    switch (Pick(24)) {
      case 0:
        Move(Step::REGISTER_CR3, Of(kRoots));
        break;
      case 1:
        Move(Step::REGISTER_CR0, kOn | (Pick(2) ? kWp : 0));
        break;
      case 2:  // another number of levels
        Move(Step::REGISTER_CR0, 1);
        cr4_ ^= 0x1000;
        Move(Step::REGISTER_CR4, cr4_);
        Move(Step::REGISTER_CR0, kOn | kWp);
        break;
      case 3:  // SMEP, SMAP
        Move(Step::REGISTER_CR4, cr4_ | (Pick(4) == 0 ? 0x100000 : 0) | (Pick(4) ? 0 : 0x200000));
        break;
      case 4:
        Move(Step::REGISTER_CPL, Pick(3) == 0 ? 3 : 0);
        break;
      case 5:
        Move(Step::REGISTER_EFLAGS_AC, Pick(2));
        break;
      case 6: {
        v1::FetchStep& fetch = *Add().mutable_fetch();
        fetch.set_gpa((Address() & ~(kPage - 1)) + 0x800);
        fetch.set_catch_fault(true);
        Print();
        break;
      }
      case 7:
      case 8:
      case 9:
      case 10:
        Write(Changing()[Pick(4)] + 8 * Pick(kEntries), Entry());
        break;
      case 11:
      case 12:
      case 13:
      case 14:
      case 15:
        Write(Address(), Pick(3) == 0 ? Entry() : Pick(1000) << 12);
        break;
      default:
        Read(Address());
    }
  }

  std::mt19937_64 random_;
  uint64_t cr4_ = 0x20;
  v1::AccessProgram program_ = [] {
    v1::AccessProgram program;
    program.add_vcpus();
    return program;
  }();
};

class TdpOrShadow : public VmFixture {
 protected:
  std::shared_ptr<Vm> MakeVm(const std::string& name, const v1::AccessProgram& program,
                             mmu::MmuMode mmu) {
    VmSpec spec;
    spec.name = name;
    spec.memory_bytes = uint64_t{16} << 20;
    spec.vcpus = 1;
    spec.backend = BackendKind::kSim;
    spec.mmu = mmu;
    spec.program = program::Compile(program, 1, spec.memory_bytes).value();
    auto vm = registry_->Create(std::move(spec));
    EXPECT_TRUE(vm.ok()) << vm.status();
    EXPECT_TRUE((*vm)->Start().ok());
    return *std::move(vm);
  }
  // What the host may do at any time, and the guest must not notice.
  static void Manage(Vm& vm, uint64_t what) {
    const bool logs = vm.counters().dirty_log_enabled;
    switch (what % 5) {
      case 0:
        EXPECT_TRUE(logs ? vm.DisableDirtyLog().ok() : vm.EnableDirtyLog({}).ok());
        break;
      case 1:
        EXPECT_EQ(vm.HarvestDirty(std::nullopt).ok(), logs);
        break;
      case 2:
        EXPECT_TRUE(vm.SplitPages(vm.Memory(), mmu::Level::k4K).ok());
        break;
      case 3:
        EXPECT_TRUE(vm.RecoverPages(vm.Memory()).ok());
        break;
      default:
        EXPECT_TRUE(vm.AgePages(vm.Memory().front()).ok());
    }
  }
};

TEST_F(TdpOrShadow, TheSameProgramShowsTheSame) {
  constexpr int kPrograms = 40, kSteps = 250;
  const char* given = std::getenv("TWINROOT_SEED");
  const uint64_t seed =
      given != nullptr ? std::strtoull(given, nullptr, 0) : std::random_device{}();
  uint64_t lines = 0, faults = 0, shadows = 0;
  for (uint64_t i = 0; i < kPrograms; ++i) {
    SCOPED_TRACE(testing::Message() << "TWINROOT_SEED=" << seed + i);
    const v1::AccessProgram program = RandomProgram(seed + i).Make(kSteps);
    const auto tdp = MakeVm("tdp", program, mmu::MmuMode::kTdp);
    const auto shadow = MakeVm("shadow", program, mmu::MmuMode::kShadow);
    std::mt19937_64 random(seed + i);
    const auto ended = [](Vm& vm) { return vm.status().state == VmState::kStopped; };
    while (!ended(*tdp) || !ended(*shadow)) {
      Manage(*shadow, random());
      ASSERT_TRUE(shadow->Audit().ok()) << shadow->Audit();
    }
    EXPECT_EQ(shadow->status().exit_code, tdp->status().exit_code);
    EXPECT_EQ(shadow->status().stop_reason, tdp->status().stop_reason)
        << shadow->status().stop_message << " / " << tdp->status().stop_message;
    EXPECT_EQ(shadow->status().stop_message, tdp->status().stop_message);
    const std::string text = shadow->ReadConsole(0, 1 << 20).data;
    ASSERT_EQ(text, tdp->ReadConsole(0, 1 << 20).data);
    for (size_t at = 0; (at = text.find('\n', at)) != std::string::npos; ++at) ++lines;
    for (size_t at = 0; (at = text.find("0x1000000", at)) != std::string::npos; ++at) ++faults;
    shadows += shadow->counters().memory.shadow_pages;
    ASSERT_TRUE(registry_->Delete("tdp").ok());
    ASSERT_TRUE(registry_->Delete("shadow").ok());
  }
  // The programs are not idle, and do not fault all the time.
  EXPECT_GT(faults, lines / 50);
  EXPECT_LT(faults, lines * 4 / 5);
  EXPECT_GT(shadows, 0u);
}

}  // namespace
}  // namespace twinroot::host
