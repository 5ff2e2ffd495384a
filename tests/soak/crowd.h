// Some VMs, and somebody who does to them whatever comes to mind: starts, stops, pauses, converts,
// logs, splits, recovers, gives and takes memory, decides. One thread.
#ifndef TWINROOT_TESTS_SOAK_CROWD_H_
#define TWINROOT_TESTS_SOAK_CROWD_H_

#include <chrono>
#include <cstdint>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "tests/soak/daemon.h"

namespace twinroot::soak {

class Crowd {
 public:
  // VMs "{prefix}-0", ...; which of `backends` each runs on is random, and again at each new life.
  // The first `busy` of them never rest.
  Crowd(Daemon* daemon, std::string prefix, int vms, int busy, std::vector<v1::Backend> backends,
        uint64_t seed);

  void CreateAll();
  // One thing to one of them. Ends the program if it fails for a reason that it must not.
  void Disturb();
  // Nothing disturbs them any more, and whoever waits is let go: each goes on. Ends the program
  // if one does not.
  void ExpectMoves();
  void DeleteAll();

  // How often each call was made, how many of them were refused as they may be, and how long one
  // took.
  struct Tally {
    uint64_t done = 0;
    uint64_t refused = 0;
    std::chrono::duration<double, std::milli> sum{0}, longest{0};

    void Add(const Tally& other);
  };
  const std::map<std::string, Tally>& counts() const { return counts_; }
  uint64_t lives() const { return lives_; }

 private:
  uint64_t Below(uint64_t limit) { return random_() % limit; }
  v1::MemoryRange SomeRange(uint64_t unit);
  void Create(const std::string& vm);
  void Delete(const std::string& vm);
  void DecideAll(const std::string& vm);
  void Harvest(const std::string& vm);
  uint64_t Faults(const std::string& vm);

  void Live(const std::string& vm);     // its states
  void Convert(const std::string& vm);  // its attributes
  void Log(const std::string& vm);      // its dirty pages, for some rounds
  void Look(const std::string& vm);     // changes nothing
  void Pages(const std::string& vm);    // their sizes
  void Slots(const std::string& vm);    // its memory

  // Makes a call, counts it, and looks at what came of it.
  template <typename Stub, typename Request, typename Response>
  void Make(const char* name, Stub* stub,
            grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
            const Request& request, Response* response);
  template <typename Response, typename Stub, typename Request>
  void MakeStream(const char* name, Stub* stub,
                  std::unique_ptr<grpc::ClientReader<Response>> (Stub::*method)(
                      grpc::ClientContext*, const Request&),
                  const Request& request);
  void Count(const char* name, const grpc::Status& status,
             std::chrono::steady_clock::time_point begin);

  Daemon* const daemon_;
  const std::vector<v1::Backend> backends_;
  std::vector<std::string> vms_;
  std::set<std::string> busy_;
  std::mt19937_64 random_;
  std::map<std::string, Tally> counts_;
  uint64_t lives_ = 0;
};

}  // namespace twinroot::soak

#endif  // TWINROOT_TESTS_SOAK_CROWD_H_
