#include "tests/fuzz/rpc_world.h"

#include <google/protobuf/text_format.h>
#include <spdlog/sinks/ostream_sink.h>
#include <spdlog/spdlog.h>
#include <stdlib.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "daemon/rpc/convert.h"
#include "daemon/vcpu/program/compiler.h"
#include "tests/fuzz/require.h"

namespace twinroot::fuzz {
namespace {

constexpr char kEvents[] = "/events";  // which is no name of a VM
constexpr uint64_t kKeeperBytes = uint64_t{8} << 20;
constexpr uint64_t kSecretPages[] = {0x200000, 0x345000, 0x7EF000 - 0x100000};

host::RegistryOptions OptionsOf(NoKvm* no_kvm, obs::Metrics* metrics) {
  host::RegistryOptions options;
  options.default_backend = host::BackendKind::kSim;
  options.max_vms = 16;
  options.kvm = no_kvm;
  options.exits = metrics->exits();
  return options;
}

grpc::ByteBuffer BufferOf(const std::string& bytes) {
  const grpc::Slice slice(bytes);
  return grpc::ByteBuffer(&slice, 1);
}

std::string BytesOf(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  std::string bytes;
  if (!buffer.Dump(&slices).ok()) return bytes;
  for (const grpc::Slice& slice : slices) {
    bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  return bytes;
}

}  // namespace

RpcWorld::RpcWorld() {
  std::string folder = "/tmp/rpc-fuzz-XXXXXX";  // a socket's path is short
  Require(mkdtemp(folder.data()) != nullptr, "a folder can be made");
  folder_ = folder;
  std::mt19937_64 random(std::random_device{}());
  // Nobody guesses it, and it is no text.
  for (int i = 0; i < 8; ++i) secret_ += static_cast<char>(0x80 | random());
  uint64_t number = 0;
  std::copy(secret_.begin(), secret_.end(), reinterpret_cast<char*>(&number));
  secret_in_hex_ = absl::StrCat(absl::Hex(number));

  auto logger = std::make_shared<spdlog::logger>(
      "rpc-fuzz", std::make_shared<spdlog::sinks::ostream_sink_mt>(log_));
  logger->set_level(spdlog::level::debug);
  spdlog::set_default_logger(std::move(logger));

  metrics_ = std::make_unique<obs::Metrics>(&journal_, "1.2.3", 1024);
  auto registry = host::MakeVmRegistry(OptionsOf(&no_kvm_, metrics_.get()), &journal_);
  Require(registry.ok(), "a registry is made");
  registry_ = *std::move(registry);
  metrics_->Watch(registry_.get());
  auto audit = access::AuditLog::Open(folder_ + "/audit.jsonl", [] {});
  Require(audit.ok(), "an audit log is made");
  audit_ = *std::move(audit);
  gatekeeper_ = std::make_unique<access::Gatekeeper>(access::DefaultRules(), audit_.get());

  rpc::ServerOptions options;
  options.door.path = folder_ + "/hvd.sock";
  options.gatekeeper = gatekeeper_.get();
  options.version = "1.2.3";
  options.max_vms = 16;
  options.metrics_text = [this] { return metrics_->Text(); };
  options.interceptor = metrics_->MakeCallInterceptor();
  auto server = rpc::Server::Start(std::move(options), registry_.get(), &journal_);
  Require(server.ok(), "a server starts");
  server_ = *std::move(server);
  stub_ = std::make_unique<grpc::GenericStub>(
      grpc::CreateChannel("unix:" + folder_ + "/hvd.sock", grpc::InsecureChannelCredentials()));
}

RpcWorld::~RpcWorld() {
  queue_.Shutdown();
  for (const auto& vm : registry_->List("", 100)) (void)registry_->Delete(vm->spec().name);
  server_.reset();
  std::filesystem::remove_all(folder_);
}

void RpcWorld::Reset() {
  for (const auto& vm : registry_->List("", 100)) {
    Require(registry_->Delete(vm->spec().name).ok(), "a VM can be deleted");
  }
  MakeKeeper();
}

void RpcWorld::MakeKeeper() {
  v1::AccessProgram program;
  auto* vcpu = program.add_vcpus();
  uint64_t number = 0;
  std::copy(secret_.begin(), secret_.end(), reinterpret_cast<char*>(&number));
  for (const uint64_t gpa : kSecretPages) {
    auto* write = vcpu->add_steps()->mutable_write();
    write->set_gpa(gpa);
    write->set_value(number);
  }
  auto* map_gpa = vcpu->add_steps()->mutable_map_gpa();
  map_gpa->set_gpa(0x400000);
  map_gpa->set_pages(16);
  map_gpa->set_kind(v1::MEMORY_KIND_SHARED);
  // Once it was let go it reads what is its own, and then runs on.
  auto* loop = vcpu->add_steps()->mutable_loop();
  loop->set_count(uint64_t{1} << 40);
  loop->add_steps()->mutable_read()->set_gpa(0x500000);
  host::VmSpec spec;
  spec.name = "keeper";
  spec.memory_bytes = kKeeperBytes;
  spec.vcpus = 1;
  spec.policy.mode = host::PolicyMode::kOrchestrator;
  spec.policy.decision_timeout = absl::Hours(24);
  const auto blob = program::Compile(program, 1, kKeeperBytes);
  Require(blob.ok(), "the keeper's program is one");
  spec.program = *blob;
  auto vm = registry_->Create(std::move(spec));
  Require(vm.ok() && (*vm)->Start().ok(), "the keeper runs");
  while ((*vm)->Pending().empty()) std::this_thread::sleep_for(std::chrono::microseconds(50));
}

Answer RpcWorld::Call(const google::protobuf::MethodDescriptor& method,
                      const std::vector<std::string>& requests,
                      std::chrono::milliseconds patience) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + patience);
  const auto wait = [this] {
    void* tag = nullptr;
    bool ok = false;
    queue_.Next(&tag, &ok);
    return ok;
  };
  Answer answer;
  void* const tag = this;
  auto call = stub_->PrepareCall(
      &context, absl::StrCat("/", method.service()->full_name(), "/", method.name()), &queue_);
  call->StartCall(tag);
  bool ok = wait();
  for (size_t i = 0; ok && i < requests.size(); ++i) {
    call->Write(BufferOf(requests[i]), tag);
    ok = wait();
  }
  if (ok) {
    call->WritesDone(tag);
    wait();
  }
  for (grpc::ByteBuffer buffer;;) {
    call->Read(&buffer, tag);
    if (!wait()) break;
    answer.messages.push_back(BytesOf(buffer));
  }
  call->Finish(&answer.status, tag);
  wait();
  return answer;
}

RpcWorld::Standing RpcWorld::Digest() const {
  Standing standing;
  bool all_stand = true;
  for (const auto& vm : registry_->List("", 100)) {
    const host::VmStatus status = vm->status();
    std::optional<std::string>& told_of = standing[vm->spec().name];
    if (status.state == host::VmState::kRunning || !vm->Pending().empty()) {
      all_stand = false;  // a deadline comes by itself
      continue;
    }
    std::string& digest = told_of.emplace();
    v1::Vm shown;
    rpc::ToProto(*vm, &shown);
    absl::StrAppend(&digest, shown.ShortDebugString());
    for (const auto& range : vm->Memory()) {
      absl::StrAppend(&digest, " memory ", range.first.value, "+", range.count);
    }
    if (const auto runs = vm->Attributes(std::nullopt); runs.ok()) {
      for (const auto& run : *runs) {
        v1::MemoryRun told;
        rpc::ToProto(run, &told);
        absl::StrAppend(&digest, " ", told.ShortDebugString());
        // Not megabytes of zeroes each time.
        if (run.kind != mmu::MemoryKind::kShared) continue;
        const auto bytes = vm->ReadMemory(told.gpa(), std::min<uint64_t>(told.size(), 65536));
        if (bytes.ok()) absl::StrAppend(&digest, " ", std::hash<std::string>()(*bytes));
      }
    }
    const host::VmCounters counters = vm->counters();
    absl::StrAppend(&digest, " log ", counters.dirty_log_enabled, " harvested ",
                    counters.dirty_pages_harvested);
  }
  if (all_stand) standing[kEvents] = absl::StrCat(journal_.next());
  return standing;
}

std::string RpcWorld::ChangedSince(const Standing& before) const {
  const Standing now = Digest();
  std::string changed;
  for (const auto& [name, was] : before) {
    const auto is = now.find(name);
    if (is == now.end()) {
      absl::StrAppend(&changed, "\n", name, " is gone");
    } else if (was.has_value() && is->second != was) {
      absl::StrAppend(&changed, "\n", name, " was ", *was, "\n", name, " is ",
                      is->second.value_or("going on"));
    }
  }
  for (const auto& [name, is] : now) {
    if (name != kEvents && before.count(name) == 0)
      absl::StrAppend(&changed, "\n", name, " is new");
  }
  return changed;
}

void RpcWorld::CheckAudits() const {
  for (const auto& vm : registry_->List("", 100)) {
    const absl::Status audit = vm->Audit();
    Require(audit.ok(),
            "the tables of " + vm->spec().name + " are sound: " + std::string(audit.message()));
  }
}

// Not for the fuzzer to learn from: it would be told the secret by its comparisons.
#if defined(__clang__)
__attribute__((no_sanitize("coverage")))
#endif
bool RpcWorld::Discloses(const std::string& text) const {
  return text.find(secret_) != std::string::npos || text.find(secret_in_hex_) != std::string::npos;
}

void RpcWorld::CheckSilence(const Answer& answer) {
  for (const std::string& message : answer.messages) {
    Require(!Discloses(message), "no answer has private memory");
  }
  Require(!Discloses(answer.status.error_message()) && !Discloses(answer.status.error_details()),
          "no error has private memory");
  spdlog::default_logger()->flush();
  Require(!Discloses(log_.str()), "no line of the log has private memory");
  log_.str("");
  std::ifstream audit(folder_ + "/audit.jsonl");
  audit.seekg(audit_read_);
  const std::string lines{std::istreambuf_iterator<char>(audit), std::istreambuf_iterator<char>()};
  audit_read_ += static_cast<std::streamoff>(lines.size());
  Require(!Discloses(lines), "no line of the audit log has private memory");
}

}  // namespace twinroot::fuzz
