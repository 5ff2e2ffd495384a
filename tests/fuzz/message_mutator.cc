#include "tests/fuzz/message_mutator.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/reflection.h>
#include <google/protobuf/text_format.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>

namespace twinroot::fuzz {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

constexpr int kMostDepth = 12;

// Every message in it, itself first.
void Collect(Message* message, int depth, std::vector<Message*>* all) {
  all->push_back(message);
  if (depth == kMostDepth) return;
  std::vector<const FieldDescriptor*> fields;
  const auto* reflection = message->GetReflection();
  reflection->ListFields(*message, &fields);
  for (const FieldDescriptor* field : fields) {
    if (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) continue;
    if (!field->is_repeated()) {
      Collect(reflection->MutableMessage(message, field), depth + 1, all);
      continue;
    }
    for (int i = 0; i < reflection->FieldSize(*message, field); ++i) {
      Collect(reflection->MutableRepeatedMessage(message, field, i), depth + 1, all);
    }
  }
}

class NoErrors final : public google::protobuf::io::ErrorCollector {
  void AddError(int, google::protobuf::io::ColumnNumber, const std::string&) override {}
};

}  // namespace

uint64_t MessageMutator::Number(uint64_t old) {
  switch (Choose(8)) {
    case 0:
      return Choose(8);
    case 1:
      return Choose(64) * 4096;
    case 2:
      return Choose(16) << 21;
    case 3:
      return uint64_t{1} << Choose(64);
    case 4:
      return (uint64_t{1} << Choose(64)) - 1;
    case 5:
      return old + 1;
    case 6:
      return old - 1;
    default:
      return old ^ uint64_t { 1 } << Choose(64);
  }
}

std::string MessageMutator::Text(std::string old, bool is_bytes) {
  if (!words_.empty() && Choose(2) == 0) return words_[Choose(words_.size())];
  switch (Choose(4)) {
    case 0:
      return "";
    case 1:
      return old.substr(0, Choose(old.size() + 1));
    case 2:
      return old + old.substr(0, 256) + "x";
    default:
      // Texts stay valid UTF-8.
      if (old.empty()) old = "a";
      old[Choose(old.size())] = static_cast<char>(Choose(is_bytes ? 256 : 128));
      return is_bytes || std::all_of(old.begin(), old.end(), [](char c) { return c >= 0; }) ? old
                                                                                            : "";
  }
}

// One value: of a single field its own, of a list a new last one.
void MessageMutator::SetValue(Message* message, Field field) {
  const auto* reflection = message->GetReflection();
  const bool add = field->is_repeated();
  const auto set = [&](auto get, auto put, auto append) {
    if (add) {
      (reflection->*append)(message, field,
                            static_cast<decltype((reflection->*get)(*message, field))>(Number(0)));
    } else {
      const auto old = (reflection->*get)(*message, field);
      (reflection->*put)(
          message, field,
          static_cast<std::remove_const_t<decltype(old)>>(Number(static_cast<uint64_t>(old))));
    }
  };
  using Reflection = google::protobuf::Reflection;
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return set(&Reflection::GetInt32, &Reflection::SetInt32, &Reflection::AddInt32);
    case FieldDescriptor::CPPTYPE_INT64:
      return set(&Reflection::GetInt64, &Reflection::SetInt64, &Reflection::AddInt64);
    case FieldDescriptor::CPPTYPE_UINT32:
      return set(&Reflection::GetUInt32, &Reflection::SetUInt32, &Reflection::AddUInt32);
    case FieldDescriptor::CPPTYPE_UINT64:
      return set(&Reflection::GetUInt64, &Reflection::SetUInt64, &Reflection::AddUInt64);
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return set(&Reflection::GetDouble, &Reflection::SetDouble, &Reflection::AddDouble);
    case FieldDescriptor::CPPTYPE_FLOAT:
      return set(&Reflection::GetFloat, &Reflection::SetFloat, &Reflection::AddFloat);
    case FieldDescriptor::CPPTYPE_BOOL: {
      const bool value = Choose(2) != 0;
      return add ? reflection->AddBool(message, field, value)
                 : reflection->SetBool(message, field, value);
    }
    case FieldDescriptor::CPPTYPE_ENUM: {
      // One that it does not have, now and then.
      const int count = field->enum_type()->value_count();
      const auto at = static_cast<int>(Choose(static_cast<uint64_t>(count) + 1));
      const int value = at == count ? 99 : field->enum_type()->value(at)->number();
      return add ? reflection->AddEnumValue(message, field, value)
                 : reflection->SetEnumValue(message, field, value);
    }
    case FieldDescriptor::CPPTYPE_STRING: {
      const bool is_bytes = field->type() == FieldDescriptor::TYPE_BYTES;
      return add ? reflection->AddString(message, field, Text("", is_bytes))
                 : reflection->SetString(message, field,
                                         Text(reflection->GetString(*message, field), is_bytes));
    }
    case FieldDescriptor::CPPTYPE_MESSAGE: {
      Message* part =
          add ? reflection->AddMessage(message, field) : reflection->MutableMessage(message, field);
      const auto* descriptor = part->GetDescriptor();
      if (descriptor->field_count() == 0) return;
      return SetValue(part, descriptor->field(static_cast<int>(
                                Choose(static_cast<uint64_t>(descriptor->field_count())))));
    }
  }
}

void MessageMutator::ChangeList(Message* message, Field field) {
  const auto* reflection = message->GetReflection();
  const int size = reflection->FieldSize(*message, field);
  if (size == 0 || Choose(3) == 0) return SetValue(message, field);
  const auto at = static_cast<int>(Choose(static_cast<uint64_t>(size)));
  if (Choose(2) == 0 && field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE && !field->is_map()) {
    // The same once more.
    Message* added = reflection->AddMessage(message, field);
    added->CopyFrom(reflection->GetRepeatedMessage(*message, field, at));
    return;
  }
  reflection->SwapElements(message, field, at, size - 1);
  if (Choose(2) == 0) reflection->RemoveLast(message, field);
}

void MessageMutator::CopyAPart(Message* message) {
  std::vector<Message*> all;
  Collect(message, 0, &all);
  Message* to = all[Choose(all.size())];
  std::vector<Message*> same;
  std::copy_if(all.begin(), all.end(), std::back_inserter(same), [&](const Message* other) {
    return other != to && other->GetDescriptor() == to->GetDescriptor();
  });
  if (same.empty()) return;
  // One may lie in the other.
  const std::unique_ptr<Message> copy(to->New());
  copy->CopyFrom(*same[Choose(same.size())]);
  to->CopyFrom(*copy);
}

void MessageMutator::Mutate(Message* message) {
  if (Choose(8) == 0) return CopyAPart(message);
  std::vector<Message*> all;
  Collect(message, 0, &all);
  Message* chosen = all[Choose(all.size())];
  const auto* descriptor = chosen->GetDescriptor();
  if (descriptor->field_count() == 0) return;
  const FieldDescriptor* field =
      descriptor->field(static_cast<int>(Choose(static_cast<uint64_t>(descriptor->field_count()))));
  if (field->is_repeated()) return ChangeList(chosen, field);
  if (chosen->GetReflection()->HasField(*chosen, field) && Choose(6) == 0) {
    chosen->GetReflection()->ClearField(chosen, field);
  } else {
    SetValue(chosen, field);
  }
}

bool ParseText(const uint8_t* data, size_t size, Message* message) {
  NoErrors errors;
  google::protobuf::TextFormat::Parser parser;
  parser.RecordErrorsTo(&errors);
  parser.SetRecursionLimit(100);
  return parser.ParseFromString(std::string(reinterpret_cast<const char*>(data), size), message);
}

size_t MutateText(uint8_t* data, size_t size, size_t max_size, unsigned seed,
                  std::vector<std::string> words, Message* prototype) {
  if (!ParseText(data, size, prototype)) prototype->Clear();
  MessageMutator mutator(seed, std::move(words));
  std::string text;
  for (int attempt = 0; attempt < 4; ++attempt) {
    mutator.Mutate(prototype);
    google::protobuf::TextFormat::PrintToString(*prototype, &text);
    if (text.size() <= max_size) {
      std::memcpy(data, text.data(), text.size());
      return text.size();
    }
    prototype->Clear();  // it does not fit
  }
  return 0;
}

}  // namespace twinroot::fuzz
