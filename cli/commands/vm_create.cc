// hvctl vm create: reads the image and the program, uploads the image, defines the VM.
#include <unistd.h>

#include <cstdio>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cli/commands/command.h"
#include "cli/commands/cpu_share_flags.h"
#include "cli/commands/policy_flags.h"
#include "cli/commands/progress.h"
#include "cli/input_file.h"
#include "cli/short_names.h"

namespace twinroot::cli {
namespace {

constexpr size_t kChunkSize = size_t{1} << 20;
constexpr uint64_t kMaxImageSize = uint64_t{64} << 20;

struct Arguments {
  std::string name;
  uint64_t memory = 0;
  uint32_t vcpus = 0;
  std::string image;
  std::string initrd;
  std::string cmdline;
  std::string program;
  v1::Backend backend = v1::BACKEND_UNSPECIFIED;
  PolicyFlags policy;
  std::optional<uint32_t> cpl;
  std::vector<uint32_t> cpus;
  CpuShareFlags cpu_share;
  v1::Vm::Debug debug = v1::Vm::DEBUG_UNSPECIFIED;
  v1::Vm::NxHugePages nx_huge_pages = v1::Vm::NX_HUGE_PAGES_UNSPECIFIED;
  v1::Vm::Mmu mmu = v1::Vm::MMU_UNSPECIFIED;
  std::map<std::string, std::string> labels;
  std::string request_id;
  bool dry_run = false;
};

// Refuses what the daemon would refuse after the bytes had travelled.
std::unique_ptr<InputFile> OpenImage(const std::string& what, const std::string& path) {
  auto image = std::make_unique<InputFile>(what, path);
  if (image->size() == 0) {
    throw Failure{kUsage, absl::StrCat(what, " ", path, " is empty"), "check how it was built"};
  }
  if (image->size() > kMaxImageSize) {
    throw Failure{kUsage, absl::StrCat(what, " ", path, " is ", FormatRoughSize(image->size())),
                  absl::StrCat("an ", what, " has at most ", FormatSize(kMaxImageSize))};
  }
  return image;
}

std::string Upload(Client& client, const std::string& what, InputFile& image) {
  grpc::ClientContext context;
  Client::SetDeadline(&context);
  v1::UploadImageResponse response;
  const auto writer = client.vm().UploadImage(&context, &response);
  Progress progress(absl::StrCat("sending the ", what), image.size());
  uint64_t done = 0;
  while (true) {
    v1::UploadImageRequest chunk;
    chunk.set_data(image.Read(kChunkSize));
    if (chunk.data().empty()) break;
    if (done == 0) chunk.set_total_size(image.size());
    done += chunk.data().size();
    // False: the daemon has refused already; Finish says why.
    if (!writer->Write(chunk)) break;
    progress.Show(done);
  }
  writer->WritesDone();
  client.Check(absl::StrCat("cannot send the ", what), writer->Finish());
  return response.image();
}

int Create(Session& session, const Arguments& arguments) {
  v1::CreateVmRequest request;
  request.set_vm_id(arguments.name);
  v1::Vm& vm = *request.mutable_vm();
  vm.set_memory_bytes(arguments.memory);
  vm.set_vcpus(arguments.vcpus);
  vm.set_cmdline(arguments.cmdline);
  vm.set_backend(arguments.backend);
  *vm.mutable_conversion_policy() = arguments.policy.policy();
  vm.mutable_placement()->mutable_cpus()->Assign(arguments.cpus.begin(), arguments.cpus.end());
  arguments.cpu_share.WriteTo(vm.mutable_placement());
  vm.set_debug(arguments.debug);
  vm.set_nx_huge_pages(arguments.nx_huge_pages);
  vm.set_mmu(arguments.mmu);
  vm.mutable_labels()->insert(arguments.labels.begin(), arguments.labels.end());
  request.set_request_id(arguments.request_id);
  request.set_validate_only(arguments.dry_run);
  if (arguments.cpl.has_value()) vm.mutable_boot()->set_cpl(*arguments.cpl);
  if (!arguments.program.empty()) *vm.mutable_program() = ReadProgram(arguments.program);
  std::unique_ptr<InputFile> image, initrd;
  if (!arguments.image.empty()) image = OpenImage("image", arguments.image);
  if (!arguments.initrd.empty()) initrd = OpenImage("initrd", arguments.initrd);
  if (image != nullptr) vm.set_image(Upload(session.client(), "image", *image));
  if (initrd != nullptr) {
    vm.mutable_boot()->set_initrd(Upload(session.client(), "initrd", *initrd));
  }

  const auto response = session.client().Call<v1::CreateVmResponse>(
      absl::StrCat("cannot create vm ", arguments.name),
      [&](grpc::ClientContext* context, v1::CreateVmResponse* answer) {
        return session.client().vm().CreateVm(context, request, answer);
      });
  session.Answer(response.vm(),
                 absl::StrCat("vm ", arguments.name, arguments.dry_run ? " could be " : " is ",
                              ShortName(response.vm().state()), " on backend ",
                              ShortName(response.vm().backend()), "\n"));
  return kOk;
}

}  // namespace

void AddVmCreate(CLI::App* vm, Invocation* invocation) {
  const auto arguments = std::make_shared<Arguments>();
  CLI::App* verb = AddVerb(
      vm, "create", "Define a VM", invocation,
      [arguments](Session& session) { return Create(session, *arguments); }, NameOutput::kPrinted);
  AddVmName(verb, &arguments->name);
  AddSize(verb, "--memory", &arguments->memory, "RAM, a multiple of 2MiB: 64MiB, 1G",
          uint64_t{2} << 20)
      ->required();
  verb->add_option("--vcpus", arguments->vcpus, "Virtual processors, 1 to 64")
      ->required()
      ->type_name("N");
  AddText(verb, "--image", &arguments->image,
          "What to boot: a Linux kernel, a static x86-64 ELF, a flat binary; hvctl reads and "
          "sends it")
      ->type_name("FILE");
  AddText(verb, "--initrd", &arguments->initrd, "A kernel's initial RAM disk")->type_name("FILE");
  verb->add_option("--cmdline", arguments->cmdline,
                   "Text that the guest finds in its boot data; a kernel's command line")
      ->type_name("TEXT");
  AddText(verb, "--program", &arguments->program,
          "An access program (textproto, or JSON if it ends in .json)")
      ->type_name("FILE");
  AddChoice<v1::Backend>(verb, "--backend", &arguments->backend,
                         {{"auto", v1::BACKEND_AUTO},
                          {"kvm", v1::BACKEND_KVM},
                          {"kvm-native", v1::BACKEND_KVM_NATIVE},
                          {"sim", v1::BACKEND_SIM}},
                         "What executes the vCPUs");
  arguments->policy.AddTo(verb);
  AddChoice<std::optional<uint32_t>>(verb, "--cpl", &arguments->cpl, {{"0", 0}, {"3", 3}},
                                     "Privilege level that the guest starts in (3)");
  AddChoice<v1::Vm::NxHugePages>(
      verb, "--nx-huge-pages", &arguments->nx_huge_pages,
      {{"off", v1::Vm::NX_HUGE_PAGES_OFF}, {"on", v1::Vm::NX_HUGE_PAGES_ON}},
      "Large pages are not executable, against iTLB multihit (off)");
  AddChoice<v1::Vm::Mmu>(verb, "--mmu", &arguments->mmu,
                         {{"tdp", v1::Vm::MMU_TDP}, {"shadow", v1::Vm::MMU_SHADOW}},
                         "Who translates: the processor with EPT, or shadow tables, on sim (tdp)");
  verb->add_option("--cpus", arguments->cpus, "Host processors that execute the vCPUs: 0,2,3")
      ->delimiter(',')
      ->type_name("N,...");
  arguments->cpu_share.AddTo(verb);
  AddChoice<v1::Vm::Debug>(verb, "--debug", &arguments->debug,
                           {{"off", v1::Vm::DEBUG_OFF}, {"registers", v1::Vm::DEBUG_REGISTERS}},
                           "What the daemon may tell of the guest's processors (off)");
  AddLabels(verb, &arguments->labels);
  AddRequestId(verb, &arguments->request_id);
  verb->add_flag("--dry-run", arguments->dry_run,
                 "Define nothing; say what would be wrong (an image is sent all the same)");
  verb->parse_complete_callback([arguments] {
    const PolicyFlags& policy = arguments->policy;
    const bool orchestrator = policy.policy().mode() == v1::ConversionPolicy::MODE_ORCHESTRATOR;
    if (policy.Has("--on-timeout") && !orchestrator) {
      throw CLI::ValidationError("--on-timeout", "only has a meaning with --policy orchestrator");
    }
    if (policy.Has("--decision-timeout") && !orchestrator && !policy.Has("--max-conversion-rate")) {
      throw CLI::ValidationError(
          "--decision-timeout",
          "only has a meaning with --policy orchestrator or --max-conversion-rate");
    }
  });
}

}  // namespace twinroot::cli
