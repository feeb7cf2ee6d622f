// Vectors of float32, in the width of this processor, and memory for them.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#if defined(__AVX512F__)
constexpr int LANES = 16, REGISTERS = 24;  // values of a vector; vectors of a block of sums
#else
constexpr int LANES = 8, REGISTERS = 12;
#endif
typedef float Vector __attribute__((vector_size(LANES * 4)));
typedef float InMemory __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef int32_t Numbering __attribute__((vector_size(LANES * 4)));
typedef uint8_t Places __attribute__((vector_size(LANES)));

inline Vector load(const float* p) { return *reinterpret_cast<const InMemory*>(p); }
inline void store(float* p, Vector v) { *reinterpret_cast<InMemory*>(p) = v; }
inline Vector positive(Vector v) { return (v <= 0) ? Vector{} : v; }  // NaN stays

// Memory that begins where a line of the cache does, for a vector across two lines is read and written twice.
class Floats {
 public:
  // Room for so many; what was there is lost when it grows.
  float* of(int64_t size) {
    if (size > static_cast<int64_t>(lines_.size()) * 16) lines_ = std::vector<Line>((size + 15) / 16);
    return lines_.data()->values;
  }
  const float* get() const { return lines_.data()->values; }

 private:
  struct alignas(64) Line {
    float values[16];
  };
  std::vector<Line> lines_;
};

// Calls work(first filter, vectors) for blocks of up to 4 vectors of filters.
template <typename Work>
void in_blocks(int64_t filters, const Work& work) {
  for (int64_t first = 0; first < filters; first += 4 * LANES)
    work(first, static_cast<int>(std::min<int64_t>(4, (filters - first) / LANES)));
}
