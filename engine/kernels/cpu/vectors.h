// Vectors of float32, in the width of this processor, and memory for them.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <type_traits>

#if defined(__AVX512F__)
constexpr int LANES = 16, REGISTERS = 24;  // values of a vector; vectors of a block of sums
#else
constexpr int LANES = 8, REGISTERS = 12;
#endif
typedef float Vector __attribute__((vector_size(LANES * 4)));
typedef float InMemory __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef int32_t Numbering __attribute__((vector_size(LANES * 4)));
typedef uint8_t Places __attribute__((vector_size(LANES)));

constexpr int64_t LINE = 16;  // floats of a line of the cache

// Asks for lines that are read soon, so that they are in the second cache by then. None need be there.
inline void fetch(const float* p, int64_t lines) {
  for (int64_t n = 0; n < lines; ++n) __builtin_prefetch(p + n * LINE, 0, 2);
}

inline Vector load(const float* p) { return *reinterpret_cast<const InMemory*>(p); }
inline void store(float* p, Vector v) { *reinterpret_cast<InMemory*>(p) = v; }
inline Vector positive(Vector v) { return (v <= 0) ? Vector{} : v; }  // NaN stays

// Memory that begins where a line of the cache does, for a vector across two lines is read and written twice.
class Floats {
 public:
  // Room for so many, of no value yet; what was there is lost when it grows.
  float* of(int64_t size) {
    if (int64_t lines = (size + 15) / 16; lines > room_) memory_.reset(new Line[lines]), room_ = lines;
    return memory_[0].values;
  }

 private:
  struct alignas(64) Line {
    float values[16];
  };
  std::unique_ptr<Line[]> memory_{new Line[1]};
  int64_t room_ = 1;
};

// Memory for one call: what a thread keeps for its next one, if it is little, because new memory costs a fault a page.
inline float* memory_for(int64_t size, Floats& kept, Floats& own) {
  constexpr int64_t KEPT = 1 << 19;  // floats
  return (size <= KEPT ? kept : own).of(size);
}

// Vectors of filters of a block. They are in registers too: of 16, 12 sums leave no room for 4 of them.
constexpr int WIDEST = REGISTERS > 16 ? 4 : 2;

// Calls work(first filter, vectors) for blocks of up to WIDEST vectors; how many is known when this is compiled.
template <typename Work>
void in_blocks(int64_t filters, const Work& work) {
  for (int64_t first = 0; first < filters; first += WIDEST * LANES) {
    int64_t vectors = std::min<int64_t>(WIDEST, (filters - first) / LANES);
    if (vectors == 1) work(first, std::integral_constant<int, 1>());
    if (vectors == 2) work(first, std::integral_constant<int, 2>());
    if constexpr (WIDEST == 4) {
      if (vectors == 3) work(first, std::integral_constant<int, 3>());
      if (vectors == 4) work(first, std::integral_constant<int, 4>());
    }
  }
}
