// All vCPUs hammer the same pages through both aliases while they convert them, implicitly and by
// MapGPA, and check what must hold whatever the order of events:
// - a page reads zero or what was written through the same alias, to this page, since it became of
//   that kind; never what was written through the other alias;
// - a page that is handed from vCPU to vCPU under a lock holds exactly what the last holder wrote,
//   and zero after each conversion, whichever vCPU used it before and through which alias;
// - counters on private pages right beside converting pages lose no update, nor do guard pages
//   around multi-page conversions change;
// - a page that stays shared passes sequence numbers between vCPUs; they never go backwards, and a
//   counter there that all vCPUs add to loses no update.
//
// Command line: rounds=N (8192 / vCPUs), for each vCPU; seed=N. 1 to 16 vCPUs, 8 MiB.
//
//   2 MiB: | arena 0 | counter 0 | arena 1 | counter 1 | ... | arena n | mailbox |
//   3 MiB: | baton 0 | baton 1 | ... | baton n |
//   4 MiB - 20 KiB: | guard | 4 pages |=4 MiB=| 4 pages | guard |
#include "tests/guests/check.h"

namespace {

using namespace twinroot::guest;

constexpr uint64_t kMaxVcpus = 16;
constexpr uint64_t kArena = 2 * kMiB;
constexpr uint64_t kBatons = 3 * kMiB;
constexpr uint64_t kBlockPages = 8;
constexpr uint64_t kBlock = 4 * kMiB - kBlockPages / 2 * kPageSize;
constexpr uint64_t kGuards[] = {kBlock - kPageSize, kBlock + kBlockPages* kPageSize};
constexpr uint64_t kGuardSalt = 77;

// The mailbox, through the shared alias.
struct Mailbox {
  uint64_t sum;                  // all vCPUs add to it
  uint64_t sequence[kMaxVcpus];  // of each vCPU
};

enum class Alias : uint64_t { kPrivate = 0x5052, kShared = 0x5348 };  // "PR", "SH"

// What the last holder of a page left there; the lock guards the page too.
struct Baton {
  SpinLock lock;
  Alias alias = Alias::kPrivate;
  uint64_t offset = 0;
  uint64_t value = 0;
};

constinit SpinBarrier barrier;
constinit Baton batons[kMaxVcpus + 1];

volatile uint64_t* Word(Alias alias, uint64_t gpa) {
  return alias == Alias::kPrivate ? Private(gpa) : Shared(gpa);
}

// Every value on a converting page says through which alias and to which page it was written.
constexpr uint64_t kTagShift = 16;  // below: who and when, of no matter to the check
uint64_t Tag(Alias alias, uint64_t gpa) {
  return static_cast<uint64_t>(alias) << 32 | (gpa / kPageSize & 0xffffffff);
}

class Hammer {
 public:
  Hammer(const BootInfo& boot, uint64_t vcpu)
      : vcpus_(boot.vcpus),
        vcpu_(vcpu),
        rounds_(NumberOption(boot, "rounds", 8192 / boot.vcpus)),
        random_(Pattern(vcpu, NumberOption(boot, "seed", 1))),
        mailbox_(reinterpret_cast<Mailbox*>(SharedAddress(kArena + (2 * vcpus_ + 1) * kPageSize))),
        counter_(Private(kArena + (2 * vcpu + 1) * kPageSize)) {}

  uint64_t rounds() const { return rounds_; }
  uint64_t conversions() const { return conversions_; }

  void Prepare() {
    for (const uint64_t guard : kGuards) {
      for (uint64_t at = guard; at < guard + kPageSize; at += 8) {
        *Private(at) = Pattern(at, kGuardSalt);
      }
    }
    const uint64_t mailbox = kArena + (2 * vcpus_ + 1) * kPageSize;
    ExpectResult("the mailbox", mailbox, kOk, MapGpa(mailbox, 1, kMapShared));
  }

  void Run() {
    for (uint64_t round = 1; round <= rounds_; ++round) {
      // The counter is ours alone; its two neighbours are converted all the time.
      *counter_ = *counter_ + 1;
      const uint64_t gpa = random_.Next() % 4 != 0 ? ArenaPage() : BlockPage();
      const uint64_t at = gpa + random_.Next() % kWordsPerPage * 8;
      const Alias alias = random_.Next() % 2 != 0 ? Alias::kPrivate : Alias::kShared;
      switch (random_.Next() % 4) {
        case 0:
          Convert(gpa, alias);
          [[fallthrough]];
        case 1:
          *Word(alias, at) = Tag(alias, at) << kTagShift | vcpu_ << 12 | (round & 0xfff);
          [[fallthrough]];
        default:
          CheckWord(alias, at);
      }
      Expect("a counter beside converting pages", AddressOf(counter_), round, *counter_);
      PassSequence(round);
      if (random_.Next() % 4 == 0) PassBaton(round);
    }
  }

  // After all vCPUs have run.
  void CheckTotals() {
    Expect("the sum that all vCPUs added to", AddressOf(&mailbox_->sum), vcpus_ * rounds_,
           Load(&mailbox_->sum));
    for (uint64_t vcpu = 0; vcpu < vcpus_; ++vcpu) {
      Expect("the last sequence number", vcpu, rounds_, Load(&mailbox_->sequence[vcpu]));
      const uint64_t counter = kArena + (2 * vcpu + 1) * kPageSize;
      Expect("a counter, seen by another vCPU", counter, rounds_, *Private(counter));
    }
    for (const uint64_t guard : kGuards) {
      for (uint64_t at = guard; at < guard + kPageSize; at += 8) {
        Expect("a guard page", at, Pattern(at, kGuardSalt), *Private(at));
      }
    }
    for (uint64_t page = 0; page < kBlockPages; ++page) CheckPage(kBlock + page * kPageSize);
    for (uint64_t page = 0; page <= vcpus_; ++page) CheckPage(kArena + 2 * page * kPageSize);
  }

 private:
  static uint64_t AddressOf(volatile void* at) { return reinterpret_cast<uint64_t>(at); }
  static uint64_t Load(const uint64_t* at) { return __atomic_load_n(at, __ATOMIC_SEQ_CST); }

  uint64_t ArenaPage() { return kArena + random_.Next() % (vcpus_ + 1) * 2 * kPageSize; }
  uint64_t BlockPage() { return kBlock + random_.Next() % kBlockPages * kPageSize; }

  // One page of the arena; of the block any number of pages from `gpa` on.
  void Convert(uint64_t gpa, Alias alias) {
    uint64_t pages = 1;
    if (gpa >= kBlock) {  // the batons lie below
      pages += random_.Next() % (kBlockPages - (gpa - kBlock) / kPageSize);
    }
    const uint64_t attributes = alias == Alias::kPrivate ? kMapPrivate : kMapShared;
    ExpectResult("a contended page", gpa, kOk, MapGpa(gpa, pages, attributes));
    ++conversions_;
  }

  void CheckWord(Alias alias, uint64_t at) {
    const uint64_t got = *Word(alias, at);
    if (got != 0) {
      Expect(alias == Alias::kPrivate ? "written through another alias or page, seen as private"
                                      : "written through another alias or page, seen as shared",
             at, Tag(alias, at), got >> kTagShift);
    }
  }

  // Whatever kind the page has now, both views of it are sound, one after the other.
  void CheckPage(uint64_t gpa) {
    for (uint64_t at = gpa; at < gpa + kPageSize; at += 8) CheckWord(Alias::kShared, at);
    for (uint64_t at = gpa; at < gpa + kPageSize; at += 8) CheckWord(Alias::kPrivate, at);
  }

  // Takes a page that nobody holds; waiting for one would only burn the holder's processor.
  void PassBaton(uint64_t round) {
    const uint64_t index = random_.Next() % (vcpus_ + 1);
    Baton& baton = batons[index];
    const uint64_t page = kBatons + index * kPageSize;
    if (!baton.lock.TryLock()) return;
    Expect("what the last holder of a page wrote", page + baton.offset, baton.value,
           *Word(baton.alias, page + baton.offset));
    if (random_.Next() % 2 != 0) {
      baton.alias = baton.alias == Alias::kPrivate ? Alias::kShared : Alias::kPrivate;
      if (random_.Next() % 2 != 0) Convert(page, baton.alias);
      if (*Word(baton.alias, page + baton.offset) != 0) {
        Fail("old bytes after a conversion", page + baton.offset, 0, 1);
      }
    }
    *Word(baton.alias, page + baton.offset) = 0;
    baton.offset = random_.Next() % kWordsPerPage * 8;
    baton.value = Pattern(round, vcpu_);
    *Word(baton.alias, page + baton.offset) = baton.value;
    baton.lock.Unlock();
  }

  void PassSequence(uint64_t round) {
    __atomic_fetch_add(&mailbox_->sum, 1, __ATOMIC_SEQ_CST);
    __atomic_store_n(&mailbox_->sequence[vcpu_], round, __ATOMIC_SEQ_CST);
    const uint64_t other = random_.Next() % vcpus_;
    const uint64_t got = Load(&mailbox_->sequence[other]);
    if (got < seen_[other] || got > rounds_) {
      Fail("a sequence number went backwards or astray", other, seen_[other], got);
    }
    seen_[other] = got;
  }

  const uint64_t vcpus_;
  const uint64_t vcpu_;
  const uint64_t rounds_;
  Random random_;
  Mailbox* const mailbox_;
  volatile uint64_t* const counter_;
  uint64_t conversions_ = 0;
  uint64_t seen_[kMaxVcpus] = {};
};

}  // namespace

extern "C" void GuestMain(const BootInfo* boot, uint64_t vcpu) {
  if (vcpu == 0) {
    CheckBootInfo(*boot);
    if (boot->vcpus > kMaxVcpus || FreeMemory(*boot).end < 5 * kMiB) {
      Print("smp: needs 1 to 16 vCPUs and 8 MiB\n");
      Exit(2);
    }
  }
  if (vcpu >= kMaxVcpus) EndVcpu();
  Hammer hammer(*boot, vcpu);
  if (vcpu == 0) hammer.Prepare();
  barrier.Wait(boot->vcpus);
  hammer.Run();
  barrier.Wait(boot->vcpus);
  if (vcpu != 0) EndVcpu();
  hammer.CheckTotals();
  Line()
      .Text("smp: ok, vCPUs ")
      .Dec(boot->vcpus)
      .Text(", rounds ")
      .Dec(hammer.rounds())
      .Text(", MapGPA requests of vCPU 0 ")
      .Dec(hammer.conversions())
      .End();
  Exit(0);
}
