// The floor: a bare gRPC server that has nothing to do but to answer. Its WatchEvents writes one
// ready-made message again and again, its ListConversions is empty.
#ifndef TWINROOT_TESTS_LOAD_RAW_SERVER_H_
#define TWINROOT_TESTS_LOAD_RAW_SERVER_H_

#include <cstdint>
#include <string>

namespace twinroot::load {

// Serves on `endpoint` until the parent process ends; each stream has `events` events and then
// tells that the VM `last_vm` has stopped. Returns the exit code.
int ServeRaw(const std::string& endpoint, uint64_t events, const std::string& last_vm);

// ServeRaw on a unix socket, in a process of its own, which ends with this object.
class RawServer {
 public:
  RawServer(const std::string& endpoint, uint64_t events, const std::string& last_vm);
  ~RawServer();
  RawServer(const RawServer&) = delete;
  RawServer& operator=(const RawServer&) = delete;

 private:
  const std::string path_;
  int pid_ = -1;
};

}  // namespace twinroot::load

#endif  // TWINROOT_TESTS_LOAD_RAW_SERVER_H_
