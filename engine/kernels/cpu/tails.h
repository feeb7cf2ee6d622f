// What follows a convolution at each value: nothing, or an activation that is a bound.

#pragma once

#include "vectors.h"

enum Tail : int64_t { NOTHING, RELU, RELU6 };

inline Vector finished(Vector v, Tail tail) {
  if (tail == NOTHING) return v;
  v = positive(v);
  return tail == RELU6 ? (v > 6.f) ? Vector{} + 6.f : v : v;  // NaN stays
}

// The first `count` values of a vector.
typedef float Half __attribute__((vector_size(LANES * 2)));

inline void store_some(float* p, Vector v, int64_t count) {
  if (count >= LANES) return store(p, v);
  if (count == LANES / 2) {  // as of 24 channels: without a call
    Half half;
    std::memcpy(&half, &v, sizeof(half));
    std::memcpy(p, &half, sizeof(half));
    return;
  }
  float values[LANES];
  store(values, v);
  std::memcpy(p, values, count * sizeof(float));
}

inline Vector load_some(const float* p, int64_t count) {
  if (count >= LANES) return load(p);
  float values[LANES] = {};
  std::memcpy(values, p, count * sizeof(float));
  return load(values);
}
