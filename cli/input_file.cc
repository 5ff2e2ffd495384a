#include "cli/input_file.h"

#include <fcntl.h>
#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/text_format.h>
#include <google/protobuf/util/json_util.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>

#include "absl/strings/str_cat.h"
#include "cli/failure.h"
#include "cli/json_position.h"
#include "cli/short_names.h"

namespace twinroot::cli {
namespace {

// More text than an access program can hold; a wrong file is told apart before it is read.
constexpr uint64_t kMaxProgramSize = uint64_t{4} << 20;

[[noreturn]] void Refuse(const std::string& path, const TextPosition& position,
                         const std::string& why) {
  throw Failure{kUsage, absl::StrCat(path, ":", position.line, ":", position.column, ": ", why),
                "program.proto describes access programs"};
}

// Keeps the first error: what follows it is often its consequence.
class FirstError : public google::protobuf::io::ErrorCollector {
 public:
  // protobuf counts both from 0; a line of -1 means the whole text.
  void AddError(int line, int column, const std::string& message) override {
    if (!message_.empty()) return;
    position_ = {static_cast<size_t>(line + 1), static_cast<size_t>(column + 1)};
    if (line < 0) position_ = TextPosition{};
    message_ = message;
  }
  const TextPosition& position() const { return position_; }
  const std::string& message() const { return message_; }

 private:
  TextPosition position_;
  std::string message_;
};

void ParseText(const std::string& path, const std::string& text,
               google::protobuf::Message* program) {
  FirstError error;
  google::protobuf::TextFormat::Parser parser;
  parser.RecordErrorsTo(&error);
  if (!parser.ParseFromString(text, program)) Refuse(path, error.position(), error.message());
}

// protobuf writes "(vcpus[0].steps[1].read) gpax: Cannot find field." or
// "(vcpus[0].steps[1].read.gpa): invalid value ...", and shows syntax errors with an excerpt below.
void ParseJson(const std::string& path, const std::string& text,
               google::protobuf::Message* program) {
  const auto status = google::protobuf::util::JsonStringToMessage(text, program);
  if (status.ok()) return;
  std::string why(status.message());
  why = why.substr(0, why.find('\n'));
  std::optional<size_t> offset = FindJsonSyntaxError(text);
  if (!offset.has_value()) {
    // "(where) what: sentence" or "(where): sentence"; the place is where.what if that exists.
    const size_t close = why.find(')');
    const size_t colon = why.find(": ");
    if (why.rfind('(', 0) == 0 && close < colon && colon != std::string::npos) {
      const std::string where = why.substr(1, close - 1);
      if (close + 2 < colon) {
        const std::string what = why.substr(close + 2, colon - close - 2);
        offset = FindJsonPath(text, where.empty() ? what : absl::StrCat(where, ".", what));
      }
      if (!offset.has_value()) offset = FindJsonPath(text, where);
    }
  }
  Refuse(path, PositionOfOffset(text, offset.value_or(0)), why);
}

}  // namespace

InputFile::InputFile(const std::string& what, const std::string& path)
    : name_(absl::StrCat(what, " ", path)), fd_(open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
  struct stat facts {};
  if (fd_ < 0 || fstat(fd_, &facts) != 0) {
    const int error = errno;
    if (fd_ >= 0) close(fd_);
    throw Failure{kUsage, absl::StrCat("cannot read ", name_, ": ", strerror(error)),
                  "check the path; hvctl reads it, not hvd"};
  }
  if (!S_ISREG(facts.st_mode)) {
    close(fd_);
    throw Failure{kUsage, absl::StrCat("cannot read ", name_, ": it is not a regular file"),
                  "check the path"};
  }
  size_ = static_cast<uint64_t>(facts.st_size);
}

InputFile::~InputFile() { close(fd_); }

std::string InputFile::Read(size_t max) {
  std::string bytes(max, '\0');
  size_t filled = 0;
  while (filled < max) {
    const ssize_t got = read(fd_, bytes.data() + filled, max - filled);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      throw Failure{kUsage, absl::StrCat("cannot read ", name_, ": ", strerror(errno)), ""};
    }
    if (got == 0) break;
    filled += static_cast<size_t>(got);
  }
  bytes.resize(filled);
  return bytes;
}

v1::AccessProgram ReadProgram(const std::string& path) {
  InputFile file("program", path);
  if (file.size() > kMaxProgramSize) {
    throw Failure{kUsage, absl::StrCat("program ", path, " is ", FormatRoughSize(file.size())),
                  absl::StrCat("a program has at most ", FormatSize(kMaxProgramSize),
                               " of text; is this an --image?")};
  }
  const std::string text = file.Read(file.size());
  const auto program = NewShortNamed(v1::AccessProgram::descriptor());
  constexpr std::string_view kJson = ".json";
  if (path.size() >= kJson.size() && path.substr(path.size() - kJson.size()) == kJson) {
    ParseJson(path, text, program.get());
  } else {
    ParseText(path, text, program.get());
  }
  v1::AccessProgram result;
  result.ParseFromString(program->SerializeAsString());
  const bool has_step =
      std::any_of(result.vcpus().begin(), result.vcpus().end(),
                  [](const v1::VcpuProgram& vcpu) { return !vcpu.steps().empty(); });
  if (!has_step) {
    throw Failure{kUsage, absl::StrCat("program ", path, " is empty: no vCPU has a step"),
                  "write at least: vcpus { steps { exit { code: 0 } } }"};
  }
  return result;
}

}  // namespace twinroot::cli
