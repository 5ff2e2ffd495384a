// What a fuzz target demands. It ends the process with a sentence, so that a fuzzer keeps the
// input.
#ifndef TWINROOT_TESTS_FUZZ_REQUIRE_H_
#define TWINROOT_TESTS_FUZZ_REQUIRE_H_

#include <cstdio>
#include <cstdlib>
#include <string>

namespace twinroot::fuzz {

inline void Require(bool holds, const std::string& what) {
  if (holds) return;
  std::fprintf(stderr, "does not hold: %s\n", what.c_str());
  std::abort();
}

}  // namespace twinroot::fuzz

#endif  // TWINROOT_TESTS_FUZZ_REQUIRE_H_
