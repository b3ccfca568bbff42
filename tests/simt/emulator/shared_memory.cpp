// Shared memory: allocated anew for every block, filled with 0xFF (NaN), and with a margin behind
// every array that AddressSanitizer watches, and that is compared when the block ends without it.
#include <cstdlib>

#include "machine.h"
#include "sanitizers.h"

namespace simt {

namespace {

constexpr std::size_t kMargin = 64, kMostArrays = 64;
constexpr unsigned char kPoison = 0xFF, kMarginByte = 0xA5;

struct Array {
  const void* key;
  std::size_t bytes, offset;
  bool reached;  // by the running block
  Place place;
};

std::vector<Array>& arrays = *new std::vector<Array>;  // static ones of this grid, as first met
std::vector<char*>& tokens = *new std::vector<char*>;
// Allocated by the host before the block's threads exist: to ThreadSanitizer fresh memory, which is
// ordered before every thread.
char* arena = nullptr;
char* dynamic = nullptr;
std::size_t dynamic_bytes = 0, static_bytes = 0, arena_used = 0;

// Not memset: the sanitizers would take it for an access of the running thread.
void fill(char* to, std::size_t size, unsigned char value) {
  volatile char* const bytes = to;
  for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<char>(value);
}

void poison(char* memory, std::size_t bytes) {
  permit(memory, bytes + kMargin);
  fill(memory, bytes, kPoison);
  fill(memory + bytes, kMargin, kMarginByte);
  forbid(memory + bytes, kMargin);
}

bool is_intact(char* memory, std::size_t bytes) {
  permit(memory + bytes, kMargin);
  const volatile char* const margin = memory + bytes;
  for (std::size_t i = 0; i < kMargin; ++i) {
    if (static_cast<unsigned char>(margin[i]) != kMarginByte) return false;
  }
  return true;
}

// To ThreadSanitizer, freeing would be an access that races with the block's last ones.
void free_quietly(void* memory) {
  if (AnnotateIgnoreWritesBegin != nullptr) AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
  std::free(memory);
  if (AnnotateIgnoreWritesEnd != nullptr) AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
}

// A multiple of the alignment, 64 bytes.
std::size_t arena_size() {
  return (machine.options.shared_limit / kMargin + 1 + kMostArrays * 2) * kMargin;
}

void require_room() {
  const std::size_t used = static_bytes + dynamic_bytes;
  if (used > machine.options.shared_limit) {
    fail("shared memory of " + std::to_string(used) + " bytes exceeds the limit of " +
         std::to_string(machine.options.shared_limit));
  }
}

}  // namespace

void* block_token() { return tokens[0]; }
void* warp_token(unsigned warp) { return tokens[1 + warp]; }

void forget_shared_arrays() {
  arrays.clear();
  static_bytes = arena_used = 0;
}

void begin_shared(std::size_t bytes) {
  dynamic_bytes = bytes;
  require_room();
  dynamic = static_cast<char*>(std::malloc(bytes + kMargin));
  poison(dynamic, bytes);
  arena = static_cast<char*>(std::aligned_alloc(kMargin, arena_size()));
  forbid(arena, arena_size());
  for (Array& array : arrays) array.reached = false;
  tokens.resize(1 + machine.warps.size());
  for (char*& token : tokens) token = static_cast<char*>(std::malloc(8));
}

void end_shared() {
  std::string overrun;
  if (!is_intact(dynamic, dynamic_bytes)) overrun = "the dynamic shared memory";
  for (const Array& array : arrays) {
    if (array.reached && !is_intact(arena + array.offset, array.bytes)) {
      overrun = "the shared array at " + describe(array.place);
    }
  }
  permit(arena, arena_size());
  free_quietly(dynamic);
  free_quietly(arena);
  for (char* token : tokens) free_quietly(token);
  if (machine.failure.empty() && !overrun.empty()) machine.failure = "overrun of " + overrun;
}

void* dynamic_shared() { return dynamic; }

void* static_shared(const void* key, std::size_t bytes, Place place) {
  Array* found = nullptr;
  for (Array& array : arrays) {
    if (array.key == key) found = &array;
  }
  if (found == nullptr) {
    static_bytes += bytes;
    require_room();
    if (arrays.size() == kMostArrays) fail("more than 64 shared arrays");
    arrays.push_back({key, bytes, arena_used, false, place});
    arena_used += (bytes + kMargin - 1) / kMargin * kMargin + kMargin;
    found = &arrays.back();
  }
  char* const begin = arena + found->offset;
  if (!found->reached) poison(begin, bytes);
  found->reached = true;
  return begin;
}

}  // namespace simt
