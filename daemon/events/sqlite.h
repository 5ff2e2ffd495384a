// SQLite's C interface with owners and statuses, as much of it as the journal needs.
//
// A connection and its statements belong to one thread at a time. Errors: kDataLoss: the file is no
// database, or a damaged one. kResourceExhausted: the disk is full. kPermissionDenied: the file
// cannot be opened or written. kUnavailable: everything else.
#ifndef TWINROOT_DAEMON_EVENTS_SQLITE_H_
#define TWINROOT_DAEMON_EVENTS_SQLITE_H_

#include <sqlite3.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace twinroot::events {

class Statement {
 public:
  explicit Statement(sqlite3_stmt* statement) : statement_(statement) {}

  // Parameters, from 1. Text and bytes must live until the next Step; they are not copied.
  Statement& Bind(int index, uint64_t value);
  Statement& BindText(int index, const std::string& text);
  Statement& BindBytes(int index, std::string_view bytes);
  Statement& BindNull(int index);

  // True: there is a row. False: there is none (left); the statement may be bound and run again.
  absl::StatusOr<bool> Step();
  // Runs to its end; rows are of no interest.
  absl::Status Run();
  // Lets go of what it reads.
  void Reset() { sqlite3_reset(statement_.get()); }

  // Columns of the row, from 0.
  uint64_t Number(int column) const;
  // Until the next step.
  std::string_view Bytes(int column) const;
  bool IsNull(int column) const;

 private:
  struct Finalize {
    void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
  };
  std::unique_ptr<sqlite3_stmt, Finalize> statement_;
};

class Database {
 public:
  // Made if it is missing.
  static absl::StatusOr<Database> Open(const std::string& path);

  // Statements without parameters, whose rows are of no interest.
  absl::Status Run(const std::string& sql);
  absl::StatusOr<Statement> Prepare(const std::string& sql);
  // The first column of the first row; 0, or "", if there is none.
  absl::StatusOr<uint64_t> Number(const std::string& sql);
  absl::StatusOr<std::string> Text(const std::string& sql);

  // `change` as one transaction: all of it or, if it or the commit fails, nothing.
  template <typename Change>
  absl::Status Transact(const Change& change) {
    absl::Status status = Run("BEGIN IMMEDIATE");
    if (status.ok()) status = change();
    if (status.ok()) status = Run("COMMIT");
    if (!status.ok()) RollBack();
    return status;
  }

 private:
  struct Close {
    void operator()(sqlite3* database) const { sqlite3_close_v2(database); }
  };
  explicit Database(sqlite3* database) : database_(database) {}
  void RollBack();

  std::unique_ptr<sqlite3, Close> database_;
};

}  // namespace twinroot::events

#endif  // TWINROOT_DAEMON_EVENTS_SQLITE_H_
