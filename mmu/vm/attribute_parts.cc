#include "mmu/vm/attribute_parts.h"

#include <algorithm>
#include <numeric>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "mmu/engine/max_level.h"

namespace twinroot::mmu {
namespace {

std::string Name(GfnRange range) {
  return absl::StrCat("range 0x", absl::Hex(range.first.value << kPageShift), " of ", range.count,
                      " pages");
}

std::string Indexed(size_t index, absl::string_view what) {
  return absl::StrCat("ranges[", index, "]: ", what);
}

absl::Status Indexed(size_t index, const absl::Status& status) {
  return absl::Status(status.code(), Indexed(index, status.message()));
}

// The caller's ranges by frame.
std::vector<size_t> Ordered(const std::vector<GfnRange>& ranges) {
  std::vector<size_t> order(ranges.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(),
            [&](size_t a, size_t b) { return ranges[a].first < ranges[b].first; });
  return order;
}

// `at` follows what came before, or joins it.
void Append(std::vector<GfnRange>& ranges, GfnRange at) {
  if (!ranges.empty() && ranges.back().end() == at.first) {
    ranges.back().count += at.count;
  } else {
    ranges.push_back(at);
  }
}

// Denying read denies write too: said so, so that equal denials are equal.
Access Canonical(Access denied) { return denied.read() ? denied | Access::Write() : denied; }

// From so many pages of one call on inside a large range its large page is recovered at once: pages
// that go to and fro in small pieces would split and recover it, and flush once more, every time.
constexpr uint64_t RecoverFrom(Level level) { return FramesPerEntry(level) / 8; }

}  // namespace

absl::Status CheckRange(const AddressSpaceState& vm, const MmuRead& read, GfnRange range) {
  if (range.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(Name(range), " is empty; give at least one page"));
  }
  const GpaLayout& layout = vm.config.layout;
  const uint64_t limit = vm.gfn_limit.value;
  // An address with the shared bit is an alias of memory, never memory of its own (A7).
  if (layout.shared_bit() && (range.first.value >> (*layout.shared_bit() - kPageShift) & 1) != 0) {
    return absl::InvalidArgumentError(absl::StrCat(Name(range), " carries the shared bit ",
                                                   *layout.shared_bit(),
                                                   "; name memory by its address without it"));
  }
  if (range.first.value >= limit || range.count > limit - range.first.value) {
    return absl::InvalidArgumentError(absl::StrCat(Name(range),
                                                   " ends beyond the last guest address 0x",
                                                   absl::Hex((limit << kPageShift) - 1)));
  }
  if (!vm.slots.ForEachPart(read, range, [](GfnRange) {})) {
    return absl::InvalidArgumentError(
        absl::StrCat(Name(range), " reaches outside the VM's memory"));
  }
  return absl::OkStatus();
}

absl::Status CheckChange(const AddressSpaceState& vm, const MmuRead& read,
                         const AttributeChange& change) {
  if (!change.kind && !change.deny) {
    return absl::InvalidArgumentError(
        "the change has no target; name a kind, or what is to be denied");
  }
  if (change.kind == MemoryKind::kShared && !vm.HasKind(MemoryKind::kShared)) {
    return absl::InvalidArgumentError(
        "this VM has no shared bit, so nothing of it can be shared; create it with one");
  }
  for (size_t i = 0; i < change.ranges.size(); ++i) {
    if (absl::Status status = CheckRange(vm, read, change.ranges[i]); !status.ok()) {
      return Indexed(i, status);
    }
  }
  const std::vector<size_t> order = Ordered(change.ranges);
  for (size_t i = 1; i < order.size(); ++i) {
    const GfnRange before = change.ranges[order[i - 1]];
    const GfnRange range = change.ranges[order[i]];
    if (!range.Overlaps(before)) continue;
    return absl::InvalidArgumentError(Indexed(
        order[i], absl::StrCat(Name(range), " overlaps ", Indexed(order[i - 1], Name(before)),
                               "; name every page once")));
  }
  if (change.content == Content::kPreserve && change.kind == MemoryKind::kShared &&
      change.requester == Requester::kHost) {
    return absl::PermissionDeniedError(
        "PRESERVE_WOULD_DISCLOSE: only the guest itself may make private memory shared with its "
        "bytes; convert without preserve");
  }
  for (const MemoryKind kind : kAllKinds) {
    if (!change.deny || change.deny->empty() || !vm.roots.Has(kind)) continue;
    const ExternalTables* external = vm.roots.Of(kind).external;
    if (external == nullptr || external->CanRestrict()) continue;
    return absl::FailedPreconditionError(
        "this backend cannot deny accesses: its tables are enforced elsewhere, where every mapped "
        "page has all rights");
  }
  if (change.deny && change.deny->read() && !change.deny->fetch() &&
      (!vm.config.capabilities.execute_only || vm.shadow != nullptr)) {
    return absl::FailedPreconditionError(
        "this VM's tables have no execute-only pages, so reads cannot be denied where fetches are "
        "not; deny fetches too");
  }
  return absl::OkStatus();
}

std::vector<AttributePart> PartsOf(const AddressSpaceState& vm, const MmuRead& read,
                                   const AttributeChange& change) {
  std::vector<AttributePart> parts;
  for (const size_t index : Ordered(change.ranges)) {
    vm.slots.ForEachPart(read, change.ranges[index], [&](GfnRange in_slot) {  // checked before
      vm.attributes.ForEachRun(read, in_slot, [&](GfnRange run, MemoryAttributes from) {
        const MemoryAttributes to{change.kind.value_or(from.kind),
                                  change.deny ? Canonical(*change.deny) : from.denied};
        if (to != from) parts.push_back({run, index, from, to});
      });
    });
  }
  return parts;
}

absl::Status CheckBacking(const AddressSpaceState& vm, const MmuRead& read,
                          const AttributePart& part) {
  if (!part.converts()) return absl::OkStatus();
  const Memslot& slot = *vm.slots.Find(read, part.range.first);
  if (BackingOf(slot, part.range.first, part.to.kind)) return absl::OkStatus();
  return Named(part, absl::FailedPreconditionError(absl::StrCat(
                         "lies in a memslot without ",
                         part.to.kind == MemoryKind::kPrivate ? "private" : "shared", " backing")));
}

absl::Status Named(const AttributePart& part, const absl::Status& status) {
  return Indexed(part.index, absl::Status(status.code(),
                                          absl::StrCat(Name(part.range), " ", status.message())));
}

void DropRefused(const AttributeChangeResult& result, std::vector<AttributePart>& parts) {
  std::erase_if(
      parts, [&](const AttributePart& part) { return !result.per_range[part.index].status.ok(); });
}

absl::Status StatusOf(const AttributeChange& change, const AttributeChangeResult& result) {
  if (change.atomicity == Atomicity::kEach) return absl::OkStatus();
  for (const RangeChange& range : result.per_range) {
    if (!range.status.ok()) return range.status;
  }
  return absl::OkStatus();
}

void Report(absl::Span<const AttributePart> parts, AttributeChangeResult& result) {
  for (const AttributePart& part : parts) {
    RangeChange& range = result.per_range[part.index];
    if (part.converts()) {
      Append(result.converted, part.range);
      Append(range.converted, part.range);
    }
    if (part.redenies()) {
      Append(result.redenied, part.range);
      Append(range.redenied, part.range);
    }
  }
}

std::vector<LeafAction> ActionsOf(absl::Span<const AttributePart> parts) {
  std::vector<LeafAction> actions;
  for (const AttributePart& part : parts) {
    // A leaf that has too few rights would look like a broken one to a fault: it goes.
    const bool stays = !part.converts() && part.from.allowed().Includes(part.to.allowed());
    const LeafAction action{part.range, part.from.kind, stays ? part.to.allowed() : Access::None()};
    if (!actions.empty() && actions.back().range.end() == action.range.first &&
        actions.back().kind == action.kind && actions.back().keep == action.keep) {
      actions.back().range.count += action.range.count;
    } else {
      actions.push_back(action);
    }
  }
  return actions;
}

Access KeptBy(const Root& alias, const LeafAction& action) {
  // An external table can be told what is set and what goes, not what shrinks.
  return alias.external != nullptr ? Access::None() : action.keep & alias.rights();
}

std::optional<Level> LargestBeside(Gfn end) {
  Level level = Level::k4K;
  while (level < kLargestLeaf && end.value % FramesPerEntry(Above(level)) == 0)
    level = Above(level);
  if (level == kLargestLeaf) return std::nullopt;
  return level;
}

std::vector<RecoverySpot> SpotsOf(absl::Span<const AttributePart> parts) {
  // Pages that change, by large range; parts are ordered, so each range's follow each other.
  struct Spot {
    Gfn first;
    MemoryAttributes to;
    uint64_t pages = 0;
  };
  std::vector<RecoverySpot> recovered;
  for (const Level level : {Level::k1G, Level::k2M}) {
    std::optional<Spot> spot;
    const auto end_spot = [&] {
      if (spot && spot->pages >= RecoverFrom(level)) {
        recovered.push_back({spot->first, level, spot->to});
      }
    };
    for (size_t i = 0; i < parts.size();) {
      GfnRange run = parts[i].range;
      const MemoryAttributes to = parts[i].to;
      for (++i; i < parts.size() && parts[i].range.first == run.end() && parts[i].to == to; ++i) {
        run.count += parts[i].range.count;
      }
      const auto add = [&](GfnRange large) {
        // Nothing else stands where all of it changes.
        if (run.Contains(large)) return;
        if (!spot || spot->first != large.first) {
          end_spot();
          spot = Spot{large.first, to};
        }
        spot->to = to;
        spot->pages += Intersection(run, large).count;
      };
      const GfnRange head = LeafRange(run.first, level);
      const GfnRange tail = LeafRange(run.end() - 1, level);
      add(head);
      if (!(tail == head)) add(tail);
    }
    end_spot();
  }
  return recovered;
}

std::vector<GfnRange> Ranges(absl::Span<const AttributePart> parts) {
  std::vector<GfnRange> ranges;
  for (const AttributePart& part : parts) Append(ranges, part.range);
  return ranges;
}

}  // namespace twinroot::mmu
