#include "daemon/events/store.h"

#include <utility>

#include "absl/time/clock.h"
#include "daemon/events/cursor.h"

namespace twinroot::events {
namespace {

// What a batch leaves of one VM: its newest event, or that its name is free again.
struct VmMark {
  uint64_t sequence = 0;
  uint64_t position = 0;
  bool deleted = false;
};

// What this version does not know is none: a later one's, whose event it does not know either, or a
// damaged row's, whose event is another.
v1::Event::KindCase KindOf(uint64_t number) {
  // EventKind's numbers are those of the fields: filter.cc.
  const bool known = number <= v1::EventKind_MAX && v1::EventKind_IsValid(static_cast<int>(number));
  return known ? static_cast<v1::Event::KindCase>(number) : v1::Event::KIND_NOT_SET;
}

}  // namespace

struct Store::Statements {
  Statement insert;
  Statement keep_vm;
  Statement forget_vm;
  Statement cut;
  Statement drop;
  Statement first;
  Statement expired;
  Statement read;  // the reader's
};

Store::Store(Database writer, Database reader)
    : writer_(std::move(writer)), reader_(std::move(reader)) {}

Store::~Store() = default;

absl::Status Store::Prepare() {
  absl::Status status;
  const auto prepare = [&](Database& database, const char* sql) {
    absl::StatusOr<Statement> statement = database.Prepare(sql);
    if (statement.ok()) return *std::move(statement);
    status = statement.status();
    return Statement(nullptr);
  };
  statements_ = std::make_unique<Statements>(Statements{
      prepare(writer_, "INSERT OR REPLACE INTO events VALUES (?, ?, ?, ?, ?, ?)"),
      prepare(writer_, "INSERT OR REPLACE INTO vms VALUES (?, ?, ?)"),
      prepare(writer_, "DELETE FROM vms WHERE name = ?"),
      prepare(writer_, "SELECT position FROM events ORDER BY position LIMIT 1 OFFSET ?"),
      prepare(writer_,
              "DELETE FROM events WHERE position < ?1 AND position < ?2 "
              "AND position < (SELECT max(position) FROM events)"),
      prepare(writer_, "SELECT min(position) FROM events"),
      prepare(writer_,
              "SELECT max(position + count) FROM (SELECT position, count, time FROM events "
              "ORDER BY position LIMIT ?2) WHERE time < ?1"),
      // An entry that begins before may reach over the position.
      prepare(reader_,
              "SELECT position, count, vm, kind, event FROM events WHERE position >= ifnull("
              "(SELECT max(position) FROM events WHERE position <= ?1), ?1) AND position < ?2 "
              "AND position + count > ?1 ORDER BY position LIMIT ?3")});
  return status;
}

absl::Status Store::Commit(const std::vector<Entry>& entries) {
  return writer_.Transact([&] {
    std::map<std::string, VmMark> vms;
    auto last = vms.end();  // events of one VM come in runs
    const std::string nobody;
    for (const Entry& entry : entries) {
      const SealedEvent* event = entry.event.get();
      Statement& insert = statements_->insert;
      insert.Bind(1, entry.position).Bind(2, entry.count);
      if (event == nullptr) {
        insert.Bind(3, static_cast<uint64_t>(absl::GetCurrentTimeNanos()))
            .BindText(4, nobody)
            .Bind(5, v1::Event::kGap)
            .BindNull(6);
      } else {
        insert.Bind(3, static_cast<uint64_t>(event->time()))
            .BindText(4, event->vm())
            .Bind(5, event->kind())
            .BindBytes(6, event->stored());
        if (!event->vm().empty()) {
          if (last == vms.end() || last->first != event->vm()) {
            last = vms.try_emplace(event->vm()).first;
          }
          last->second = {event->vm_sequence(), entry.position, event->deletes_vm()};
        }
      }
      if (absl::Status status = insert.Run(); !status.ok()) return status;
    }
    for (const auto& [name, mark] : vms) {
      absl::Status status = mark.deleted ? statements_->forget_vm.BindText(1, name).Run()
                                         : statements_->keep_vm.BindText(1, name)
                                               .Bind(2, mark.sequence)
                                               .Bind(3, mark.position)
                                               .Run();
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  });
}

absl::StatusOr<std::vector<Entry>> Store::Read(uint64_t position, uint64_t end, size_t max,
                                               const Filter& filter) {
  std::vector<Entry> entries;
  std::lock_guard lock(read_mutex_);
  Statement& read = statements_->read;
  read.Bind(1, position).Bind(2, end).Bind(3, max);
  while (entries.size() < max) {
    const absl::StatusOr<bool> row = read.Step();
    if (!row.ok()) return row.status();
    if (!*row) return entries;
    Entry& entry = entries.emplace_back();
    entry.position = read.Number(0);
    entry.count = read.Number(1);
    const std::string vm(read.Bytes(2));
    const v1::Event::KindCase kind = KindOf(read.Number(3));
    const std::string_view event = read.Bytes(4);
    const bool wanted = filter.Wants(vm, kind);
    if (event.empty()) {  // or NULL
      entry.what = Entry::What::kLost;
    } else if (!wanted && kind != v1::Event::KIND_NOT_SET) {
      entry.what = Entry::What::kLeftOut;
    } else if (!scratch_.ParseFromArray(event.data(), static_cast<int>(event.size())) ||
               scratch_.kind_case() != kind) {
      // Bytes that are no event would stop everybody at this place for ever.
      entry.what = Entry::What::kLost;
    } else if (!wanted) {
      entry.what = Entry::What::kLeftOut;
    } else {
      entry.event = std::make_shared<const SealedEvent>(vm, kind, event,
                                                        CursorText(opening_.epoch, entry.end()));
    }
  }
  read.Reset();
  return entries;
}

absl::StatusOr<uint64_t> Store::DropBefore(uint64_t limit, size_t max) {
  Statement& cut = statements_->cut;
  const absl::StatusOr<bool> more = cut.Bind(1, max).Step();
  if (!more.ok()) return more.status();
  const uint64_t until = *more ? cut.Number(0) : limit;
  cut.Reset();
  if (absl::Status status = statements_->drop.Bind(1, limit).Bind(2, until).Run(); !status.ok()) {
    return status;
  }
  Statement& first = statements_->first;
  const absl::StatusOr<bool> row = first.Step();
  if (!row.ok()) return row.status();
  const uint64_t position = first.Number(0);
  first.Reset();
  return position;
}

absl::StatusOr<uint64_t> Store::Expired(absl::Time time, size_t max) {
  Statement& expired = statements_->expired;
  const absl::StatusOr<bool> row =
      expired.Bind(1, static_cast<uint64_t>(absl::ToUnixNanos(time))).Bind(2, max).Step();
  if (!row.ok()) return row.status();
  const uint64_t position = *row ? expired.Number(0) : 0;
  expired.Reset();
  return position;
}

absl::StatusOr<uint64_t> Store::Bytes() {
  return writer_.Number(
      "SELECT (SELECT page_count FROM pragma_page_count()) * (SELECT page_size FROM "
      "pragma_page_size()) - (SELECT freelist_count FROM pragma_freelist_count()) * (SELECT "
      "page_size FROM pragma_page_size())");
}

}  // namespace twinroot::events
