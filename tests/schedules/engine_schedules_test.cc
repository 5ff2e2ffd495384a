// Pairs and triples of what happens to a VM, in every order of their atomic steps that has few
// preemptions. Every run ends with tables that pass the audit, in a state that some order of the
// whole operations gives, and with TLBs that give nothing more than the tables.
//
// TWINROOT_SCHEDULE='name: schedule', as a failure prints it, repeats one run.
// TWINROOT_PREEMPTIONS=N goes deeper, however long it takes.
#include <gtest/gtest.h>

#include <cstdlib>
#include <iostream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/schedules/operations.h"

namespace twinroot::mmu {
namespace {

using schedules::Coverage;
using schedules::Explore;
using Program = VmScenario::Program;

class EngineSchedules : public testing::Test {
 protected:
  ~EngineSchedules() override {
    if (repeats_) return;
    std::cout << "in all " << runs_ << " schedules of " << scenarios_ << " scenarios\n";
  }

  // Up to `bound` preemptions; of those with more than one as many as time allows.
  void Add(const Start& start, std::vector<Program> programs, int bound, int64_t most = 1500) {
    if (HasFailure()) return;  // the first says enough
    VmScenario scenario(start, std::move(programs));
    if (repeats_) return Repeat(scenario, std::getenv("TWINROOT_SCHEDULE"));
    if (const char* deeper = std::getenv("TWINROOT_PREEMPTIONS")) {
      bound = std::atoi(deeper);
      most = int64_t{1} << 62;
    }
    const Coverage coverage = Explore(scenario, bound, most);
    std::cout << coverage.schedules << " schedules of up to " << coverage.bound
              << (coverage.part ? " preemptions and a part of those with more, " : " preemptions, ")
              << coverage.decisions << " choices, " << coverage.states
              << " ends: " << scenario.name() << std::endl;
    EXPECT_EQ(coverage.failure, "") << scenario.name();
    // Two threads that change the same words meet somewhere.
    EXPECT_GE(coverage.bound, 1) << scenario.name();
    EXPECT_GT(coverage.schedules, coverage.serial) << scenario.name();
    runs_ += coverage.schedules;
    ++scenarios_;
  }
  void Pairs(const std::vector<Start>& starts, const std::vector<Operation>& some,
             const std::vector<Operation>& others, int bound = 2) {
    for (const Start& start : starts) {
      for (const Operation& one : some) {
        for (const Operation& other : others) Add(start, {{one}, {other}}, bound);
      }
    }
  }
  // So that none of it gets lost unseen.
  void ExpectAtLeast(int64_t runs) const {
    if (!repeats_ && !HasFailure()) {
      EXPECT_GE(runs_, runs);
    }
  }

 private:
  static void Repeat(VmScenario& scenario, const std::string& one) {
    const std::string name = scenario.name() + ": ";
    if (one.compare(0, name.size(), name) != 0) return;
    const auto end = schedules::Repeat(scenario, one.substr(name.size()));
    std::cout << name << end.broken << "\n  " << scenario.TextOf(end.state) << "\n";
    EXPECT_EQ(end.broken, "");
  }

  const bool repeats_ = std::getenv("TWINROOT_SCHEDULE") != nullptr;
  int64_t runs_ = 0;
  int scenarios_ = 0;
};

TEST_F(EngineSchedules, AnAccessBesideAConversion) {
  Pairs({Empty(), NoPages(), Zapped(), Sparse(), Large(), Small()},
        {Write(), WriteBeside(), WriteShared()}, {ToShared()});
  Pairs({Zapped(), Large()}, {Write(), WriteShared()}, {Keep()});
  Pairs({Shared()}, {Write(), WriteBeside(), WriteShared()}, {ToPrivate()});
  Pairs({Fresh()}, {Read(), Write()}, {ToShared()});
  ExpectAtLeast(18'000);
}

TEST_F(EngineSchedules, AnAccessBesideADenial) {
  Pairs({Empty(), NoPages(), Zapped(), Sparse()}, {Write(), WriteBeside()}, {Deny()});
  Pairs({Large(), Small()}, {Read(), Write(), WriteBeside()}, {Deny()});
  Pairs({Logged(false)}, {Write(), WriteBeside()}, {Deny()});
  Pairs({Fresh()}, {Read(), Write()}, {Deny(), DenyAll()});
  ExpectAtLeast(10'000);
}

TEST_F(EngineSchedules, AnAccessBesideASplitOrACollapse) {
  Pairs({Empty(), NoPages(), Zapped(), Large()}, {Write(), Fetch()}, {Split()});
  Pairs({Small(), Hole()}, {Write(), WriteBeside()}, {Collapse()});
  ExpectAtLeast(1'400);
}

TEST_F(EngineSchedules, AnAccessBesideAZap) {
  Pairs({Zapped(), Large(), Small(), Hole()}, {Write(), WriteBeside()},
        {Zap(), ZapSlot(), ZapAll(), PunchHole()});
  Pairs({Empty(), NoPages(), Sparse()}, {Write()}, {ZapPart(), ZapAll()});
  ExpectAtLeast(17'000);
}

// Tables that were taken down serve the other root.
TEST_F(EngineSchedules, ALookUpBesideTablesThatGo) {
  Add(Small(), {{LookUp()}, {ZapAll(), Reclaim(), ToShared(), WriteShared()}}, 2);
  Add(Small(), {{LookUp()}, {ZapSlot(), ToShared(), WriteShared()}}, 2);
  ExpectAtLeast(1'400);
}

TEST_F(EngineSchedules, AnAccessBesideAMemslotThatGoesOrMoves) {
  Pairs({Empty(), NoPages(), Zapped(), Sparse(), Large(), Small()}, {Read(), WriteShared()},
        {Remove()});
  Pairs({Zapped(), Sparse(), Large(), Small()}, {Read()}, {Move()});
  ExpectAtLeast(7'000);
}

TEST_F(EngineSchedules, AnAccessBesideTheDirtyLog) {
  Pairs({Logged(), Logged(false)}, {Write(), WriteBeside(), Harvest()}, {Harvest()});
  Pairs({Logged()}, {Write()}, {ToShared(), Keep(), Zap(), Remove(), EndLog()});
  // Every write that was complete when the harvest began is in it, or was in an earlier one.
  for (const Start& start : {Logged(), Logged(false)}) {
    Add(start, {{Write()}, {Write(), Harvest()}}, 2);
  }
  Pairs({Zapped(), Fresh(), Large(), Small()}, {Write()}, {StartLog()});
  Add(Fresh(), {{Read(), Write()}, {StartLog()}}, 2);
  ExpectAtLeast(9'000);
}

// The fault splits the leaf that a change has found.
TEST_F(EngineSchedules, AnAccessBesideASplitUnderTheLog) {
  Pairs({Logged(false)}, {Write()}, {Zap(), ZapSlot(), DenyAll(), ToShared(), Split()});
  // Between the change's look at the leaf and its exchange.
  Add(Logged(false), {{FaultOnce()}, {ZapForGood()}}, 2);
  ExpectAtLeast(3'300);
}

TEST_F(EngineSchedules, AgingWithoutAccessedFlags) {
  Pairs({Logged(true, false)}, {Write(), Read()}, {Age()});
  ExpectAtLeast(190);
}

TEST_F(EngineSchedules, TwoAccesses) {
  Pairs({Empty(), NoPages(), Zapped(), Sparse(), Hole(), Logged(), Logged(false)},
        {Write(), Read()}, {Write(), WriteBeside(), WriteShared()});
  ExpectAtLeast(7'000);
}

TEST_F(EngineSchedules, AnAccessBesideAnAudit) {
  Pairs({Empty(), NoPages(), Zapped(), Sparse(), Hole()}, {Write()}, {Audit()});
  ExpectAtLeast(1'700);
}

TEST_F(EngineSchedules, TwoChanges) {
  const std::vector<Operation> changes = {ToShared(), Deny(),   Split(),  Collapse(),
                                          Zap(),      ZapAll(), Remove(), Reclaim()};
  for (const Start& start : {Small(), Large()}) {
    for (size_t i = 0; i < changes.size(); ++i) {
      for (size_t j = i; j < changes.size(); ++j) Add(start, {{changes[i]}, {changes[j]}}, 1);
    }
  }
  Pairs({Logged()}, {Harvest()}, {ToShared(), Zap(), Remove(), Move()}, 1);
  ExpectAtLeast(15'000);
}

TEST_F(EngineSchedules, AnExternalTableBesideAChange) {
  Pairs({External()},
        {FaultOnly("fault", 5, kPrivate), FaultOnly("fault mapped", 6, kPrivate),
         FaultOnly("fault shared", 5, kShared)},
        {ToShared(), Zap(), ZapAll(), Audit(), Remove()});
  Pairs({ExternalLarge()}, {FaultOnly("fault mapped", 6, kPrivate)}, {Split(), ToShared(), Zap()});
  Pairs({ExternalLogged()}, {FaultOnly("fault logged", 6, kPrivate)},
        {Remove(), ToShared(), Zap()});
  ExpectAtLeast(6'300);
}

TEST_F(EngineSchedules, AMissBesideAMemslotThatComes) {
  Add(NoSlot(), {{Miss(), MissAgain()}, {AddSlot(), ToShared(), FaultOnly("fault", 5, kShared)}},
      2);
  Add(NoSlot(), {{Miss()}, {Miss(), MissAgain()}}, 2);
  // Kind and slot are of the same moment: a private access is never MMIO.
  Add(NoMarks(), {{Miss(kPrivate)}, {AddSlot()}}, 2);
  Add(NoSlot(), {{Miss(), MissAgain()}, {Audit()}}, 2);
  Add(StaleMark(), {{MissAgain()}, {Audit()}}, 2);
  ExpectAtLeast(2'000);
}

TEST_F(EngineSchedules, ALeafThatChangesTwiceWhileItGoes) {
  Add(Fresh(), {{Read(), Write()}, {ToShared()}}, 2, 20'000);
  ExpectAtLeast(1'000);
}

// Both of an access's neighbours at once, and a guest that goes on.
TEST_F(EngineSchedules, Triples) {
  for (const Start& start : {Large(), Small()}) {
    Add(start, {{Write()}, {WriteShared()}, {ToShared()}}, 2);
    Add(start, {{Write()}, {Split()}, {Collapse()}}, 1);
    Add(start, {{Write()}, {ToShared()}, {ToPrivate()}}, 1);
    Add(start, {{Write()}, {WriteBeside()}, {Zap()}}, 1);
    Add(start, {{Write(), Write()}, {ToShared()}}, 2);
    Add(start, {{Read(), Write()}, {ZapSlot()}}, 2);
    Add(start, {{Write()}, {ZapAll(), Reclaim()}, {WriteShared()}}, 1);
  }
  Add(Hole(), {{Write()}, {Zap()}, {Collapse()}}, 1);
  Add(Logged(), {{Write()}, {WriteBeside()}, {Harvest()}}, 2);
  Add(Logged(), {{Write(), Write()}, {Harvest(), Harvest()}}, 2);
  Add(Logged(), {{Write()}, {Harvest()}, {ToShared()}}, 1);
  ExpectAtLeast(11'000);
}

}  // namespace
}  // namespace twinroot::mmu
