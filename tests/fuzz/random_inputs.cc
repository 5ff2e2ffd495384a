// A fuzz target without a fuzzer: many random inputs, so that every lane runs the target.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

int main() {
  const char* given = std::getenv("TWINROOT_SEED");
  const uint64_t seed =
      given != nullptr ? std::strtoull(given, nullptr, 0) : std::random_device{}();
  std::printf("TWINROOT_SEED=%llu\n", static_cast<unsigned long long>(seed));
  std::fflush(stdout);
  std::mt19937_64 random(seed);
  // The target's own, where an input takes long.
#if defined(TWINROOT_INPUTS)
  constexpr int kInputs = TWINROOT_INPUTS;
  constexpr size_t kMostBytes = 1024;
#else
  constexpr int kInputs = 200'000;
  constexpr size_t kMostBytes = 128;
#endif
  for (int i = 0; i < kInputs; ++i) {
    std::vector<uint8_t> input(random() % kMostBytes);
    for (uint8_t& byte : input) byte = static_cast<uint8_t>(random());
    // Entries that lead on are rare among random words: of every second input make them common.
    if (i % 2 == 0) {
      for (size_t word = 20; word + 8 <= input.size(); word += 8) {
        input[word] |= 1;
        for (size_t high = 2; high < 8; ++high) input[word + high] = 0;
        input[word + 1] &= 0x7F;
      }
    }
    LLVMFuzzerTestOneInput(input.data(), input.size());
  }
  std::printf("%d inputs\n", kInputs);
}
