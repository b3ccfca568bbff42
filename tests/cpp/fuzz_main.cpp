// Feeds a fuzz target random bytes for a number of seconds: fuzz_assignment [seconds] [seed].
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

int main(int argc, char** argv) {
  const double seconds = argc > 1 ? std::atof(argv[1]) : 5.0;
  const std::uint64_t seed =
      argc > 2 ? std::strtoull(argv[2], nullptr, 10) : std::random_device{}();
  std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
  std::fflush(stdout);
  std::mt19937_64 engine(seed);
  const auto start = std::chrono::steady_clock::now();
  const std::chrono::duration<double> limit(seconds);
  long runs = 0;
  for (; std::chrono::steady_clock::now() - start < limit; ++runs) {
    std::vector<std::uint8_t> bytes(3 + engine() % 20000);
    for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>(engine());
    LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
  }
  std::printf("%ld inputs\n", runs);
  return 0;
}
