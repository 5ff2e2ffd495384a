#include "daemon/rpc/convert.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "daemon/host/event_words.h"
#include "daemon/reasons.h"
#include "daemon/rpc/checks.h"
#include "daemon/rpc/ept_words.h"
#include "daemon/rpc/status.h"
#include "daemon/rpc/vm_choices.h"
#include "daemon/vcpu/program/compiler.h"

namespace twinroot::rpc {
namespace {

constexpr uint64_t kMemoryUnit = uint64_t{2} << 20;
constexpr size_t kMaxCmdline = 2047;
constexpr char kImages[] = "images/";
constexpr size_t kSha256Digits = 64;
constexpr size_t kMaxLabels = 64;
constexpr size_t kMaxLabelKey = 63;
constexpr size_t kMaxLabelValue = 256;

absl::Status CheckImageName(const std::string& field, const std::string& name) {
  bool good = absl::StartsWith(name, kImages) && name.size() == sizeof(kImages) - 1 + kSha256Digits;
  for (size_t i = sizeof(kImages) - 1; good && i < name.size(); ++i) {
    good = absl::ascii_isdigit(name[i]) || (name[i] >= 'a' && name[i] <= 'f');
  }
  if (good) return absl::OkStatus();
  return FieldError(field, "give \"images/{sha256}\" as UploadImage answered it",
                    reason::kInvalidField);
}

constexpr uint32_t kMaxQuota = 1'000'000;

absl::StatusOr<absl::Duration> PolicyTimeOf(const char* field,
                                            const google::protobuf::Duration& time) {
  return CheckDuration(absl::StrCat("vm.conversion_policy.", field), time, absl::Milliseconds(1),
                       absl::Hours(24));
}

absl::Status ReadQuotas(const v1::ConversionPolicy& policy, host::ConversionPolicy& checked) {
  const auto bad = [](const char* field, const std::string& what) {
    return FieldError(absl::StrCat("vm.conversion_policy.", field), what, reason::kInvalidField);
  };
  const std::tuple<const char*, uint32_t, uint32_t*> counts[] = {
      {"max_conversions_per_second", policy.max_conversions_per_second(),
       &checked.max_conversions_per_second},
      {"conversion_burst", policy.conversion_burst(), &checked.conversion_burst},
      {"ping_pong_limit", policy.ping_pong_limit(), &checked.ping_pong_limit}};
  for (const auto& [field, value, out] : counts) {
    if (value > kMaxQuota) {
      return bad(field, absl::StrCat(value, " is more than ", kMaxQuota, "; 0 means no bound"));
    }
    *out = value;
  }
  if (checked.conversion_burst != 0 && checked.max_conversions_per_second == 0) {
    return bad("conversion_burst", "give max_conversions_per_second, too: a burst is above a rate");
  }
  if (policy.has_ping_pong_window()) {
    if (checked.ping_pong_limit == 0) {
      return bad("ping_pong_window", "give ping_pong_limit, too: it is counted in this window");
    }
    auto window = PolicyTimeOf("ping_pong_window", policy.ping_pong_window());
    if (!window.ok()) return window.status();
    checked.ping_pong_window = *window;
  }
  checked.max_shared_bytes = policy.max_shared_bytes();
  return absl::OkStatus();
}

absl::StatusOr<host::ConversionPolicy> PolicyOf(const v1::ConversionPolicy& policy) {
  host::ConversionPolicy checked;
  switch (policy.mode()) {
    case v1::ConversionPolicy::MODE_UNSPECIFIED:
    case v1::ConversionPolicy::MODE_AUTO:
      checked.mode = host::PolicyMode::kAuto;
      break;
    case v1::ConversionPolicy::MODE_ORCHESTRATOR:
      checked.mode = host::PolicyMode::kOrchestrator;
      break;
    case v1::ConversionPolicy::MODE_DENY:
      checked.mode = host::PolicyMode::kDeny;
      break;
    default:
      return FieldError("vm.conversion_policy.mode",
                        absl::StrCat(policy.mode(), " is no mode: use AUTO, ORCHESTRATOR or DENY"),
                        reason::kInvalidField);
  }
  if (policy.has_decision_timeout()) {
    auto timeout = PolicyTimeOf("decision_timeout", policy.decision_timeout());
    if (!timeout.ok()) return timeout.status();
    checked.decision_timeout = *timeout;
  }
  switch (policy.on_timeout()) {
    case v1::ConversionPolicy::ON_TIMEOUT_UNSPECIFIED:
    case v1::ConversionPolicy::ON_TIMEOUT_DENY:
      checked.on_timeout = host::OnTimeout::kDeny;
      break;
    case v1::ConversionPolicy::ON_TIMEOUT_APPLY:
      checked.on_timeout = host::OnTimeout::kApply;
      break;
    default:
      return FieldError("vm.conversion_policy.on_timeout",
                        absl::StrCat(policy.on_timeout(), " is no choice: use DENY or APPLY"),
                        reason::kInvalidField);
  }
  if (absl::Status status = ReadQuotas(policy, checked); !status.ok()) return status;
  return checked;
}

absl::StatusOr<host::BackendKind> BackendOf(v1::Backend backend) {
  switch (backend) {
    case v1::BACKEND_UNSPECIFIED:
    case v1::BACKEND_AUTO:
      return host::BackendKind::kAuto;
    case v1::BACKEND_KVM:
      return host::BackendKind::kKvm;
    case v1::BACKEND_SIM:
      return host::BackendKind::kSim;
    case v1::BACKEND_KVM_NATIVE:
      return host::BackendKind::kKvmNative;
    default:
      return FieldError("vm.backend",
                        absl::StrCat(backend, " is no backend: use AUTO, KVM, KVM_NATIVE or SIM"),
                        reason::kInvalidField);
  }
}

absl::StatusOr<host::Labels> LabelsOf(
    const google::protobuf::Map<std::string, std::string>& labels) {
  if (labels.size() > kMaxLabels) {
    return FieldError("vm.labels",
                      absl::StrCat(labels.size(), " labels; a VM has at most ", kMaxLabels),
                      reason::kInvalidField);
  }
  for (const auto& [key, value] : labels) {
    const bool good = std::all_of(key.begin(), key.end(), [](unsigned char c) {
      return absl::ascii_islower(c) || absl::ascii_isdigit(c) || c == '.' || c == '_' || c == '/' ||
             c == '-';
    });
    if (!good || key.empty() || key.size() > kMaxLabelKey) {
      return FieldError("vm.labels",
                        absl::StrCat("a key has 1 to ", kMaxLabelKey,
                                     " characters of a-z, 0-9, '.', '_', '/' and '-'"),
                        reason::kInvalidField);
    }
    if (value.size() > kMaxLabelValue) {
      return FieldError(absl::StrCat("vm.labels[", key, "]"),
                        absl::StrCat(value.size(), " bytes; at most ", kMaxLabelValue),
                        reason::kInvalidField);
    }
  }
  return host::Labels(labels.begin(), labels.end());
}

v1::ConversionPolicy::Mode ToProto(host::PolicyMode mode) {
  switch (mode) {
    case host::PolicyMode::kAuto:
      return v1::ConversionPolicy::MODE_AUTO;
    case host::PolicyMode::kOrchestrator:
      return v1::ConversionPolicy::MODE_ORCHESTRATOR;
    case host::PolicyMode::kDeny:
      return v1::ConversionPolicy::MODE_DENY;
  }
  return v1::ConversionPolicy::MODE_UNSPECIFIED;
}

}  // namespace

v1::Backend ToProto(host::BackendKind backend) {
  switch (backend) {
    case host::BackendKind::kAuto:
      return v1::BACKEND_AUTO;
    case host::BackendKind::kKvm:
      return v1::BACKEND_KVM;
    case host::BackendKind::kSim:
      return v1::BACKEND_SIM;
    case host::BackendKind::kKvmNative:
      return v1::BACKEND_KVM_NATIVE;
  }
  return v1::BACKEND_UNSPECIFIED;
}

v1::MemoryKind ToProto(mmu::MemoryKind kind) {
  return kind == mmu::MemoryKind::kPrivate ? v1::MEMORY_KIND_PRIVATE : v1::MEMORY_KIND_SHARED;
}

void ToProto(const host::VmSettings& settings, v1::Vm* out) {
  v1::ConversionPolicy* policy = out->mutable_conversion_policy();
  policy->set_mode(ToProto(settings.policy.mode));
  host::SetDuration(settings.policy.decision_timeout, *policy->mutable_decision_timeout());
  policy->set_on_timeout(settings.policy.on_timeout == host::OnTimeout::kDeny
                             ? v1::ConversionPolicy::ON_TIMEOUT_DENY
                             : v1::ConversionPolicy::ON_TIMEOUT_APPLY);
  policy->set_max_shared_bytes(settings.policy.max_shared_bytes);
  policy->set_max_conversions_per_second(settings.policy.max_conversions_per_second);
  policy->set_conversion_burst(settings.policy.conversion_burst);
  if (settings.policy.ping_pong_limit != 0) {
    policy->set_ping_pong_limit(settings.policy.ping_pong_limit);
    host::SetDuration(settings.policy.ping_pong_window, *policy->mutable_ping_pong_window());
  }
  out->mutable_labels()->clear();
  out->mutable_labels()->insert(settings.labels.begin(), settings.labels.end());
  out->mutable_placement()->set_cpu_weight(settings.cpu_share.weight);
  out->mutable_placement()->set_max_millicpus(settings.cpu_share.max_millicpus);
}

void ToProto(const host::VmSpec& spec, v1::Vm* out) {
  out->set_name(ResourceNameOf(spec.name));
  out->set_memory_bytes(spec.memory_bytes);
  out->set_vcpus(spec.vcpus);
  out->set_image(spec.image_name);
  out->set_cmdline(spec.cmdline);
  out->set_backend(ToProto(spec.backend));
  ToProto(static_cast<const host::VmSettings&>(spec), out);
  out->mutable_boot()->set_cpl(static_cast<uint32_t>(spec.cpl));
  out->mutable_boot()->set_initrd(spec.initrd_name);
  out->set_nx_huge_pages(spec.nx_huge_pages ? v1::Vm::NX_HUGE_PAGES_ON : v1::Vm::NX_HUGE_PAGES_OFF);
  out->mutable_placement()->mutable_cpus()->Assign(spec.cpus.begin(), spec.cpus.end());
  out->set_mmu(spec.mmu == mmu::MmuMode::kShadow ? v1::Vm::MMU_SHADOW : v1::Vm::MMU_TDP);
  out->set_debug(spec.tells_registers ? v1::Vm::DEBUG_REGISTERS : v1::Vm::DEBUG_OFF);
  out->set_state(v1::Vm::STATE_DEFINED);
}

void ToProto(const host::Vm& vm, v1::Vm* out) {
  // First, so that the etag is never newer than what stands beside it.
  const host::VmStatus status = vm.status();
  ToProto(vm.spec(), out);
  out->set_backend(ToProto(vm.backend()));
  ToProto(vm.settings(), out);
  out->set_state(host::WordOf(status.state));
  if (status.exit_code.has_value()) out->set_exit_code(*status.exit_code);
  out->set_stop_reason(status.stop_reason);
  out->set_stop_message(status.stop_message);
  out->set_etag(EtagOf(status.version));
  host::SetTimestamp(vm.create_time(), *out->mutable_create_time());
}

void ToProto(const mmu::Translation& translation, v1::TranslateResponse* out) {
  out->set_outcome(translation.mapped ? v1::TranslateResponse::OUTCOME_MAPPED
                                      : v1::TranslateResponse::OUTCOME_NOT_MAPPED);
  for (const mmu::TranslationStep& step : translation.steps) {
    v1::TranslateResponse::Step* shown = out->add_steps();
    shown->set_level(static_cast<uint32_t>(step.level));
    shown->set_index(static_cast<uint32_t>(step.index));
    shown->set_entry_hpa(step.entry_hpa.value);
    shown->set_entry(step.entry);
    shown->set_meaning(EptEntryInWords(mmu::EptEntry(step.entry), step.level));
  }
  if (translation.mapped) {
    out->set_hpa(translation.hpa.value);
    out->set_page_size(mmu::BytesPerEntry(translation.level));
    out->set_access(AccessInWords(translation.access));
  }
  out->set_kind(ToProto(translation.attribute));
  out->set_ept_pointer(translation.ept_pointer.raw());
  ToProto(translation.why, out->mutable_why());
}

void ToProto(const mmu::TableImage& table, v1::DumpTablesResponse::Table* out) {
  out->set_hpa(table.hpa.value);
  out->set_level(static_cast<uint32_t>(table.level));
  out->set_gpa(table.first.value << mmu::kPageShift);
  // x86-64 is little-endian, and so are the entries.
  out->set_entries(table.entries.data(), sizeof(table.entries));
}

void ToProto(const mmu::AttributeRun& run, v1::MemoryRun* out) {
  out->set_gpa(run.range.first.value << mmu::kPageShift);
  out->set_size(run.range.count << mmu::kPageShift);
  out->set_kind(ToProto(run.kind));
  out->set_denied(DeniedInWords(run.denied));
}

void ToProto(const host::HostCheck& check, v1::Host::Check* out) {
  out->set_name(check.name);
  out->set_detail(check.detail);
  switch (check.result) {
    case host::HostCheck::Result::kOk:
      out->set_result(v1::Host::Check::RESULT_OK);
      break;
    case host::HostCheck::Result::kMissing:
      out->set_result(v1::Host::Check::RESULT_MISSING);
      break;
    case host::HostCheck::Result::kFallback:
      out->set_result(v1::Host::Check::RESULT_FALLBACK);
      break;
  }
}

absl::StatusOr<mmu::MemoryKind> KindOf(const std::string& field, v1::MemoryKind kind) {
  switch (kind) {
    case v1::MEMORY_KIND_PRIVATE:
      return mmu::MemoryKind::kPrivate;
    case v1::MEMORY_KIND_SHARED:
      return mmu::MemoryKind::kShared;
    case v1::MEMORY_KIND_UNSPECIFIED:
      return FieldError(field, "say PRIVATE or SHARED", reason::kMissingField);
    default:
      return FieldError(field, absl::StrCat(kind, " is no kind: use PRIVATE or SHARED"),
                        reason::kInvalidField);
  }
}

absl::StatusOr<host::VmSettings> SettingsOf(const v1::Vm& vm) {
  host::VmSettings settings;
  auto policy = PolicyOf(vm.conversion_policy());
  if (!policy.ok()) return policy.status();
  settings.policy = *policy;
  auto labels = LabelsOf(vm.labels());
  if (!labels.ok()) return labels.status();
  settings.labels = *std::move(labels);
  auto cpu_share = CpuShareOf(vm.placement());
  if (!cpu_share.ok()) return cpu_share.status();
  settings.cpu_share = *cpu_share;
  return settings;
}

absl::StatusOr<host::VmSpec> SpecOf(const std::string& bare_name, const v1::Vm& vm) {
  host::VmSpec spec;
  spec.name = bare_name;
  if (vm.memory_bytes() == 0 || vm.memory_bytes() % kMemoryUnit != 0 ||
      vm.memory_bytes() > host::kMaxMemoryBytes) {
    return FieldError("vm.memory_bytes",
                      absl::StrCat(vm.memory_bytes(),
                                   " is not a multiple of 2 MiB (2097152) from 2 MiB to 64 GiB"),
                      reason::kInvalidField);
  }
  spec.memory_bytes = vm.memory_bytes();
  if (vm.vcpus() == 0 || vm.vcpus() > host::kMaxVcpus) {
    return FieldError("vm.vcpus",
                      absl::StrCat(vm.vcpus(), " is not within 1 and ", host::kMaxVcpus),
                      reason::kInvalidField);
  }
  spec.vcpus = vm.vcpus();
  if (!vm.image().empty()) {
    if (absl::Status status = CheckImageName("vm.image", vm.image()); !status.ok()) return status;
    spec.image_name = vm.image();
  }
  if (const std::string& initrd = vm.boot().initrd(); !initrd.empty()) {
    if (absl::Status status = CheckImageName("vm.boot.initrd", initrd); !status.ok()) return status;
    spec.initrd_name = initrd;
  }
  if (vm.cmdline().size() > kMaxCmdline) {
    return FieldError("vm.cmdline",
                      absl::StrCat(vm.cmdline().size(), " bytes; at most ", kMaxCmdline, " fit"),
                      reason::kInvalidField);
  }
  if (vm.cmdline().find('\0') != std::string::npos) {
    return FieldError("vm.cmdline", "has a NUL byte, which ends the text for the guest: remove it",
                      reason::kInvalidField);
  }
  spec.cmdline = vm.cmdline();
  auto backend = BackendOf(vm.backend());
  if (!backend.ok()) return backend.status();
  spec.backend = *backend;
  auto settings = SettingsOf(vm);
  if (!settings.ok()) return settings.status();
  static_cast<host::VmSettings&>(spec) = *std::move(settings);
  auto nx_huge_pages = NxHugePagesOf(vm.nx_huge_pages());
  if (!nx_huge_pages.ok()) return nx_huge_pages.status();
  spec.nx_huge_pages = *nx_huge_pages;
  auto mmu = MmuOf(vm.mmu());
  if (!mmu.ok()) return mmu.status();
  spec.mmu = *mmu;
  auto cpus = CpusOf(vm.placement());
  if (!cpus.ok()) return cpus.status();
  spec.cpus = *std::move(cpus);
  auto tells_registers = TellsRegisters(vm.debug());
  if (!tells_registers.ok()) return tells_registers.status();
  spec.tells_registers = *tells_registers;
  if (vm.boot().has_cpl()) {
    if (vm.boot().cpl() != 0 && vm.boot().cpl() != 3) {
      return FieldError("vm.boot.cpl", absl::StrCat(vm.boot().cpl(), " is neither 0 nor 3"),
                        reason::kInvalidField);
    }
    spec.cpl = static_cast<int>(vm.boot().cpl());
  }
  if (vm.has_program()) {
    auto blob = program::Compile(vm.program(), spec.vcpus, spec.memory_bytes);
    if (!blob.ok()) {
      return FieldError("vm.program", std::string(blob.status().message()),
                        reason::kInvalidProgram);
    }
    spec.program = *std::move(blob);
  }
  return spec;
}

}  // namespace twinroot::rpc
