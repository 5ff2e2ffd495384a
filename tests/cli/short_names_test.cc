#include "cli/short_names.h"

#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include <set>

#include "twinroot/v1/event.pb.h"
#include "twinroot/v1/host.pb.h"
#include "twinroot/v1/memory.pb.h"
#include "twinroot/v1/program.pb.h"
#include "twinroot/v1/vm.pb.h"

namespace twinroot::cli {
namespace {

namespace pb = google::protobuf;

// Calls `visit` with every enum of twinroot.v1.
template <typename Function>
void ForEachEnum(const pb::Descriptor* message, Function visit) {
  for (int i = 0; i < message->enum_type_count(); ++i) visit(message->enum_type(i));
  for (int i = 0; i < message->nested_type_count(); ++i) {
    ForEachEnum(message->nested_type(i), visit);
  }
}
template <typename Function>
void ForEachEnum(Function visit) {
  for (const pb::FileDescriptor* file :
       {v1::MemoryRange::descriptor()->file(), v1::Event::descriptor()->file(),
        v1::Host::descriptor()->file(), v1::MemoryRun::descriptor()->file(),
        v1::AccessProgram::descriptor()->file(), v1::Vm::descriptor()->file()}) {
    for (int i = 0; i < file->enum_type_count(); ++i) visit(file->enum_type(i));
    for (int i = 0; i < file->message_type_count(); ++i) ForEachEnum(file->message_type(i), visit);
  }
}

TEST(ShortNames, EveryValueLosesItsPrefixAndNoTwoCollide) {
  int enums = 0;
  ForEachEnum([&](const pb::EnumDescriptor* type) {
    ++enums;
    std::set<std::string> names;
    for (int i = 0; i < type->value_count(); ++i) {
      const pb::EnumValueDescriptor& value = *type->value(i);
      const std::string name = ShortName(value);
      EXPECT_TRUE(names.insert(name).second) << value.full_name() << " collides as " << name;
      if (value.number() == 0) {
        EXPECT_EQ(name, value.name());
      } else {
        EXPECT_LT(name.size(), value.name().size()) << value.full_name() << " has no prefix";
      }
    }
  });
  EXPECT_GE(enums, 15);
}

TEST(ShortNames, EveryMessageOfTheApiHasATwin) {
  for (const pb::Descriptor* descriptor :
       {v1::Vm::descriptor(), v1::Event::descriptor(),
        v1::GetMemoryAttributesResponse::descriptor(), v1::AccessProgram::descriptor(),
        v1::Host::descriptor(), v1::ResolveConversionResponse::descriptor()}) {
    const std::unique_ptr<pb::Message> twin = NewShortNamed(descriptor);
    EXPECT_EQ(twin->GetDescriptor()->full_name(), descriptor->full_name());
    EXPECT_EQ(twin->GetDescriptor()->field_count(), descriptor->field_count());
  }
}

TEST(ShortNames, ValuesOfOneNameInTwoEnumsStayApart) {
  v1::Vm vm;
  vm.mutable_conversion_policy()->set_mode(v1::ConversionPolicy::MODE_DENY);
  vm.mutable_conversion_policy()->set_on_timeout(v1::ConversionPolicy::ON_TIMEOUT_DENY);
  const auto twin = ToShortNamed(vm);
  EXPECT_EQ(twin->ShortDebugString(), "conversion_policy { mode: DENY on_timeout: DENY }");
  v1::Vm back;
  ASSERT_TRUE(back.ParseFromString(twin->SerializeAsString()));
  EXPECT_EQ(back.conversion_policy().mode(), v1::ConversionPolicy::MODE_DENY);
  EXPECT_EQ(back.conversion_policy().on_timeout(), v1::ConversionPolicy::ON_TIMEOUT_DENY);
}

TEST(ShortNames, TextMayUseShortAndFullNames) {
  for (const char* text : {"kind: SHARED", "kind: MEMORY_KIND_SHARED"}) {
    const auto run = NewShortNamed(v1::MemoryRun::descriptor());
    ASSERT_TRUE(pb::TextFormat::ParseFromString(text, run.get())) << text;
    v1::MemoryRun back;
    ASSERT_TRUE(back.ParseFromString(run->SerializeAsString()));
    EXPECT_EQ(back.kind(), v1::MEMORY_KIND_SHARED);
  }
}

TEST(ShortNames, AValueFromANewerDaemonPrintsItsNumber) {
  EXPECT_EQ(ShortName(static_cast<v1::MemoryKind>(77)), "77");
  EXPECT_EQ(ShortName(v1::MEMORY_KIND_PRIVATE), "PRIVATE");
  EXPECT_EQ(ShortName(v1::Vm::STATE_UNSPECIFIED), "STATE_UNSPECIFIED");
}

}  // namespace
}  // namespace twinroot::cli
