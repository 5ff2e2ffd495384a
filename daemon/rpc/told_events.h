// Puts events into the `events` of a response as the bytes that they are, so that each is
// serialized once, however many callers are told. Nobody who writes the message looks into them:
// they go in as unknown fields, which are the same on the wire as known ones.
#ifndef TWINROOT_DAEMON_RPC_TOLD_EVENTS_H_
#define TWINROOT_DAEMON_RPC_TOLD_EVENTS_H_

#include <google/protobuf/unknown_field_set.h>

#include <functional>
#include <string>

namespace twinroot::rpc {

// Takes a serialized v1::Event.
using TellEvent = std::function<void(const std::string&)>;

// Adds to `response`, whose `events` are all added so.
template <typename Response>
TellEvent TellIn(Response* response) {
  google::protobuf::UnknownFieldSet* fields =
      response->GetReflection()->MutableUnknownFields(response);
  return [fields](const std::string& event) {
    fields->AddLengthDelimited(Response::kEventsFieldNumber, event);
  };
}

}  // namespace twinroot::rpc

#endif  // TWINROOT_DAEMON_RPC_TOLD_EVENTS_H_
