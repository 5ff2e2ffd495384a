#include "tests/bochs/bochs_machine.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "tests/bochs/bochs_process.h"

namespace twinroot::bochs {
namespace {

constexpr const char* kMachineImage = "tests/bochs/machine/machine.img";
constexpr uint64_t kSectorWords = kSectorBytes / sizeof(uint64_t);
constexpr uint64_t kHeads = 16, kSectorsPerTrack = 63;

uint64_t Sectors(const std::vector<uint64_t>& words) { return words.size() / kSectorWords; }

}  // namespace

void BochsMachine::Append(CommandType type, uint64_t word, uint64_t most) {
  if (command_.type != type || command_.count == most) Flush();
  command_.type = type;
  if (type != CommandType::kProbe) command_.words[command_.count] = word;
  ++command_.count;
}

void BochsMachine::Flush() {
  if (command_.count != 0) {
    const auto* words = reinterpret_cast<const uint64_t*>(&command_);
    stream_.insert(stream_.end(), words, words + kSectorWords);
    payload_.resize((payload_.size() + kSectorWords - 1) / kSectorWords * kSectorWords);
    stream_.insert(stream_.end(), payload_.begin(), payload_.end());
    if (command_.type != CommandType::kLoad) answers_.emplace_back(command_.type, command_.count);
  }
  command_ = {};
  payload_.clear();
}

void BochsMachine::Load(uint64_t hpa, const PageWords& content) {
  Append(CommandType::kLoad, hpa, Command::kMostPages);
  payload_.insert(payload_.end(), content.begin(), content.end());
}

size_t BochsMachine::Run(const Probe& probe) {
  Append(CommandType::kProbe, 0, Command::kMostProbes);
  const auto* words = reinterpret_cast<const uint64_t*>(&probe);
  payload_.insert(payload_.end(), words, words + sizeof(Probe) / sizeof(uint64_t));
  return probes_++;
}

size_t BochsMachine::Dump(uint64_t hpa) {
  Append(CommandType::kDump, hpa, Command::kMostPages);
  return dumps_++;
}

absl::Status BochsMachine::WriteDisk(const std::string& path) {
  std::ifstream kernel(kMachineImage, std::ios::binary);
  const std::string program((std::istreambuf_iterator<char>(kernel)), {});
  if (program.empty()) return absl::NotFoundError(absl::StrCat("no ", kMachineImage));
  Command begin{.type = CommandType::kBegin}, end{.type = CommandType::kEnd};
  const uint64_t results = kStreamSector + 1 + Sectors(stream_) + 1;
  begin.words[0] = results;
  std::ofstream disk(path, std::ios::binary | std::ios::trunc);
  disk.write(program.data(), static_cast<std::streamsize>(program.size()));
  disk.seekp(kStreamSector * kSectorBytes);
  disk.write(reinterpret_cast<const char*>(&begin), kSectorBytes);
  disk.write(reinterpret_cast<const char*>(stream_.data()),
             static_cast<std::streamsize>(stream_.size() * sizeof(uint64_t)));
  disk.write(reinterpret_cast<const char*>(&end), kSectorBytes);
  disk.close();
  if (!disk) return absl::UnknownError(absl::StrCat("cannot write ", path));
  uint64_t sectors = results + 1;
  for (const auto& [type, count] : answers_) {
    sectors += type == CommandType::kProbe ? SectorsOf(count * sizeof(ProbeResult))
                                           : count * kSectorsPerPage;
  }
  // Whole cylinders.
  constexpr uint64_t kCylinder = kHeads * kSectorsPerTrack;
  std::filesystem::resize_file(path, (sectors / kCylinder + 1) * kCylinder * kSectorBytes);
  return absl::OkStatus();
}

absl::StatusOr<BochsMachine::Report> BochsMachine::ReadReport(const std::string& path) const {
  std::ifstream disk(path, std::ios::binary);
  disk.seekg(static_cast<std::streamoff>((kStreamSector + 2 + Sectors(stream_)) * kSectorBytes));
  Report report;
  report.results.resize(probes_);
  report.pages.resize(dumps_);
  size_t result = 0, page = 0;
  for (const auto& [type, count] : answers_) {
    if (type == CommandType::kProbe) {
      const uint64_t bytes = count * sizeof(ProbeResult);
      disk.read(reinterpret_cast<char*>(&report.results[result]),
                static_cast<std::streamsize>(bytes));
      disk.seekg(static_cast<std::streamoff>(SectorsOf(bytes) * kSectorBytes - bytes),
                 std::ios::cur);
      result += count;
    } else {
      disk.read(reinterpret_cast<char*>(&report.pages[page]),
                static_cast<std::streamsize>(count * sizeof(PageWords)));
      page += count;
    }
  }
  uint64_t done = 0;
  disk.read(reinterpret_cast<char*>(&done), sizeof(done));
  if (!disk || done != kDone) return absl::DataLossError("the machine did not come to its end");
  return report;
}

absl::StatusOr<BochsMachine::Report> BochsMachine::Boot() {
  Flush();
  const char* folder = std::getenv("TEST_TMPDIR");
  const BochsProcess bochs(folder != nullptr ? folder : "/tmp");
  if (absl::Status status = WriteDisk(bochs.disk()); !status.ok()) return status;
  const auto said = bochs.Run(memory_mib_, model_, kHeads, kSectorsPerTrack);
  if (!said.ok()) return said.status();
  auto report = ReadReport(bochs.disk());
  if (!report.ok()) {
    return absl::DataLossError(absl::StrCat(report.status().message(), "; Bochs:\n", *said));
  }
  return report;
}

}  // namespace twinroot::bochs
