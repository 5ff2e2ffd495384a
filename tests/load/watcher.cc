#include "tests/load/watcher.h"

#include <thread>

#include "grpcpp/client_context.h"

namespace twinroot::load {
namespace {

constexpr auto kPause = std::chrono::milliseconds(50);

bool IsEnd(const v1::Event& event, const std::string& last_vm) {
  return event.kind_case() == v1::Event::kVmState && event.vm() == last_vm &&
         event.vm_state().state() == v1::Vm::STATE_STOPPED;
}

}  // namespace

void Told::Add(const v1::Event& event) {
  if (event.has_bookmark()) return;
  if (event.has_gap()) {
    missed += event.gap().count();
    return;
  }
  ++events;
  for (const char c : event.cursor()) {
    digest = (digest ^ static_cast<unsigned char>(c)) * 1099511628211u;  // FNV-1a
  }
}

bool Told::Covers(const Told& all) const {
  return events + missed == all.events && (missed != 0 || digest == all.digest);
}

void Watcher::Run() {
  while (Follow() == Leg::kCut) ++resumed_;
}

Watcher::Leg Watcher::Follow() {
  grpc::ClientContext context;
  v1::WatchEventsRequest request;
  request.set_start_cursor(cursor_);
  auto stream = client_->events().WatchEvents(&context, request);
  v1::WatchEventsResponse message;
  uint64_t events = 0;
  while (stream->Read(&message)) {
    ++messages_;
    for (const v1::Event& event : message.events()) {
      told_.Add(event);
      cursor_ = event.cursor();
      if (IsEnd(event, last_vm_)) {
        context.TryCancel();
        stream->Finish();
        return Leg::kEnd;
      }
      // In the middle of a message: the rest of it must be told again.
      if (manner_.cut_after != 0 && ++events >= manner_.cut_after) {
        context.TryCancel();
        stream->Finish();
        return Leg::kCut;
      }
    }
    if (std::chrono::steady_clock::now() < manner_.slow_until) std::this_thread::sleep_for(kPause);
  }
  Must(stream->Finish(), "WatchEvents");
  Must(false, "WatchEvents has ended before its VM did");
  return Leg::kEnd;
}

Told ListAll(Client* client, const std::string& cursor, const std::string& last_vm) {
  Told told;
  v1::ListEventsRequest request;
  request.set_start_cursor(cursor);
  for (;;) {
    grpc::ClientContext context;
    v1::ListEventsResponse page;
    Must(client->events().ListEvents(&context, request, &page), "ListEvents");
    for (const v1::Event& event : page.events()) {
      told.Add(event);
      if (IsEnd(event, last_vm)) return told;
    }
    Must(page.next_cursor() != page.end_cursor(), "the list of events has no end of " + last_vm);
    request.set_start_cursor(page.next_cursor());
    request.set_end_cursor(page.end_cursor());
  }
}

}  // namespace twinroot::load
