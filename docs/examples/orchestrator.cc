// A small orchestrator in C++. docs/orchestrator.md shows it piece by piece: a mark such as
// [create] begins a piece, [end] ends it. orchestrator.mjs beside it does and prints the same.
//
//   orchestrator ENDPOINT tour FOLDER   runs a VM, decides its conversions, copies it, deletes it;
//                                       FOLDER has guest.json, what the VM executes
//   orchestrator ENDPOINT watch LOG     follows the events; LOG has each of them once
//
// ENDPOINT: unix:/run/twinroot/hvd.sock, or host:port with ca.pem, client.pem and client.key in the
// folder that the variable TLS names.
#include <google/protobuf/util/json_util.h>
#include <unistd.h>

#include <ctime>

#include "docs/examples/client.h"

namespace orchestrator {
namespace {

// What guest.json asks for, in this order.
constexpr uint64_t kBuffer = 0x400000, kDenied = 0x600000, kLeftAlone = 0x700000, kLast = 0x710000,
                   kQuickly = 0x720000, kTooMuch = 0x800000, kImplicit = 0x730000;
constexpr uint64_t kBufferSize = 1 << 20;

// [create]
// With a policy that leaves each conversion to us, for a second at most.
v1::Vm Create(Hvd& hvd, const v1::AccessProgram& program) {
  v1::CreateVmRequest request;
  request.set_vm_id("guest");
  v1::Vm& vm = *request.mutable_vm();
  vm.set_memory_bytes(16 << 20);
  vm.set_vcpus(1);
  vm.set_backend(v1::BACKEND_SIM);
  *vm.mutable_program() = program;
  v1::ConversionPolicy& policy = *vm.mutable_conversion_policy();
  policy.set_mode(v1::ConversionPolicy::MODE_ORCHESTRATOR);
  policy.mutable_decision_timeout()->set_seconds(1);
  policy.set_on_timeout(v1::ConversionPolicy::ON_TIMEOUT_DENY);

  request.set_validate_only(true);  // would it be taken?
  Call(hvd.vm, &v1::VmService::Stub::CreateVm, request);
  request.set_validate_only(false);
  request.set_request_id(absl::StrFormat("create-guest-%d", std::time(nullptr)));
  const v1::Vm created = Call(hvd.vm, &v1::VmService::Stub::CreateVm, request).vm();
  // As if the answer had been lost on the way: nothing is made twice.
  const v1::Vm again = Call(hvd.vm, &v1::VmService::Stub::CreateVm, request).vm();
  std::printf("created %s, and once more: %s\n", created.name().c_str(),
              again.etag() == created.etag() ? "the same answer" : "ANOTHER ANSWER");
  return created;
}
// [end]

// [decide]
void Decide(Hvd& hvd, const v1::ConversionRequest& asked) {
  v1::ResolveConversionRequest request;
  request.set_vm("guest");
  request.add_ids(asked.id());
  request.set_decision(v1::ResolveConversionRequest::DECISION_APPLY);
  if (asked.gpa() == kDenied) {
    request.set_decision(v1::ResolveConversionRequest::DECISION_DENY);
  } else if (asked.gpa() == kLeftAlone) {
    return;  // its deadline decides, by the policy's on_timeout
  } else if (asked.gpa() == kLast) {
    // From the next request on hvd decides itself, at once, within a quota.
    v1::UpdateVmRequest update;
    update.mutable_vm()->set_name("vms/guest");
    update.mutable_vm()->mutable_conversion_policy()->set_mode(v1::ConversionPolicy::MODE_AUTO);
    update.mutable_vm()->mutable_conversion_policy()->set_max_shared_bytes(2 << 20);
    update.mutable_update_mask()->add_paths("conversion_policy");
    Call(hvd.vm, &v1::VmService::Stub::UpdateVm, update);
  }
  const auto answer = Call(hvd.event, &v1::EventService::Stub::ResolveConversion, request);
  for (const auto& result : answer.results()) {
    // ALREADY_DECIDED and EXPIRED are no errors: somebody, or the clock, was faster.
    if (result.outcome() != v1::ResolveConversionResponse::OUTCOME_DECIDED) {
      std::printf("conversion %d: %s\n", static_cast<int>(result.id()),
                  v1::ResolveConversionResponse::Outcome_Name(result.outcome()).c_str());
    }
  }
}

// What waits now. After a gap, or a start over, nobody else tells.
void DecideWaiting(Hvd& hvd) {
  v1::ListConversionsRequest request;
  request.set_vm("guest");
  const auto answer = Call(hvd.event, &v1::EventService::Stub::ListConversions, request);
  for (const v1::ConversionRequest& asked : answer.conversions()) {
    if (asked.state() == v1::ConversionRequest::STATE_WAITING) Decide(hvd, asked);
  }
}

// False: the guest has got all that it asks for.
bool HandleEvent(Hvd& hvd, const v1::Event& event) {
  if (event.has_gap()) DecideWaiting(hvd);
  if (event.vm() != "guest") return true;
  if (event.has_conversion_requested()) Decide(hvd, event.conversion_requested());
  if (!event.has_conversion()) return true;
  const v1::Conversion& done = event.conversion();
  std::printf("conversion %d of 0x%x +%d %s: %s by %s\n", static_cast<int>(done.id()),
              static_cast<unsigned>(done.gpa()), static_cast<int>(done.size()),
              v1::Conversion::Cause_Name(done.cause()).c_str(),
              v1::Conversion::Decision_Name(done.decision()).c_str(),
              v1::Conversion::Decider_Name(done.decider()).c_str());
  return done.gpa() != kImplicit;
}
// [end]

// [attributes]
void MakePrivateAgain(Hvd& hvd) {
  v1::SetMemoryAttributesRequest request;
  request.set_vm("guest");
  request.set_kind(v1::MEMORY_KIND_PRIVATE);
  for (const uint64_t gpa : {kLast, kQuickly, kTooMuch}) {
    v1::MemoryRange& range = *request.add_ranges();
    range.set_gpa(gpa);
    range.set_size(4096);
  }
  request.set_validate_only(true);  // what would it cost?
  const auto plan = Call(hvd.memory, &v1::MemoryService::Stub::SetMemoryAttributes, request).plan();
  std::printf("it would discard %d bytes\n", static_cast<int>(plan.bytes_discarded()));

  request.set_validate_only(false);
  request.set_request_id(absl::StrFormat("private-%d", std::time(nullptr)));
  const auto answer = Call(hvd.memory, &v1::MemoryService::Stub::SetMemoryAttributes, request);
  using RangeResult = v1::SetMemoryAttributesResponse::RangeResult;
  for (int i = 0; i < answer.per_range_size(); ++i) {  // in the order of the request
    const auto& result = answer.per_range(i);
    const std::string why = result.detail().empty() ? "" : ": " + result.detail();  // refused
    std::printf("0x%x: %s, %d converted%s\n", static_cast<unsigned>(request.ranges(i).gpa()),
                RangeResult::Outcome_Name(result.outcome()).c_str(), result.converted_size(),
                why.c_str());
  }
}
// [end]

// [harvest]
using Ranges = std::vector<v1::MemoryRange>;

uint64_t PagesOf(const Ranges& ranges) {
  uint64_t size = 0;
  for (const v1::MemoryRange& range : ranges) size += range.size();
  return size / 4096;
}

// What was written and is not clean again. A stream that fails has taken nothing.
Ranges Harvest(Hvd& hvd) {
  for (Backoff backoff;;) {
    grpc::ClientContext context;
    v1::HarvestDirtyLogRequest request;
    request.set_vm("guest");
    const auto stream = hvd.dirty_log.HarvestDirtyLog(&context, request);
    Ranges ranges;
    for (v1::HarvestDirtyLogResponse part; stream->Read(&part);) {
      ranges.insert(ranges.end(), part.runs().begin(), part.runs().end());
    }
    const grpc::Status status = stream->Finish();
    if (status.ok()) return ranges;
    if (!backoff.Wait(status)) throw Failed(status);
  }
}

void Clear(Hvd& hvd, const Ranges& ranges) {
  constexpr size_t kMost = 16'384;  // Host.max_ranges
  for (size_t first = 0; first < ranges.size(); first += kMost) {
    v1::ClearDirtyLogRequest request;
    request.set_vm("guest");
    const auto begin = ranges.begin() + first;
    request.mutable_ranges()->Add(begin, begin + std::min(kMost, ranges.size() - first));
    Call(hvd.dirty_log, &v1::DirtyLogService::Stub::ClearDirtyLog, request);
  }
}
// [end]

// [copy]
// What of a range may be read: private memory is given to nobody.
Ranges SharedPartsOf(Hvd& hvd, const v1::MemoryRange& range) {
  grpc::ClientContext context;
  v1::GetMemoryAttributesRequest request;
  request.set_vm("guest");
  *request.mutable_range() = range;
  const auto stream = hvd.memory.GetMemoryAttributes(&context, request);
  Ranges shared;
  for (v1::GetMemoryAttributesResponse part; stream->Read(&part);) {
    for (const v1::MemoryRun& run : part.runs()) {
      if (run.kind() != v1::MEMORY_KIND_SHARED) continue;
      shared.emplace_back();
      shared.back().set_gpa(run.gpa());
      shared.back().set_size(run.size());
    }
  }
  if (const grpc::Status status = stream->Finish(); !status.ok()) throw Failed(status);
  return shared;
}

void Copy(Hvd& hvd, const Ranges& ranges, std::string* target) {
  constexpr uint64_t kMost = 1 << 20;  // Host.max_transfer_bytes
  for (const v1::MemoryRange& range : ranges) {
    for (const v1::MemoryRange& part : SharedPartsOf(hvd, range)) {
      for (uint64_t at = part.gpa(); at < part.gpa() + part.size(); at += kMost) {
        v1::ReadGuestMemoryRequest request;
        request.set_vm("guest");
        request.set_gpa(at);
        request.set_size(std::min(kMost, part.gpa() + part.size() - at));
        target->replace(
            at, request.size(),
            Call(hvd.memory, &v1::MemoryService::Stub::ReadGuestMemory, request).data());
      }
    }
  }
}
// [end]

// [migrate]
// Copies while the guest writes, until little is left to copy while it stands still.
std::string Migrate(Hvd& hvd) {
  constexpr uint64_t kFewPages = 64;
  constexpr int kMostRounds = 30;
  std::string target(16 << 20, '\0');
  v1::EnableDirtyLogRequest enable;
  enable.set_vm("guest");
  enable.set_manual_clear(true);
  enable.set_initially_all_set(true);  // the first harvest is all memory
  enable.set_request_id(absl::StrFormat("log-%d", std::time(nullptr)));
  Call(hvd.dirty_log, &v1::DirtyLogService::Stub::EnableDirtyLog, enable);

  for (int round = 0; round < kMostRounds; ++round) {
    const Ranges dirty = Harvest(hvd);
    if (PagesOf(dirty) <= kFewPages) break;
    Clear(hvd, dirty);  // before the copy: a write during the copy is told next time
    Copy(hvd, dirty, &target);
  }

  v1::PauseVmRequest pause;
  pause.set_name("vms/guest");
  Call(hvd.vm, &v1::VmService::Stub::PauseVm, pause);
  const Ranges rest = Harvest(hvd);
  Copy(hvd, rest, &target);
  std::printf("%d pages were left for the pause\n", static_cast<int>(PagesOf(rest)));
  return target;  // the guest may go on there; a failure before this line harms nothing
}
// [end]

// What the pre-copy must come to: every byte that the guest shares.
void Compare(Hvd& hvd, const std::string& target) {
  std::string truth(target.size(), '\0');
  v1::MemoryRange buffer;
  buffer.set_gpa(kBuffer);
  buffer.set_size(kBufferSize);
  Copy(hvd, {buffer}, &truth);
  const bool same = truth.compare(kBuffer, kBufferSize, target, kBuffer, kBufferSize) == 0;
  const bool written = truth.find_first_not_of('\0') != std::string::npos;
  std::printf("the copy is %s\n", same && written ? "what the guest shares" : "WRONG");
}

// [etag]
// Changes labels by what they are now; if somebody else is faster, looks again.
void CountMigration(Hvd& hvd) {
  for (;;) {
    v1::GetVmRequest get;
    get.set_name("vms/guest");
    v1::UpdateVmRequest update;
    *update.mutable_vm() = Call(hvd.vm, &v1::VmService::Stub::GetVm, get).vm();  // with its etag
    std::string& count = (*update.mutable_vm()->mutable_labels())["migrations"];
    count = std::to_string(std::atoi(count.c_str()) + 1);
    update.mutable_update_mask()->add_paths("labels");
    try {
      Call(hvd.vm, &v1::VmService::Stub::UpdateVm, update);
      std::printf("migrations: %s\n", count.c_str());
      return;
    } catch (const Failed& failed) {
      if (ReasonOf(failed.status) != "ETAG_MISMATCH") throw;
    }
  }
}
// [end]

// [errors]
template <typename Function>
void Refused(Function call) {
  try {
    call();
    std::printf("IT WAS NOT REFUSED\n");
  } catch (const Failed& failed) {
    std::printf("refused: %s\n", Explain(failed.status).c_str());
  }
}

void Mistakes(Hvd& hvd, const std::string& old_etag) {
  Refused([&] {
    v1::GetVmRequest request;
    request.set_name("vms/nobody");
    Call(hvd.vm, &v1::VmService::Stub::GetVm, request);
  });
  Refused([&] {
    v1::StartVmRequest request;  // it runs already
    request.set_name("vms/guest");
    Call(hvd.vm, &v1::VmService::Stub::StartVm, request);
  });
  Refused([&] {
    v1::SetMemoryAttributesRequest request;
    request.set_vm("guest");
    request.set_kind(v1::MEMORY_KIND_SHARED);
    request.add_ranges()->set_size(4096);
    request.add_ranges()->set_size(4096);
    request.mutable_ranges(1)->set_gpa(0x1234);  // not a multiple of 4096
    Call(hvd.memory, &v1::MemoryService::Stub::SetMemoryAttributes, request);
  });
  Refused([&] {
    v1::UpdateVmRequest request;
    request.mutable_vm()->set_name("vms/guest");
    request.mutable_vm()->set_etag(old_etag);  // of when it was made
    request.mutable_update_mask()->add_paths("labels");
    Call(hvd.vm, &v1::VmService::Stub::UpdateVm, request);
  });
}
// [end]

void Tour(Hvd& hvd, const std::string& folder) {
  v1::AccessProgram program;
  const auto parsed =
      google::protobuf::util::JsonStringToMessage(FileText(folder, "guest.json"), &program);
  if (!parsed.ok()) throw std::runtime_error("guest.json: " + parsed.ToString());
  // [run]
  std::string cursor;
  ListVms(hvd, &cursor);  // before anything happens, so that nothing of it is missed
  const v1::Vm created = Create(hvd, program);
  v1::StartVmRequest start;
  start.set_name("vms/guest");
  start.set_request_id(absl::StrFormat("start-%d", std::time(nullptr)));
  Call(hvd.vm, &v1::VmService::Stub::StartVm, start);
  Watch(
      hvd, cursor, [&](const v1::Event& event) { return HandleEvent(hvd, event); },
      [&] {
        ListVms(hvd, &cursor);
        DecideWaiting(hvd);
        return cursor;
      });
  // [end]
  MakePrivateAgain(hvd);
  Compare(hvd, Migrate(hvd));
  CountMigration(hvd);
  Mistakes(hvd, created.etag());
  v1::DeleteVmRequest remove;
  remove.set_name("vms/guest");
  remove.set_request_id(absl::StrFormat("delete-%d", std::time(nullptr)));
  Call(hvd.vm, &v1::VmService::Stub::DeleteVm, remove);
  std::printf("deleted\n");
}

// [log]
// A line for each event: its cursor, its VM, its kind. The line is the effect and the cursor in one
// write, so that whoever is killed has done each event once.
class Log {
 public:
  explicit Log(const std::string& path) {
    std::ostringstream before;
    before << std::ifstream(path).rdbuf();
    const std::string text = before.str();
    const size_t whole = text.rfind('\n') + 1;  // a kill may have cut the last line
    if (whole < text.size() && truncate(path.c_str(), whole) != 0) throw std::runtime_error(path);
    if (whole > 0) {
      const size_t last = whole >= 2 ? text.rfind('\n', whole - 2) + 1 : 0;
      cursor_ = text.substr(last, text.find(' ', last) - last);
    }
    file_.open(path, std::ios::app);
  }
  // Of the last line; empty at first.
  const std::string& cursor() const { return cursor_; }

  void Add(const std::string& cursor, const std::string& what) {
    file_ << cursor + " " + what + "\n" << std::flush;
    if (!file_) throw std::runtime_error("the log cannot be written");
    cursor_ = cursor;
  }

 private:
  std::string cursor_;
  std::ofstream file_;
};

std::string KindOf(const v1::Event& event) {
  const auto* field = v1::Event::descriptor()->FindFieldByNumber(event.kind_case());
  return field == nullptr ? "of a later version" : field->name();
}

void Follow(Hvd& hvd, const std::string& path) {
  Log log(path);
  const auto start_over = [&] {
    std::string cursor;
    const size_t vms = ListVms(hvd, &cursor).size();
    log.Add(cursor, absl::StrFormat("- start over with %d VMs", static_cast<int>(vms)));
    return cursor;
  };
  if (log.cursor().empty()) start_over();
  Watch(
      hvd, log.cursor(),
      [&](const v1::Event& event) {
        if (event.has_gap()) {
          log.Add(event.cursor(),
                  absl::StrFormat("- gap of %d", static_cast<int>(event.gap().count())));
        } else {
          log.Add(event.cursor(), (event.vm().empty() ? "-" : event.vm()) + " " + KindOf(event));
        }
        return true;
      },
      start_over);
}
// [end]

}  // namespace
}  // namespace orchestrator

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  if (arguments.size() != 3 || (arguments[1] != "tour" && arguments[1] != "watch")) {
    std::fprintf(stderr, "usage: orchestrator ENDPOINT tour FOLDER | ENDPOINT watch LOG\n");
    return 2;
  }
  std::setvbuf(stdout, nullptr, _IOLBF, BUFSIZ);
  orchestrator::Hvd hvd(orchestrator::Connect(arguments[0]));
  try {
    if (arguments[1] == "tour") {
      orchestrator::Tour(hvd, arguments[2]);
    } else {
      orchestrator::Follow(hvd, arguments[2]);
    }
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "orchestrator: %s\n", error.what());
    return 1;
  }
}
