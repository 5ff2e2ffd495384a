// hvctl memory split|recover|stats: how a VM's memory is mapped.
#include <memory>

#include "absl/strings/str_cat.h"
#include "cli/commands/command.h"
#include "cli/short_names.h"

namespace twinroot::cli {
namespace {

struct PageArguments {
  std::string name;
  std::vector<AddressRange> ranges;
  uint64_t page_size = 4096;
};

int Split(Session& session, const PageArguments& arguments) {
  v1::SplitPagesRequest request;
  request.set_vm(arguments.name);
  SetRanges(arguments.ranges, request.mutable_ranges());
  request.set_page_size(arguments.page_size);
  const auto response = session.client().Call<v1::SplitPagesResponse>(
      absl::StrCat("cannot split pages of vm ", arguments.name),
      [&](grpc::ClientContext* context, v1::SplitPagesResponse* answer) {
        return session.client().dirty_log().SplitPages(context, request, answer);
      });
  session.Answer(response, absl::StrCat(SplitsInWords(response.splits()), "\n"));
  return kOk;
}

int Recover(Session& session, const PageArguments& arguments) {
  v1::RecoverPagesRequest request;
  request.set_vm(arguments.name);
  SetRanges(arguments.ranges, request.mutable_ranges());
  const auto response = session.client().Call<v1::RecoverPagesResponse>(
      absl::StrCat("cannot recover pages of vm ", arguments.name),
      [&](grpc::ClientContext* context, v1::RecoverPagesResponse* answer) {
        return session.client().memory().RecoverPages(context, request, answer);
      });
  session.Answer(response, absl::StrCat(response.collapsed(), " tables became large pages\n"));
  return kOk;
}

std::string LeavesInWords(const v1::MemoryStats& stats, v1::MemoryKind root) {
  std::string text;
  for (const v1::PageCount& leaves : stats.leaves()) {
    if (leaves.root() != root || leaves.count() == 0) continue;
    absl::StrAppend(&text, text.empty() ? "" : ", ", leaves.count(), " of ",
                    FormatSize(leaves.page_size()));
  }
  return text.empty() ? "none" : text;
}

int Stats(Session& session, const std::string& name) {
  v1::GetMemoryStatsRequest request;
  request.set_vm(name);
  const auto response = session.client().Call<v1::GetMemoryStatsResponse>(
      absl::StrCat("cannot show memory of vm ", name),
      [&](grpc::ClientContext* context, v1::GetMemoryStatsResponse* answer) {
        return session.client().memory().GetMemoryStats(context, request, answer);
      });
  const v1::MemoryStats& stats = response.stats();
  if (session.structured()) {
    session.Answer(stats, "");
    return kOk;
  }
  const auto of_kind = [](uint64_t bytes, uint64_t allocated) {
    return absl::StrCat(FormatRoughSize(bytes), ", ", FormatRoughSize(allocated), " allocated");
  };
  Sheet sheet;
  sheet.Add("Private", of_kind(stats.private_bytes(), stats.private_bytes_allocated()));
  sheet.Add("Shared", of_kind(stats.shared_bytes(), stats.shared_bytes_allocated()));
  sheet.Add("Private pages", LeavesInWords(stats, v1::MEMORY_KIND_PRIVATE));
  sheet.Add("Shared pages", LeavesInWords(stats, v1::MEMORY_KIND_SHARED));
  sheet.Add("Table pages", absl::StrCat(stats.table_pages(), " of ", stats.table_pages_budget()));
  const v1::MemoryStats::Faults& faults = stats.faults();
  sheet.Add("Faults", absl::StrCat(faults.fixed(), " fixed (", faults.fast(), " fast), ",
                                   faults.spurious(), " spurious, ", faults.retry(), " retried, ",
                                   faults.memory(), " of the other kind, ", faults.mmio(),
                                   " MMIO, ", faults.failed(), " failed"));
  const v1::MemoryStats::Splits& splits = stats.splits();
  sheet.Add("Splits", absl::StrCat(splits.dirty_log(), " dirty log, ", splits.request(),
                                   " request, ", splits.conversion(), " conversion, ",
                                   splits.fault(), " fault, ", splits.kept(), " kept"));
  const v1::MemoryStats::Collapses& collapses = stats.collapses();
  sheet.Add("Collapses", absl::StrCat(collapses.dirty_log(), " dirty log, ", collapses.attributes(),
                                      " attributes, ", collapses.nx_recovery(), " NX recovery"));
  sheet.Add("Flushes",
            absl::StrCat(stats.flushes_range(), " of a range, ", stats.flushes_full(), " full"));
  sheet.Add("Changes", absl::StrCat(stats.invalidations()));
  const v1::MemoryStats::DirtyLog& log = stats.dirty_log();
  sheet.Add("Dirty log",
            absl::StrCat(ShortName(log.state()), ", ", log.pages_harvested(), " pages harvested, ",
                         log.vcpus_waiting(), " vCPUs wait for a harvest"));
  session.out().Write(sheet.Render());
  return kOk;
}

}  // namespace

std::string SplitsInWords(const v1::SplitCounts& splits) {
  const std::string split = absl::StrCat(splits.split_2m(), " pages of 2MiB and ",
                                         splits.split_1g(), " of 1GiB were split");
  return splits.kept() == 0 ? split : absl::StrCat(split, ", ", splits.kept(), " stay large");
}

void AddMemoryPageCommands(CLI::App* memory, Invocation* invocation) {
  const auto split = std::make_shared<PageArguments>();
  CLI::App* verb = AddVerb(memory, "split", "Split large pages, now", invocation,
                           [split](Session& session) { return Split(session, *split); });
  AddVmName(verb, &split->name);
  AddRanges(verb, &split->ranges)->required();
  AddSize(verb, "--page-size", &split->page_size, "Into pages of 4KiB (the default) or 2MiB");

  const auto recover = std::make_shared<PageArguments>();
  verb = AddVerb(memory, "recover", "Make pages large again where nothing forbids it", invocation,
                 [recover](Session& session) { return Recover(session, *recover); });
  AddVmName(verb, &recover->name);
  AddRanges(verb, &recover->ranges)->required();

  const auto name = std::make_shared<std::string>();
  verb = AddVerb(memory, "stats", "What the engine has counted for a VM", invocation,
                 [name](Session& session) { return Stats(session, *name); });
  AddVmName(verb, name.get());
}

}  // namespace twinroot::cli
