#include "tests/soak/crowd.h"

#include <algorithm>
#include <set>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tests/soak/guests.h"

namespace twinroot::soak {
namespace {

using Clock = std::chrono::steady_clock;
using DirtyLog = v1::DirtyLogService::Stub;
using Memory = v1::MemoryService::Stub;
using Vms = v1::VmService::Stub;

// What a call may be refused for that knows nothing of its VM's state: daemon/reasons.h. Anything
// else is a fault.
bool MayBe(const std::string& reason) {
  static const std::set<std::string> reasons = {
      "WRONG_STATE",       "NO_SUCH_MEMSLOT", "MEMSLOT_EXISTS",       "PRIVATE_MEMORY",
      "DIRTY_LOG_OFF",     "DIRTY_LOG_ON",    "DIRTY_LOG_NOT_MANUAL", "DIRTY_LOG_UNSUPPORTED",
      "TOO_MUCH_MEMORY",   "VCPU_WAITS",      "NOT_ON_THIS_BACKEND",  "DENIAL_UNSUPPORTED",
      "NX_HUGE_PAGES_OFF",
  };
  return reasons.count(reason) != 0;
}

}  // namespace

void Crowd::Tally::Add(const Tally& other) {
  done += other.done;
  refused += other.refused;
  sum += other.sum;
  longest = std::max(longest, other.longest);
}

Crowd::Crowd(Daemon* daemon, std::string prefix, int vms, int busy,
             std::vector<v1::Backend> backends, uint64_t seed)
    : daemon_(daemon), backends_(std::move(backends)), random_(seed) {
  for (int i = 0; i < vms; ++i) {
    vms_.push_back(absl::StrCat(prefix, "-", i));
    if (i < busy) busy_.insert(vms_.back());
  }
}

void Crowd::Count(const char* name, const grpc::Status& status, Clock::time_point begin) {
  Tally one{.done = 1};
  one.sum = one.longest = Clock::now() - begin;
  if (!status.ok()) {
    Must(MayBe(NameOf(status)),
         absl::StrCat(name, ": ", NameOf(status), ": ", status.error_message()));
    one.refused = 1;
  }
  counts_[name].Add(one);
}

template <typename Stub, typename Request, typename Response>
void Crowd::Make(const char* name, Stub* stub,
                 grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                 const Request& request, Response* response) {
  const auto begin = Clock::now();
  Count(name, Call(stub, method, request, response), begin);
}

template <typename Response, typename Stub, typename Request>
void Crowd::MakeStream(const char* name, Stub* stub,
                       std::unique_ptr<grpc::ClientReader<Response>> (Stub::*method)(
                           grpc::ClientContext*, const Request&),
                       const Request& request) {
  const auto begin = Clock::now();
  Count(name, Stream<Response>(stub, method, request, [](const Response&) {}), begin);
}

v1::MemoryRange Crowd::SomeRange(uint64_t unit) {
  v1::MemoryRange range;
  const uint64_t units = kMemory / unit;
  const uint64_t first = Below(units);
  range.set_gpa(first * unit);
  range.set_size((1 + Below(std::min<uint64_t>(units - first, 1024))) * unit);
  return range;
}

void Crowd::Create(const std::string& vm) {
  v1::CreateVmRequest request;
  v1::CreateVmResponse response;
  request.set_vm_id(vm);
  *request.mutable_vm() = RandomVm(backends_[Below(backends_.size())],
                                   busy_.count(vm) != 0 ? Guest::kBusy : Guest::kResting, random_);
  Make("CreateVm", daemon_->vms.get(), &Vms::CreateVm, request, &response);
  ++lives_;
  // Now and then it is disturbed before it runs.
  if (Below(4) == 0) return;
  v1::StartVmRequest start;
  v1::StartVmResponse started;
  start.set_name("vms/" + vm);
  Make("StartVm", daemon_->vms.get(), &Vms::StartVm, start, &started);
}

void Crowd::Delete(const std::string& vm) {
  v1::DeleteVmRequest request;
  v1::DeleteVmResponse response;
  request.set_name("vms/" + vm);
  Make("DeleteVm", daemon_->vms.get(), &Vms::DeleteVm, request, &response);
}

void Crowd::CreateAll() {
  for (const std::string& vm : vms_) Create(vm);
}

void Crowd::DeleteAll() {
  for (const std::string& vm : vms_) Delete(vm);
}

void Crowd::DecideAll(const std::string& vm) {
  v1::ListConversionsRequest list;
  v1::ListConversionsResponse waiting;
  list.set_vm(vm);
  Make("ListConversions", daemon_->events.get(), &v1::EventService::Stub::ListConversions, list,
       &waiting);
  v1::ResolveConversionRequest decide;
  v1::ResolveConversionResponse decided;
  decide.set_vm(vm);
  decide.set_decision(v1::ResolveConversionRequest::DECISION_APPLY);
  for (const auto& conversion : waiting.conversions()) {
    if (conversion.state() == v1::ConversionRequest::STATE_WAITING) {
      decide.add_ids(conversion.id());
    }
  }
  if (decide.ids().empty()) return;
  Make("ResolveConversion", daemon_->events.get(), &v1::EventService::Stub::ResolveConversion,
       decide, &decided);
}

void Crowd::Live(const std::string& vm) {
  const std::string name = "vms/" + vm;
  switch (Below(6)) {
    case 0: {
      v1::PauseVmRequest request;
      v1::PauseVmResponse response;
      request.set_name(name);
      return Make("PauseVm", daemon_->vms.get(), &Vms::PauseVm, request, &response);
    }
    case 1: {
      v1::ResumeVmRequest request;
      v1::ResumeVmResponse response;
      request.set_name(name);
      return Make("ResumeVm", daemon_->vms.get(), &Vms::ResumeVm, request, &response);
    }
    case 2: {
      v1::StartVmRequest request;
      v1::StartVmResponse response;
      request.set_name(name);
      return Make("StartVm", daemon_->vms.get(), &Vms::StartVm, request, &response);
    }
    case 3: {
      v1::UpdateVmRequest request;
      v1::UpdateVmResponse response;
      request.mutable_vm()->set_name(name);
      (*request.mutable_vm()->mutable_labels())["round"] = absl::StrCat(Below(100));
      request.mutable_update_mask()->add_paths("labels");
      return Make("UpdateVm", daemon_->vms.get(), &Vms::UpdateVm, request, &response);
    }
    case 4: {
      v1::StopVmRequest request;
      v1::StopVmResponse response;
      request.set_name(name);
      Make("StopVm", daemon_->vms.get(), &Vms::StopVm, request, &response);
      [[fallthrough]];
    }
    default:
      Delete(vm);
      Create(vm);
  }
}

void Crowd::Convert(const std::string& vm) {
  v1::SetMemoryAttributesRequest request;
  v1::SetMemoryAttributesResponse response;
  request.set_vm(vm);
  *request.add_ranges() = SomeRange(Below(4) == 0 ? kHugePage : kPage);
  request.set_kind(Below(2) == 0 ? v1::MEMORY_KIND_SHARED : v1::MEMORY_KIND_PRIVATE);
  request.set_atomic(Below(2) == 0);
  request.set_validate_only(Below(4) == 0);
  Make("SetMemoryAttributes", daemon_->memory.get(), &Memory::SetMemoryAttributes, request,
       &response);
}

void Crowd::Harvest(const std::string& vm) {
  v1::HarvestDirtyLogRequest request;
  request.set_vm(vm);
  MakeStream<v1::HarvestDirtyLogResponse>("HarvestDirtyLog", daemon_->dirty_log.get(),
                                          &DirtyLog::HarvestDirtyLog, request);
}

void Crowd::Log(const std::string& vm) {
  v1::EnableDirtyLogRequest enable;
  v1::EnableDirtyLogResponse enabled;
  enable.set_vm(vm);
  enable.set_mode(static_cast<v1::EnableDirtyLogRequest::Mode>(1 + Below(3)));
  enable.set_manual_clear(Below(2) == 0);
  enable.set_initially_all_set(enable.manual_clear() && Below(2) == 0);
  enable.set_no_eager_split(Below(2) == 0);
  Make("EnableDirtyLog", daemon_->dirty_log.get(), &DirtyLog::EnableDirtyLog, enable, &enabled);
  for (uint64_t rounds = Below(5); rounds > 0; --rounds) {
    Harvest(vm);
    v1::ClearDirtyLogRequest clear;
    v1::ClearDirtyLogResponse cleared;
    clear.set_vm(vm);
    *clear.add_ranges() = SomeRange(kPage);
    if (enable.manual_clear()) {
      Make("ClearDirtyLog", daemon_->dirty_log.get(), &DirtyLog::ClearDirtyLog, clear, &cleared);
    }
  }
  // Now and then it stays, under whatever comes next.
  if (Below(3) == 0) return;
  v1::DisableDirtyLogRequest disable;
  v1::DisableDirtyLogResponse disabled;
  disable.set_vm(vm);
  Make("DisableDirtyLog", daemon_->dirty_log.get(), &DirtyLog::DisableDirtyLog, disable, &disabled);
}

void Crowd::Pages(const std::string& vm) {
  switch (Below(4)) {
    case 0: {
      v1::RecoverPagesRequest request;
      v1::RecoverPagesResponse response;
      request.set_vm(vm);
      *request.add_ranges() = SomeRange(kHugePage);
      return Make("RecoverPages", daemon_->memory.get(), &Memory::RecoverPages, request, &response);
    }
    case 1: {
      v1::RecoverNxPagesRequest request;
      v1::RecoverNxPagesResponse response;
      request.set_vm(vm);
      return Make("RecoverNxPages", daemon_->memory.get(), &Memory::RecoverNxPages, request,
                  &response);
    }
    case 2: {
      v1::AgePagesRequest request;
      request.set_vm(vm);
      return MakeStream<v1::AgePagesResponse>("AgePages", daemon_->memory.get(), &Memory::AgePages,
                                              request);
    }
    default: {
      v1::SplitPagesRequest request;
      v1::SplitPagesResponse response;
      request.set_vm(vm);
      *request.add_ranges() = SomeRange(kPage);
      return Make("SplitPages", daemon_->dirty_log.get(), &DirtyLog::SplitPages, request,
                  &response);
    }
  }
}

void Crowd::Slots(const std::string& vm) {
  const uint64_t place = kAdded + Below(4) * kHugePage;
  switch (Below(4)) {
    case 0: {
      v1::RemoveMemslotRequest request;
      v1::RemoveMemslotResponse response;
      request.set_vm(vm);
      request.set_gpa(place);
      return Make("RemoveMemslot", daemon_->memory.get(), &Memory::RemoveMemslot, request,
                  &response);
    }
    case 1: {
      v1::MoveMemslotRequest request;
      v1::MoveMemslotResponse response;
      request.set_vm(vm);
      request.set_gpa(place);
      request.set_new_gpa(kAdded + Below(4) * kHugePage);
      return Make("MoveMemslot", daemon_->memory.get(), &Memory::MoveMemslot, request, &response);
    }
    default: {
      v1::AddMemslotRequest request;
      v1::AddMemslotResponse response;
      request.set_vm(vm);
      request.mutable_range()->set_gpa(place);
      request.mutable_range()->set_size((1 + Below(2)) * kHugePage);
      return Make("AddMemslot", daemon_->memory.get(), &Memory::AddMemslot, request, &response);
    }
  }
}

void Crowd::Look(const std::string& vm) {
  const uint64_t gpa = kUsed + Below(kUsedEnd - kUsed);
  switch (Below(4)) {
    case 0: {
      v1::TranslateRequest request;
      v1::TranslateResponse response;
      request.set_vm(vm);
      request.set_gpa(gpa);
      return Make("Translate", daemon_->memory.get(), &Memory::Translate, request, &response);
    }
    case 1: {
      v1::ReadGuestMemoryRequest request;
      v1::ReadGuestMemoryResponse response;
      request.set_vm(vm);
      request.set_gpa(gpa);
      request.set_size(1 + Below(100));
      return Make("ReadGuestMemory", daemon_->memory.get(), &Memory::ReadGuestMemory, request,
                  &response);
    }
    case 2: {
      v1::DumpTablesRequest request;
      request.set_vm(vm);
      return MakeStream<v1::DumpTablesResponse>("DumpTables", daemon_->memory.get(),
                                                &Memory::DumpTables, request);
    }
    default: {
      v1::GetMemoryAttributesRequest request;
      request.set_vm(vm);
      uint64_t bytes = 0;
      const auto begin = Clock::now();
      const grpc::Status status = Stream<v1::GetMemoryAttributesResponse>(
          daemon_->memory.get(), &Memory::GetMemoryAttributes, request,
          [&](const v1::GetMemoryAttributesResponse& message) {
            for (const v1::MemoryRun& run : message.runs()) bytes += run.size();
          });
      Count("GetMemoryAttributes", status, begin);
      Must(!status.ok() || bytes >= kMemory, "GetMemoryAttributes has not told of all memory");
    }
  }
}

void Crowd::Disturb() {
  const std::string& vm = vms_[Below(vms_.size())];
  switch (Below(8)) {
    case 0:
    case 1:
      return Live(vm);
    case 2:
      return Convert(vm);
    case 3:
      return Log(vm);
    case 4:
      return Pages(vm);
    case 5:
      return Slots(vm);
    case 6:
      return DecideAll(vm);
    default:
      return Look(vm);
  }
}

uint64_t Crowd::Faults(const std::string& vm) {
  v1::GetMemoryStatsRequest request;
  v1::GetMemoryStatsResponse response;
  request.set_vm(vm);
  Must(Call(daemon_->memory.get(), &Memory::GetMemoryStats, request, &response), "GetMemoryStats");
  const auto& faults = response.stats().faults();
  return faults.fixed() + faults.spurious() + faults.retry() + faults.memory();
}

void Crowd::ExpectMoves() {
  // A guest whose pages are all mapped makes no fault: take its pages away, and see them come back.
  for (const std::string& vm : vms_) {
    v1::DisableDirtyLogRequest no_log;
    v1::DisableDirtyLogResponse off;
    no_log.set_vm(vm);
    Make("DisableDirtyLog", daemon_->dirty_log.get(), &DirtyLog::DisableDirtyLog, no_log, &off);
    v1::ResumeVmRequest resume;
    v1::ResumeVmResponse resumed;
    resume.set_name("vms/" + vm);
    Make("ResumeVm", daemon_->vms.get(), &Vms::ResumeVm, resume, &resumed);
    v1::GetVmRequest get;
    v1::GetVmResponse got;
    get.set_name("vms/" + vm);
    Make("GetVm", daemon_->vms.get(), &Vms::GetVm, get, &got);
    if (got.vm().state() != v1::Vm::STATE_RUNNING) continue;  // made and never started, or stopped
    const uint64_t before = Faults(vm);
    const auto end = Clock::now() + kPatience;
    while (Faults(vm) == before) {
      Must(Clock::now() < end, vm + " is stuck");
      DecideAll(vm);
      v1::SetMemoryAttributesRequest request;
      v1::SetMemoryAttributesResponse response;
      request.set_vm(vm);
      request.add_ranges()->set_gpa(kUsed);
      request.mutable_ranges(0)->set_size(kUsedEnd - kUsed);
      request.set_kind(Below(2) == 0 ? v1::MEMORY_KIND_SHARED : v1::MEMORY_KIND_PRIVATE);
      Make("SetMemoryAttributes", daemon_->memory.get(), &Memory::SetMemoryAttributes, request,
           &response);
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
      Make("GetVm", daemon_->vms.get(), &Vms::GetVm, get, &got);
      if (got.vm().state() == v1::Vm::STATE_STOPPED) break;  // by a quota, or what it asked for
    }
  }
}

}  // namespace twinroot::soak
