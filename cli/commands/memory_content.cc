// hvctl memory read|write: the bytes of shared memory. Private memory is the daemon's to refuse.
#include <algorithm>
#include <limits>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "cli/commands/command.h"
#include "cli/input_file.h"

namespace twinroot::cli {
namespace {

constexpr uint64_t kMaxTransfer = uint64_t{1} << 20;  // Of one call.
constexpr size_t kHexRow = 16;

// "00200000  68 65 6c 6c 6f ...  |hello...|"
std::string HexDump(uint64_t gpa, std::string_view data) {
  std::string out;
  for (size_t row = 0; row < data.size(); row += kHexRow) {
    const std::string_view bytes = data.substr(row, kHexRow);
    std::string hex;
    std::string text;
    for (const char c : bytes) {
      absl::StrAppend(&hex,
                      absl::StrFormat(" %02x", static_cast<uint32_t>(static_cast<uint8_t>(c))));
      text += c >= ' ' && c <= '~' ? c : '.';
    }
    absl::StrAppend(&out, absl::StrFormat("%08x %-*s  |%s|\n", gpa + row,
                                          static_cast<int>(3 * kHexRow), hex, text));
  }
  return out;
}

void RefuseWrap(uint64_t gpa, uint64_t size) {
  if (size > 0 && gpa > std::numeric_limits<uint64_t>::max() - (size - 1)) {
    throw Failure{kUsage,
                  absl::StrCat(FormatAddress(gpa), " +", FormatSize(size),
                               " wraps around the end of the address space"),
                  "give a smaller address or size"};
  }
}

struct ReadArguments {
  std::string name;
  uint64_t gpa = 0;
  uint64_t size = 0;
  bool hex = false;
};

int Read(Session& session, const ReadArguments& arguments) {
  RefuseWrap(arguments.gpa, arguments.size);
  // Bytes of a guest are nothing for a terminal to obey.
  const bool hex = arguments.hex || session.out().terminal();
  v1::ReadGuestMemoryResponse all;
  uint64_t done = 0;
  do {
    v1::ReadGuestMemoryRequest request;
    request.set_vm(arguments.name);
    request.set_gpa(arguments.gpa + done);
    request.set_size(std::min(arguments.size - done, kMaxTransfer));
    auto response = session.client().Call<v1::ReadGuestMemoryResponse>(
        absl::StrCat("cannot read memory of vm ", arguments.name),
        [&](grpc::ClientContext* context, v1::ReadGuestMemoryResponse* answer) {
          return session.client().memory().ReadGuestMemory(context, request, answer);
        });
    if (response.data().size() != request.size()) {
      throw Failure{kFailure,
                    absl::StrCat("hvd answered ", response.data().size(), " bytes instead of ",
                                 request.size()),
                    "hvd and hvctl are of different versions: see `hvctl version`"};
    }
    if (session.structured()) {
      all.mutable_data()->append(response.data());
    } else {
      session.out().Write(hex ? HexDump(request.gpa(), response.data()) : response.data());
    }
    done += request.size();
  } while (done < arguments.size);
  if (session.structured()) session.Answer(all, "");
  return kOk;
}

struct WriteArguments {
  std::string name;
  uint64_t gpa = 0;
  std::string data;
  std::string file;
};

int Write(Session& session, const WriteArguments& arguments) {
  std::string data = arguments.data;
  if (!arguments.file.empty()) {
    InputFile file("file", arguments.file);
    data = file.Read(file.size());
  }
  if (data.empty()) throw Failure{kUsage, "there are no bytes to write", "the file is empty"};
  RefuseWrap(arguments.gpa, data.size());
  uint64_t done = 0;
  while (done < data.size()) {
    v1::WriteGuestMemoryRequest request;
    request.set_vm(arguments.name);
    request.set_gpa(arguments.gpa + done);
    request.set_data(data.substr(done, kMaxTransfer));
    const std::string so_far =
        done == 0 ? "" : absl::StrCat(" (", FormatSize(done), " are written)");
    session.client().Call<v1::WriteGuestMemoryResponse>(
        absl::StrCat("cannot write memory of vm ", arguments.name, so_far),
        [&](grpc::ClientContext* context, v1::WriteGuestMemoryResponse* answer) {
          return session.client().memory().WriteGuestMemory(context, request, answer);
        });
    done += request.data().size();
  }
  session.Answer(v1::WriteGuestMemoryResponse(), absl::StrCat(FormatSize(done), " written at ",
                                                              FormatAddress(arguments.gpa), "\n"));
  return kOk;
}

}  // namespace

void AddMemoryContentCommands(CLI::App* memory, Invocation* invocation) {
  const auto read = std::make_shared<ReadArguments>();
  CLI::App* verb = AddVerb(memory, "read", "The bytes of shared memory, raw", invocation,
                           [read](Session& session) { return Read(session, *read); });
  AddVmName(verb, &read->name);
  AddSize(verb, "GPA", &read->gpa, "Where to begin")->required();
  AddSize(verb, "SIZE", &read->size, "How many bytes: 4096, 64KiB")->required();
  verb->add_flag("--hex", read->hex, "As a hex dump, which a terminal always gets");

  const auto write = std::make_shared<WriteArguments>();
  verb = AddVerb(
      memory, "write", "Write bytes to shared memory", invocation, [write](Session& session) {
        if (write->data.empty() && write->file.empty()) {
          throw Failure{kUsage, "give one of [--data,--file]", "see `hvctl memory write --help`"};
        }
        return Write(session, *write);
      });
  AddVmName(verb, &write->name);
  AddSize(verb, "GPA", &write->gpa, "Where to begin")->required();
  CLI::Option* data = AddText(verb, "--data", &write->data, "This text")->type_name("TEXT");
  AddText(verb, "--file", &write->file, "This file's content")->type_name("FILE")->excludes(data);
}

}  // namespace twinroot::cli
