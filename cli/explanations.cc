#include "cli/explanations.h"

#include <algorithm>
#include <cctype>

namespace twinroot::cli {
namespace {

using grpc::StatusCode;

constexpr char kShowMemory[] =
    "addresses and sizes are multiples of 4KiB: see `hvctl memory get {vm|NAME}`";
constexpr char kShowHost[] = "`hvctl host show` shows what this host can do";
constexpr char kShowLimits[] = "`hvctl host show` shows the limits, `hvctl vm list` what is in use";
constexpr char kBeginAtOldest[] = "leave out --since to begin at the oldest event kept";
constexpr char kReportIt[] = "this is a fault of hvd; look at its log";
constexpr char kAskVm[] =
    "`hvctl vm get NAME` has the sentence, `hvctl vm console NAME` what it said";

void AddRequestReasons(std::vector<Explanation>* table) {
  const auto add = [&](const char* word, const char* meaning, const char* next,
                       AsHint as_hint = AsHint::kYes) {
    table->push_back(
        {Subject::kReason, word, meaning, next, StatusCode::INVALID_ARGUMENT, as_hint});
  };
  add("INVALID_NAME", "This cannot be a VM's name.",
      "a name is a-z, then a-z, 0-9 or '-', at most 63 characters");
  add("MISSING_FIELD", "The request lacks a field that it needs.", "give what the sentence names",
      AsHint::kNo);
  add("INVALID_FIELD", "A value breaks the rule of its field.",
      "the sentence names the field and its rule", AsHint::kNo);
  add("INVALID_RANGE", "A range is empty, not made of whole pages, or outside of the VM's memory.",
      kShowMemory);
  add("RANGES_OVERLAP", "Two ranges of one request have pages in common.",
      "join them, or send them one after the other");
  add("TOO_MANY_RANGES", "One request takes at most 16,384 ranges.", "send several requests");
  add("INVALID_PAGE_TOKEN", "No list has given this page token.",
      "take next_page_token of the page before");
  add("INVALID_PROGRAM", "The access program breaks a rule of program.proto.",
      "the sentence names the step", AsHint::kNo);
  add("CHUNK_TOO_LARGE", "A chunk of an uploaded image has more than 1 MiB.",
      "send smaller chunks");
  add("IMAGE_TOO_LARGE", "An image has at most 64 MiB.", "strip it, or compress the kernel");
  add("IMAGE_INCOMPLETE", "Fewer bytes came than the upload announced.", "upload the image again");
  add("IMAGE_EMPTY", "The image has no byte.", "check how it was built");
  add("REQUEST_ID_REUSED", "Another request has been made under this request id.",
      "take a new --request-id for each new command");
  add("FIELD_NOT_UPDATABLE", "This cannot change while the VM is there.",
      "delete the VM and create it as you want it");
  add("CURSOR_MALFORMED", "This is not a cursor of the event stream.",
      "take a cursor from `hvctl events -o json`");
}

void AddOtherReasons(std::vector<Explanation>* table) {
  const auto add = [&](StatusCode code, const char* word, const char* meaning, const char* next) {
    table->push_back({Subject::kReason, word, meaning, next, code, AsHint::kYes});
  };
  add(StatusCode::OUT_OF_RANGE, "CURSOR_EXPIRED",
      "The events after this cursor are not kept any more.", kBeginAtOldest);
  add(StatusCode::OUT_OF_RANGE, "CURSOR_OTHER_EPOCH",
      "The cursor is of another journal: this one was made anew, or may have lost its tail.",
      kBeginAtOldest);
  add(StatusCode::OUT_OF_RANGE, "CURSOR_IN_FUTURE", "No event with this cursor has happened yet.",
      kBeginAtOldest);
  add(StatusCode::NOT_FOUND, "NO_SUCH_VM", "There is no VM of this name.",
      "`hvctl vm list` shows the VMs");
  add(StatusCode::NOT_FOUND, "NO_SUCH_IMAGE", "The daemon keeps no such image (any more).",
      "create the VM with --image again: hvctl uploads it");
  add(StatusCode::ALREADY_EXISTS, "VM_EXISTS", "There is a VM of this name.",
      "take another name, or `hvctl vm delete {vm|NAME}`");
  add(StatusCode::NOT_FOUND, "NO_SUCH_MEMSLOT", "No memslot that was added begins there.",
      "`hvctl memory get {vm|NAME}` shows the VM's memory");
  add(StatusCode::ALREADY_EXISTS, "MEMSLOT_EXISTS", "There is memory already.",
      "`hvctl memory get {vm|NAME}` shows the VM's memory");
  add(StatusCode::UNAUTHENTICATED, "CERTIFICATE_REVOKED", "The client's certificate is revoked.",
      "get a new certificate, and give it with --cert");
  add(StatusCode::PERMISSION_DENIED, "ROLE_REQUIRED", "The caller's role does not allow this call.",
      "ask for the role {role_required|that it needs}, or run hvctl as a user that has it");
  add(StatusCode::PERMISSION_DENIED, "PRIVATE_MEMORY",
      "The range touches private memory, which nobody reads or writes from outside.",
      "`hvctl memory get {vm|NAME}` shows which ranges are shared");
  add(StatusCode::PERMISSION_DENIED, "PRESERVE_WOULD_DISCLOSE",
      "Keeping the bytes of private memory while it becomes shared would show them to the host.",
      "leave out --preserve, or let the guest share the range itself");
  add(StatusCode::FAILED_PRECONDITION, "WRONG_STATE", "The VM's state does not allow this.",
      "`hvctl vm get {vm|NAME}` shows its state");
  add(StatusCode::FAILED_PRECONDITION, "BACKEND_UNAVAILABLE", "This host cannot run that backend.",
      kShowHost);
  add(StatusCode::FAILED_PRECONDITION, "CPU_GROUPS_UNAVAILABLE",
      "The daemon cannot make control groups, so VMs have no shares of processor time.",
      "`hvctl host show` says why; or leave --cpu-weight, --max-cpus out");
  add(StatusCode::FAILED_PRECONDITION, "IMAGE_NEEDS_KVM",
      "Images run on real processors only; sim runs access programs.", kShowHost);
  add(StatusCode::FAILED_PRECONDITION, "NOT_ON_THIS_BACKEND",
      "VMs of this backend, or on shadow tables, cannot do this.",
      "create the VM with --backend sim");
  add(StatusCode::FAILED_PRECONDITION, "DENIAL_UNSUPPORTED",
      "The processor cannot deny this kind of access.",
      "`hvctl host show` shows what this host can enforce");
  add(StatusCode::FAILED_PRECONDITION, "NO_CONSOLE_INPUT",
      "The guest has no serial port to type on; only operating systems do.",
      "watch its console with `hvctl vm console {vm|NAME} --follow`");
  add(StatusCode::FAILED_PRECONDITION, "DIRTY_LOG_OFF", "Writes of this VM are not logged.",
      "`hvctl dirty enable {vm|NAME}` begins one");
  add(StatusCode::FAILED_PRECONDITION, "DIRTY_LOG_ON", "Writes of this VM are logged already.",
      "`hvctl dirty disable {vm|NAME}` ends it");
  add(StatusCode::FAILED_PRECONDITION, "DIRTY_LOG_NOT_MANUAL",
      "Harvests make the pages of this log clean, so it cannot be cleared by hand.",
      "enable it with --manual-clear");
  add(StatusCode::FAILED_PRECONDITION, "DIRTY_LOG_UNSUPPORTED",
      "This backend or processor cannot log writes in this mode.",
      "kvm logs by write-protect only; sim with --mmu tdp in every mode");
  add(StatusCode::FAILED_PRECONDITION, "NX_HUGE_PAGES_OFF",
      "The VM was made without the mitigation that makes pages small.",
      "create the VM with --nx-huge-pages on");
  add(StatusCode::ABORTED, "ETAG_MISMATCH", "The VM has changed since the etag was given.",
      "`hvctl vm get {vm|NAME} -o json` shows it as it is, with its etag");
  add(StatusCode::ABORTED, "WATCH_TOO_SLOW",
      "The reader of a lossless stream was too slow, and guests go on without it.",
      "go on with --since {cursor|CURSOR}");
  add(StatusCode::RESOURCE_EXHAUSTED, "TOO_MANY_VMS", "The host has as many VMs as it takes.",
      kShowLimits);
  add(StatusCode::RESOURCE_EXHAUSTED, "CONSOLE_INPUT_FULL",
      "64 KiB wait that the guest has not read from its console.", "type again when it has read");
  add(StatusCode::RESOURCE_EXHAUSTED, "IMAGE_STORE_FULL", "VMs use every image that is kept.",
      "delete VMs that use other images, then try again");
  add(StatusCode::RESOURCE_EXHAUSTED, "TOO_MUCH_MEMORY",
      "A VM may be given as much memory as it was made with, in at most 32 memslots.",
      "`hvctl memory remove {vm|NAME} GPA` takes added memory away");
  add(StatusCode::RESOURCE_EXHAUSTED, "TOO_MANY_CALLS",
      "This caller has as many calls under way as it may.",
      "wait until calls of yours end, or raise the limits in hvd.yaml");
  add(StatusCode::RESOURCE_EXHAUSTED, "TOO_MANY_CONNECTIONS",
      "This caller has as many connections as it may.",
      "wait until calls of yours end, or raise the limits in hvd.yaml");
  add(StatusCode::UNAVAILABLE, "VCPU_WAITS",
      "On kvm, memory does not come, go or move while a vCPU waits in an access to it.",
      "decide what `hvctl conversion list {vm|NAME}` shows, then try again");
  add(StatusCode::UNAVAILABLE, "DRAINING", "The host takes no new VMs; those that run go on.",
      "use another host, or open it again with `hvctl host drain --undo`");
  add(StatusCode::UNAVAILABLE, "DAEMON_STOPPING", "The daemon is shutting down.",
      "start hvd again; VMs of before are gone");
}

void AddStopReasons(std::vector<Explanation>* table) {
  const auto add = [&](const char* word, const char* meaning, const char* next) {
    table->push_back({Subject::kStopReason, word, meaning, next, StatusCode::OK, AsHint::kNo});
  };
  add("STOP_REQUESTED", "Somebody has stopped it: `hvctl vm stop`.",
      "`hvctl vm create` and `vm start` run it anew");
  add("GUEST_RESET", "The guest asked for a reset, which here is its end.", kAskVm);
  add("TRIPLE_FAULT", "A fault within a double fault: the guest's exception handling is broken.",
      "look at its console; for guests without secrets, --debug registers says more");
  add("UNHANDLED_EXIT", "The guest did something that no device or rule here answers.", kAskVm);
  add("MMIO_OUTSIDE_MEMORY",
      "The guest touched an address where there is neither memory nor device.",
      "`hvctl memory get NAME` shows where its memory is");
  add("CONVERSION_DENIED",
      "A conversion that the guest could not go on without was denied, or 1,000 in a row were.",
      "`hvctl events --vm NAME --kind conversion` shows which; `hvctl vm create --policy` says who "
      "decides");
  add("CONVERSION_QUOTA", "An access needed a conversion over a quota of the VM's policy.",
      "`hvctl vm get NAME` shows the quotas, `hvctl vm create --max-shared` and others set them");
  add("MEMORY_FAULT", "The guest made an access that `hvctl memory set --deny` has denied.",
      "`hvctl memory get NAME` shows what is denied");
  add("OUT_OF_MEMORY", "The host had no memory for a page or a table of the VM.",
      "free memory on the host, or make smaller VMs");
  add("ENGINE_BUG", "The engine found its own tables broken and stopped the VM.", kReportIt);
  add("BACKEND_ERROR", "KVM or the software processor failed.",
      "`hvctl vm get NAME` has its words; hvd's log says more");
  add("DAEMON_STOPPING", "The daemon was shut down; VMs end with it.", "create the VM again");
}

void AddExitCodes(std::vector<Explanation>* table) {
  const auto add = [&](const char* word, const char* meaning, const char* next) {
    table->push_back({Subject::kExitCode, word, meaning, next, StatusCode::OK, AsHint::kNo});
  };
  add("0", "Done. Of `vm wait`: the guest ended with 0.", "nothing");
  add("1", "Failed in a way that has no code of its own.",
      "read the sentence and the hint below it");
  add("2", "Bad usage: an option, a value or a file that cannot be taken. Nothing changed.",
      "`hvctl VERB --help` shows what can");
  add("3", "There is no such VM or image.", "`hvctl vm list` shows the VMs");
  add("4", "No daemon answers.",
      "is hvd running? name its socket with --endpoint PATH or HVCTL_ENDPOINT");
  add("5", "A conflict with the state: the name is taken, or the VM's state does not allow it.",
      "`hvctl vm get NAME` shows the state");
  add("6", "Denied: the socket, the role, or memory that is private.",
      "run hvctl as a user that may; private memory is for nobody");
  add("124", "It took longer than --timeout, or the daemon did not answer in time.",
      "wait longer; `hvctl vm get NAME` shows the state");
  add("125", "Of `vm wait`: the VM stopped for a reason and has no exit code.",
      "`hvctl vm get NAME` shows the reason, `hvctl explain REASON` what it means");
  add("130", "Ctrl-C. What the daemon was doing may be done all the same.",
      "look before you repeat it, or repeat it with the same --request-id");
}

void AddEventKinds(std::vector<Explanation>* table) {
  const auto add = [&](const char* word, const char* meaning, const char* next) {
    table->push_back({Subject::kEventKind, word, meaning, next, StatusCode::OK, AsHint::kNo});
  };
  add("vm-state", "A VM was defined, started, paused, resumed, stopped or deleted.",
      "`hvctl vm get NAME` shows it as it is");
  add("conversion", "A conversion was decided: where, how much, which way, why, how long it took.",
      "`hvctl memory get NAME` shows the memory of now");
  add("conversion-requested", "A vCPU waits for a decision about a conversion.",
      "`hvctl conversion list NAME`, then approve or deny");
  add("attributes-changed", "Denials of accesses changed.", "`hvctl memory get NAME` shows them");
  add("memory-fault", "A guest made an access that is denied; its VM stopped.",
      "`hvctl explain MEMORY_FAULT`");
  add("split-summary", "Large pages became tables since the last summary, by reason.",
      "`hvctl memory stats NAME` counts them");
  add("collapse-summary", "Tables became large pages since the last summary, by reason.",
      "`hvctl memory stats NAME` counts them");
  add("dirty-log-state", "Logging of writes began or ended.", "`hvctl memory stats NAME` shows it");
  add("audit-failure", "An audit found a VM's tables broken.", kReportIt);
  add("daemon-started", "The daemon began; VMs of before are gone.",
      "it also says how the one before ended");
  add("vm-updated", "A VM's policy or labels changed.", "`hvctl vm get NAME` shows the new ones");
}

bool SameWord(std::string_view a, std::string_view b) {
  const auto folded = [](char c) {
    return c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  };
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(),
                                            [&](char x, char y) { return folded(x) == folded(y); });
}

}  // namespace

const std::vector<Explanation>& Explanations() {
  static const std::vector<Explanation>* const table = [] {
    auto* all = new std::vector<Explanation>;
    AddRequestReasons(all);
    AddOtherReasons(all);
    AddStopReasons(all);
    AddExitCodes(all);
    AddEventKinds(all);
    return all;
  }();
  return *table;
}

std::vector<const Explanation*> Explain(std::string_view word) {
  std::vector<const Explanation*> found;
  for (const Explanation& explanation : Explanations()) {
    if (SameWord(explanation.word, word)) found.push_back(&explanation);
  }
  return found;
}

std::string NextStep(const Explanation& explanation,
                     const std::function<std::string(const std::string& key)>& metadata) {
  const std::string text = explanation.next;
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const size_t open = std::min(text.find('{', at), text.size());
    out += text.substr(at, open - at);
    if (open == text.size()) break;
    const size_t bar = text.find('|', open);
    const size_t close = text.find('}', bar);
    const std::string value = metadata(text.substr(open + 1, bar - open - 1));
    out += value.empty() ? text.substr(bar + 1, close - bar - 1) : value;
    at = close + 1;
  }
  return out;
}

}  // namespace twinroot::cli
