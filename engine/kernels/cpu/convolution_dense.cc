// Products of dense layers, float32 [example, feature] by [feature, unit], and their gradients, for
// engine/kernels/dense.py. A file of its own, so that it is compiled beside the others of the library.
//
// Weights are read once: by parts of the features, whose weights stay in the second cache while all examples pass by.

#include <utility>

#include "tails.h"
#include "threads.h"
#include "vectors.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

constexpr int64_t PIECE = 64;          // features at once, of a gradient
constexpr int64_t MOST_EXAMPLES = 96;  // at once; a multiple of most numbers of rows of a block

// b examples, k features, o units, a multiple of LANES.
struct Product {
  int64_t b, k, o;
};

// Sums over `count` steps for `P` rows and `F` vectors: values[p * pitch + n] times row n of others, `width` floats apart.
template <int P, int F>
__attribute__((always_inline)) inline void add_products(const float* values, int64_t pitch, const float* others,
                                                        int64_t width, int64_t count, Vector (&sum)[P][F]) {
  for (int64_t n = 0; n < count; ++n, ++values, others += width) {
    Vector v[F];
#pragma GCC unroll 4
    for (int f = 0; f < F; ++f) v[f] = load(others + f * LANES);
#pragma GCC unroll 32
    for (int p = 0; p < P; ++p)
#pragma GCC unroll 4
      for (int f = 0; f < F; ++f) sum[p][f] += values[p * pitch] * v[f];
  }
}

// Puts these sums for `rows` rows of values, in blocks of `P` and of fewer: out [rows][out_pitch], of the last vector
// `last` values.
template <int P, int F>
void multiply_rows(const float* values, int64_t pitch, int64_t rows, const float* others, int64_t width, int64_t count,
                   float* out, int64_t out_pitch, int64_t last) {
  if constexpr (P > 0) {
    for (; rows >= P; rows -= P, values += P * pitch, out += P * out_pitch) {
      Vector sum[P][F] = {};
      add_products<P, F>(values, pitch, others, width, count, sum);
#pragma GCC unroll 32
      for (int p = 0; p < P; ++p)
#pragma GCC unroll 4
        for (int f = 0; f < F; ++f)
          if (f + 1 < F || last == LANES) store(out + p * out_pitch + f * LANES, sum[p][f]);
          else store_some(out + p * out_pitch + f * LANES, sum[p][f], last);
    }
    if (rows) multiply_rows<(P > 8 ? P - 4 : P - 1), F>(values, pitch, rows, others, width, count, out, out_pitch, last);
  }
}

void multiply(ffi::ThreadPool threads, const float* x, const float* weights, const Product& s, float* out) {
  constexpr int64_t FEATURES = 2048;  // of two parts, so that two threads have the same number
  static thread_local Floats kept;
  Floats own;
  int64_t parts = std::max<int64_t>(1, 2 * ((s.k + FEATURES / 2) / FEATURES)), size = s.b * s.o;
  // More chunks where there are fewer parts than all threads need; no sum depends on them.
  int64_t wanted = std::min((2 * num_threads(threads) + parts - 1) / parts, (s.b + 11) / 12);
  int64_t chunks = std::max((s.b + MOST_EXAMPLES - 1) / MOST_EXAMPLES, wanted);
  float* sums = parts > 1 ? memory_for(parts * size, kept, own) : out;
  parallel(threads, parts * chunks, [&](int64_t n) {
    int64_t part = n / chunks, begin = s.k * part / parts, end = s.k * (part + 1) / parts;
    int64_t first = s.b * (n % chunks) / chunks, rows = s.b * (n % chunks + 1) / chunks - first;
    in_blocks(s.o, [&](int64_t unit, auto f) {
      constexpr int F = f.value;
      multiply_rows<REGISTERS / F, F>(x + first * s.k + begin, s.k, rows, weights + begin * s.o + unit, s.o,
                                      end - begin, sums + part * size + first * s.o + unit, s.o, LANES);
    });
  });
  if (parts == 1) return;
  parallel(threads, chunks, [&](int64_t n) {
    for (int64_t at = size / LANES * n / chunks; at < size / LANES * (n + 1) / chunks; ++at) {
      Vector sum = load(sums + at * LANES);
      for (int64_t part = 1; part < parts; ++part) sum += load(sums + part * size + at * LANES);
      store(out + at * LANES, sum);
    }
  });
}

// Adds to weights' gradients [feature][o], `T` features and `F` vectors of units, what examples give; or puts it.
template <int T, int F>
void add_features(const float* x, const float* gradient, int64_t rows, int64_t count, int64_t o, bool is_first,
                  float* out) {
  if constexpr (T > 0) {
    for (; count >= T; count -= T, x += T, out += T * o) {
      Vector sum[T][F] = {};
      if (!is_first)
        for (int t = 0; t < T; ++t)
          for (int f = 0; f < F; ++f) sum[t][f] = load(out + t * o + f * LANES);
      const float *values = x, *g = gradient;
      for (int64_t n = 0; n < rows; ++n, values += PIECE, g += o) {
        Vector v[F];
#pragma GCC unroll 4
        for (int f = 0; f < F; ++f) v[f] = load(g + f * LANES);
#pragma GCC unroll 32
        for (int t = 0; t < T; ++t)
#pragma GCC unroll 4
          for (int f = 0; f < F; ++f) sum[t][f] += values[t] * v[f];
      }
#pragma GCC unroll 32
      for (int t = 0; t < T; ++t)
#pragma GCC unroll 4
        for (int f = 0; f < F; ++f) store(out + t * o + f * LANES, sum[t][f]);
    }
    if (count) add_features<(T > 8 ? T - 4 : T - 1), F>(x, gradient, rows, count, o, is_first, out);
  }
}

// Vectors a and b with the values exchanged whose numbers differ in the bit `S`.
template <int S, int... L>
void exchange(Vector& a, Vector& b, std::integer_sequence<int, L...>) {
#if defined(__clang__)
  Vector upper = __builtin_shufflevector(a, b, (L & S ? LANES + L - S : L)...);
  b = __builtin_shufflevector(a, b, (L & S ? LANES + L : L + S)...);
#else
  Vector upper = __builtin_shuffle(a, b, Numbering{(L & S ? LANES + L - S : L)...});
  b = __builtin_shuffle(a, b, Numbering{(L & S ? LANES + L : L + S)...});
#endif
  a = upper;
}

template <int S>
void transpose(Vector (&v)[LANES]) {
  if constexpr (S < LANES) {
#pragma GCC unroll 16
    for (int n = 0; n < LANES; ++n)
      if (!(n & S)) exchange<S>(v[n], v[n + S], std::make_integer_sequence<int, LANES>());
    transpose<2 * S>(v);
  }
}

// Weights [count][o] of a piece as [o][PIECE]; zeros for features there are none of.
void turn(const float* weights, int64_t count, int64_t o, float* to) {
  for (int64_t feature = 0; feature < PIECE; feature += LANES)
    for (int64_t unit = 0; unit < o; unit += LANES) {
      Vector v[LANES];
#pragma GCC unroll 16
      for (int n = 0; n < LANES; ++n)
        v[n] = feature + n < count ? load(weights + (feature + n) * o + unit) : Vector{};
      transpose<1>(v);
#pragma GCC unroll 16
      for (int n = 0; n < LANES; ++n) store(to + (unit + n) * PIECE + feature, v[n]);
    }
}

// Gradients with respect to the weights and, if not null, to x. Threads share the features.
void multiply_back(ffi::ThreadPool threads, const float* x, const float* weights, const float* gradient,
                   const Product& s, float* to_x, float* to_weights) {
  parallel(threads, (s.k + PIECE - 1) / PIECE, [&](int64_t n) {
    static thread_local Floats turned, values;
    int64_t first = n * PIECE, count = std::min(PIECE, s.k - first);
    float* part = values.of(MOST_EXAMPLES * PIECE);
    for (int64_t example = 0; example < s.b; example += MOST_EXAMPLES) {
      int64_t rows = std::min(MOST_EXAMPLES, s.b - example);
      for (int64_t row = 0; row < rows; ++row)
        std::memcpy(part + row * PIECE, x + (example + row) * s.k + first, count * sizeof(float));
      in_blocks(s.o, [&](int64_t unit, auto f) {
        constexpr int F = f.value;
        add_features<REGISTERS / F, F>(part, gradient + example * s.o + unit, rows, count, s.o, example == 0,
                                       to_weights + first * s.o + unit);
      });
    }
    if (!to_x) return;
    float* by = turned.of(s.o * PIECE);
    turn(weights + first * s.o, count, s.o, by);
    in_blocks((count + LANES - 1) / LANES * LANES, [&](int64_t feature, auto f) {
      constexpr int F = f.value;
      int64_t last = std::min<int64_t>(LANES, count - feature - (F - 1) * LANES);  // values of the last vector
      multiply_rows<REGISTERS / F, F>(gradient, s.o, s.b, by + feature, PIECE, s.o, to_x + first + feature, s.k, last);
    });
  });
}

using Matrix = ffi::Buffer<ffi::F32, 2>;

ffi::Error Dense(ffi::ThreadPool threads, Matrix x, Matrix weights, ffi::Result<Matrix> out) {
  Product s = {x.dimensions()[0], x.dimensions()[1], weights.dimensions()[1]};
  multiply(threads, x.typed_data(), weights.typed_data(), s, out->typed_data());
  return ffi::Error::Success();
}

// to_x: empty if it is not needed; then weights may be empty too.
ffi::Error DenseGradients(ffi::ThreadPool threads, Matrix x, Matrix weights, Matrix gradient, ffi::Result<Matrix> to_x,
                          ffi::Result<Matrix> to_weights) {
  Product s = {x.dimensions()[0], x.dimensions()[1], gradient.dimensions()[1]};
  multiply_back(threads, x.typed_data(), weights.typed_data(), gradient.typed_data(), s,
                to_x->element_count() ? to_x->typed_data() : nullptr, to_weights->typed_data());
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(engine_dense, Dense,
                              ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Arg<Matrix>().Arg<Matrix>().Ret<Matrix>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(engine_dense_gradients, DenseGradients,
                              ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Arg<Matrix>().Arg<Matrix>().Arg<Matrix>()
                              .Ret<Matrix>().Ret<Matrix>());
