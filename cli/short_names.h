// Enum values without their prefix, as users see them: PRIVATE, not MEMORY_KIND_PRIVATE. The value
// UNSPECIFIED keeps its full name, because alone it would not say of what.
//
// Done once for the whole of twinroot.v1: a second descriptor pool holds the same messages with
// the enum values renamed (the full names stay as aliases, for input). Messages cross into it and
// back over the wire format, so protobuf's own JSON and text formats do the rest.
// Thread-safe after the first call.
#ifndef TWINROOT_CLI_SHORT_NAMES_H_
#define TWINROOT_CLI_SHORT_NAMES_H_

#include <google/protobuf/descriptor.h>
#include <google/protobuf/generated_enum_reflection.h>
#include <google/protobuf/message.h>

#include <memory>
#include <string>

namespace twinroot::cli {

// The pool with short names; all of twinroot.v1 is in it.
const google::protobuf::DescriptorPool& ShortNamePool();

// An empty message of the pool's twin of `descriptor`.
std::unique_ptr<google::protobuf::Message> NewShortNamed(
    const google::protobuf::Descriptor* descriptor);
// A copy of `message` in the pool.
std::unique_ptr<google::protobuf::Message> ToShortNamed(const google::protobuf::Message& message);

// "PRIVATE" for the descriptor of MEMORY_KIND_PRIVATE.
std::string ShortName(const google::protobuf::EnumValueDescriptor& value);

// The short name, or the number of a value that this hvctl does not know.
template <typename Enum>
std::string ShortName(Enum value) {
  const google::protobuf::EnumValueDescriptor* descriptor =
      google::protobuf::GetEnumDescriptor<Enum>()->FindValueByNumber(value);
  return descriptor == nullptr ? std::to_string(static_cast<int>(value)) : ShortName(*descriptor);
}

}  // namespace twinroot::cli

#endif  // TWINROOT_CLI_SHORT_NAMES_H_
