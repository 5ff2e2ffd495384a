// Changes messages by their structure, so that what a fuzzer makes stays a message: fields come, go
// and take values that are near a border, and parts are copied over parts of the same type.
#ifndef TWINROOT_TESTS_FUZZ_MESSAGE_MUTATOR_H_
#define TWINROOT_TESTS_FUZZ_MESSAGE_MUTATOR_H_

#include <google/protobuf/message.h>

#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

namespace twinroot::fuzz {

class MessageMutator {
 public:
  // `words`: what texts are often set to.
  MessageMutator(unsigned seed, std::vector<std::string> words)
      : random_(seed), words_(std::move(words)) {}

  // Changes one thing somewhere in it.
  void Mutate(google::protobuf::Message* message);

 private:
  using Field = const google::protobuf::FieldDescriptor*;

  uint64_t Choose(uint64_t below) { return random_() % below; }
  uint64_t Number(uint64_t old);
  std::string Text(std::string old, bool is_bytes);
  void SetValue(google::protobuf::Message* message, Field field);
  void ChangeList(google::protobuf::Message* message, Field field);
  void CopyAPart(google::protobuf::Message* message);

  std::mt19937_64 random_;
  const std::vector<std::string> words_;
};

// LLVMFuzzerCustomMutator for inputs that are messages in text format; what is no message becomes
// an empty one first. `prototype` is a message to parse into.
size_t MutateText(uint8_t* data, size_t size, size_t max_size, unsigned seed,
                  std::vector<std::string> words, google::protobuf::Message* prototype);

// Quietly; unknown names and the like are errors.
bool ParseText(const uint8_t* data, size_t size, google::protobuf::Message* message);

}  // namespace twinroot::fuzz

#endif  // TWINROOT_TESTS_FUZZ_MESSAGE_MUTATOR_H_
