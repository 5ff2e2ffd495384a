// A fuzz target without a fuzzer, so that every lane runs it: each file of its corpus, and many
// random inputs, half of them made of the corpus.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
// Of a target that knows what its inputs are made of.
extern "C" __attribute__((weak)) size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size,
                                                                size_t max_size, unsigned seed);

namespace {

using Input = std::vector<uint8_t>;

// The target's own, where an input takes long.
#if defined(TWINROOT_INPUTS)
constexpr int kInputs = TWINROOT_INPUTS;
constexpr size_t kMostBytes = 1024;
#else
constexpr int kInputs = 200'000;
constexpr size_t kMostBytes = 128;
#endif
constexpr size_t kMostBytesOfAMutant = 16384;

std::vector<Input> ReadCorpus(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> files;
  for (const auto& file : std::filesystem::directory_iterator(folder)) files.push_back(file);
  std::sort(files.begin(), files.end());
  std::vector<Input> corpus;
  for (const auto& path : files) {
    std::ifstream file(path, std::ios::binary);
    corpus.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  return corpus;
}

void ChangeBytes(Input& input, std::mt19937_64& random) {
  const size_t at = random() % (input.size() + 1);
  const auto place = input.begin() + static_cast<std::ptrdiff_t>(at);
  const auto few = static_cast<std::ptrdiff_t>(std::min<size_t>(random() % 16, input.size() - at));
  switch (random() % 4) {
    case 0:
      if (at < input.size()) input[at] = static_cast<uint8_t>(random());
      break;
    case 1:
      if (at < input.size()) input[at] ^= static_cast<uint8_t>(1 << random() % 8);
      break;
    case 2:
      input.erase(place, place + few);
      break;
    default: {
      const Input copy(place, place + few);
      input.insert(input.begin() + static_cast<std::ptrdiff_t>(random() % (input.size() + 1)),
                   copy.begin(), copy.end());
    }
  }
}

Input MutantOf(Input input, std::mt19937_64& random) {
  for (uint64_t changes = 1 + random() % 4; changes > 0; --changes) {
    if (LLVMFuzzerCustomMutator == nullptr) {
      ChangeBytes(input, random);
      continue;
    }
    const size_t size = input.size();
    input.resize(std::max(size, kMostBytesOfAMutant));
    input.resize(
        LLVMFuzzerCustomMutator(input.data(), size, input.size(), static_cast<unsigned>(random())));
  }
  return input;
}

Input RandomBytes(int number, std::mt19937_64& random) {
  Input input(random() % kMostBytes);
  for (uint8_t& byte : input) byte = static_cast<uint8_t>(random());
  // Entries that lead on are rare among random words: of every second input make them common.
  if (number % 2 == 0) {
    for (size_t word = 20; word + 8 <= input.size(); word += 8) {
      input[word] |= 1;
      for (size_t high = 2; high < 8; ++high) input[word + high] = 0;
      input[word + 1] &= 0x7F;
    }
  }
  return input;
}

}  // namespace

int main(int argc, char** argv) {
  const char* given = std::getenv("TWINROOT_SEED");
  const uint64_t seed =
      given != nullptr ? std::strtoull(given, nullptr, 0) : std::random_device{}();
  std::printf("TWINROOT_SEED=%llu\n", static_cast<unsigned long long>(seed));
  std::fflush(stdout);
  std::mt19937_64 random(seed);
  const std::vector<Input> corpus = argc > 1 ? ReadCorpus(argv[1]) : std::vector<Input>();
  for (const Input& input : corpus) LLVMFuzzerTestOneInput(input.data(), input.size());
  for (int i = 0; i < kInputs; ++i) {
    const Input input = !corpus.empty() && i % 4 < 2
                            ? MutantOf(corpus[random() % corpus.size()], random)
                            : RandomBytes(i, random);
    LLVMFuzzerTestOneInput(input.data(), input.size());
  }
  std::printf("%zu files, %d inputs\n", corpus.size(), kInputs);
}
