#include "cli/short_names.h"

#include <google/protobuf/descriptor.pb.h>
#include <google/protobuf/dynamic_message.h>

#include <cctype>
#include <cstdlib>
#include <map>
#include <set>
#include <string_view>

#include "twinroot/v1/common.pb.h"
#include "twinroot/v1/dirty_log.pb.h"
#include "twinroot/v1/event.pb.h"
#include "twinroot/v1/host.pb.h"
#include "twinroot/v1/memory.pb.h"
#include "twinroot/v1/program.pb.h"
#include "twinroot/v1/vm.pb.h"

namespace twinroot::cli {
namespace {

namespace pb = google::protobuf;

constexpr std::string_view kOwnPackage = "twinroot.v1";
constexpr char kUnspecified[] = "UNSPECIFIED";

// "MEMORY_KIND_" for MemoryKind.
std::string PrefixOf(std::string_view enum_name) {
  std::string prefix;
  for (const char c : enum_name) {
    if (std::isupper(static_cast<unsigned char>(c)) && !prefix.empty()) prefix += '_';
    prefix += static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  }
  return prefix + "_";
}

std::string Shorten(std::string_view enum_name, const std::string& value) {
  const std::string prefix = PrefixOf(enum_name);
  if (value.rfind(prefix, 0) != 0) return value;
  const std::string rest = value.substr(prefix.size());
  return rest.empty() || rest == kUnspecified ? value : rest;
}

// Full enum name -> where it is now.
using Moves = std::map<std::string, std::string>;

// Enum values live in the scope around their enum, where two DENYs would collide. So each enum
// moves into a message of its own, which nothing but a type name shows.
template <typename Scope>
void MoveEnums(const std::string& scope_name, pb::RepeatedPtrField<pb::EnumDescriptorProto>* enums,
               Scope add_message, Moves* moves) {
  for (pb::EnumDescriptorProto& type : *enums) {
    pb::EnumDescriptorProto renamed = type;
    renamed.clear_value();
    for (const pb::EnumValueDescriptorProto& value : type.value()) {
      pb::EnumValueDescriptorProto* short_value = renamed.add_value();
      *short_value = value;
      short_value->set_name(Shorten(type.name(), value.name()));
      if (short_value->name() == value.name()) continue;
      *renamed.add_value() = value;
      renamed.mutable_options()->set_allow_alias(true);
    }
    const std::string holder = type.name() + "Names";
    (*moves)["." + scope_name + "." + type.name()] =
        "." + scope_name + "." + holder + "." + type.name();
    pb::DescriptorProto* message = add_message();
    message->set_name(holder);
    *message->add_enum_type() = std::move(renamed);
  }
  enums->Clear();
}

void MoveEnumsOfMessage(const std::string& scope_name, pb::DescriptorProto* message, Moves* moves) {
  const std::string name = scope_name + "." + message->name();
  for (pb::DescriptorProto& nested : *message->mutable_nested_type()) {
    MoveEnumsOfMessage(name, &nested, moves);
  }
  MoveEnums(
      name, message->mutable_enum_type(), [&] { return message->add_nested_type(); }, moves);
}

void PointFieldsAtMovedEnums(pb::DescriptorProto* message, const Moves& moves) {
  for (pb::FieldDescriptorProto& field : *message->mutable_field()) {
    const auto moved = moves.find(field.type_name());
    if (moved != moves.end()) field.set_type_name(moved->second);
  }
  for (pb::DescriptorProto& nested : *message->mutable_nested_type()) {
    PointFieldsAtMovedEnums(&nested, moves);
  }
}

class Builder {
 public:
  explicit Builder(pb::DescriptorPool* pool) : pool_(pool) {}

  // Dependencies first, each file once.
  void Add(const pb::FileDescriptor* file) {
    if (!seen_.insert(file->name()).second) return;
    for (int i = 0; i < file->dependency_count(); ++i) Add(file->dependency(i));
    pb::FileDescriptorProto proto;
    file->CopyTo(&proto);
    if (file->package() == kOwnPackage) Rename(&proto);
    // Only a proto file that breaks the naming rule can make this fail, which a test excludes.
    if (pool_->BuildFile(proto) == nullptr) std::abort();
  }

 private:
  void Rename(pb::FileDescriptorProto* file) {
    scope_ = file->package();
    for (pb::DescriptorProto& message : *file->mutable_message_type()) {
      MoveEnumsOfMessage(scope_, &message, &moves_);
    }
    MoveEnums(
        scope_, file->mutable_enum_type(), [&] { return file->add_message_type(); }, &moves_);
    for (pb::DescriptorProto& message : *file->mutable_message_type()) {
      PointFieldsAtMovedEnums(&message, moves_);
    }
  }

  pb::DescriptorPool* const pool_;
  std::set<std::string> seen_;
  std::string scope_;
  Moves moves_;
};

struct Twin {
  Twin() {
    Builder builder(&pool);
    for (const pb::FileDescriptor* file :
         {v1::MemoryRange::descriptor()->file(), v1::EnableDirtyLogRequest::descriptor()->file(),
          v1::Event::descriptor()->file(), v1::Host::descriptor()->file(),
          v1::MemoryRun::descriptor()->file(), v1::AccessProgram::descriptor()->file(),
          v1::Vm::descriptor()->file()}) {
      builder.Add(file);
    }
  }
  pb::DescriptorPool pool;
  pb::DynamicMessageFactory factory{&pool};
};

// Never destroyed: messages of it may be alive at exit.
Twin& TheTwin() {
  static Twin* const twin = new Twin;
  return *twin;
}

}  // namespace

const pb::DescriptorPool& ShortNamePool() { return TheTwin().pool; }

std::unique_ptr<pb::Message> NewShortNamed(const pb::Descriptor* descriptor) {
  Twin& twin = TheTwin();
  const pb::Descriptor* found = twin.pool.FindMessageTypeByName(descriptor->full_name());
  return std::unique_ptr<pb::Message>(twin.factory.GetPrototype(found)->New());
}

std::unique_ptr<pb::Message> ToShortNamed(const pb::Message& message) {
  std::unique_ptr<pb::Message> copy = NewShortNamed(message.GetDescriptor());
  copy->ParseFromString(message.SerializeAsString());
  return copy;
}

std::string ShortName(const pb::EnumValueDescriptor& value) {
  return Shorten(value.type()->name(), value.name());
}

}  // namespace twinroot::cli
