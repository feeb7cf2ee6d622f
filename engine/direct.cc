// Direct convolution of float32 images on a CPU, for engine/direct.py: forward and kernel gradient.
//
// Images are NHWC, kernels HWIO. A block of output values is kept in registers while everything that adds to it
// passes by. The number of filters is a multiple of LANES.

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

#if defined(__AVX512F__)
constexpr int LANES = 16, REGISTERS = 24;  // values of a vector; vectors that a block may have
#else
constexpr int LANES = 8, REGISTERS = 12;
#endif
typedef float Vector __attribute__((vector_size(LANES * 4), aligned(4), may_alias));

inline Vector load(const float* p) { return *reinterpret_cast<const Vector*>(p); }
inline void store(float* p, Vector v) { *reinterpret_cast<Vector*>(p) = v; }

// A convolution's sizes; pads are in front (top, left) and behind.
struct Shape {
  int64_t b, h, w, c, kh, kw, o, y, x;
  int64_t stride_h, stride_w, dilation_h, dilation_w, top, left, bottom, right;
  int64_t padded_h() const { return h + top + bottom; }
  int64_t padded_w() const { return w + left + right; }
  int64_t row() const { return padded_w() * c; }
  bool is_padded() const { return top || left || bottom || right; }
  // Values of a row of the window that lie behind one another, and how many such runs a row has.
  int64_t run() const { return dilation_w == 1 ? kw * c : c; }
  int64_t runs() const { return dilation_w == 1 ? 1 : kw; }
  int64_t taps() const { return kh * kw * c; }
};

// Calls work(n) for every n below count, on this thread and those of the pool. What a thread of the pool has not begun
// when all is done, it never begins: the caller needs none of them.
template <typename Work>
void parallel(ffi::ThreadPool pool, int64_t count, const Work& work) {
  struct Progress {
    std::atomic<int64_t> next{0}, done{0};
  };
  auto progress = std::make_shared<Progress>();
  auto drain = [progress, count, &work] {
    for (int64_t n; (n = progress->next.fetch_add(1)) < count;) {
      work(n);
      progress->done.fetch_add(1, std::memory_order_release);
    }
  };
  int64_t helpers = std::min<int64_t>(pool.num_threads(), count) - 1;
  for (int64_t n = 0; n < helpers; ++n) pool.Schedule(std::function<void()>(drain));
  drain();
  while (progress->done.load(std::memory_order_acquire) < count) std::this_thread::yield();
}

// The image with zeros around it.
const float* padded(const float* image, const Shape& s, std::vector<float>& buffer) {
  if (!s.is_padded()) return image;
  buffer.assign(s.padded_h() * s.row(), 0.f);
  for (int64_t n = 0; n < s.h; ++n)
    std::memcpy(&buffer[(n + s.top) * s.row() + s.left * s.c], image + n * s.w * s.c, s.w * s.c * sizeof(float));
  return buffer.data();
}

// `F` vectors of filters at `P` pixels of an image; from[p] is where pixel p's window begins.
template <int P, int F, int U>
void forward_block(const float* const* from, const float* kernel, const Shape& s, Vector (&sum)[P][F]) {
  for (auto& of_pixel : sum)
    for (auto& v : of_pixel) v = Vector{};
  int64_t run = s.run(), runs = s.runs();
  for (int64_t i = 0; i < s.kh; ++i) {
    for (int64_t j = 0; j < runs; ++j) {
      int64_t offset = i * s.dilation_h * s.row() + j * s.dilation_w * s.c, r = 0;
      for (; r + U <= run; r += U, kernel += U * F * LANES) {
        Vector k[U][F];
        for (int u = 0; u < U; ++u)
          for (int f = 0; f < F; ++f) k[u][f] = load(kernel + (u * F + f) * LANES);
#pragma GCC unroll 32
        for (int p = 0; p < P; ++p) {
          const float* values = from[p] + offset + r;
#pragma GCC unroll 4
          for (int u = 0; u < U; ++u)
#pragma GCC unroll 4
            for (int f = 0; f < F; ++f) sum[p][f] += values[u] * k[u][f];
        }
      }
      for (; r < run; ++r, kernel += F * LANES) {
#pragma GCC unroll 32
        for (int p = 0; p < P; ++p)
#pragma GCC unroll 4
          for (int f = 0; f < F; ++f) sum[p][f] += from[p][offset + r] * load(kernel + f * LANES);
      }
    }
  }
}

// All pixels of an image for `F` vectors of filters.
template <int F, int U>
void forward_image(const float* image, const float* kernel, const Shape& s, float* out) {
  constexpr int P = REGISTERS / F;
  int64_t count = s.y * s.x;
  for (int64_t first = 0; first < count; first += P) {
    const float* from[P];
    int64_t row = first / s.x, column = first % s.x;
    for (int p = 0; p < P; ++p) {
      from[p] = image + row * s.stride_h * s.row() + column * s.stride_w * s.c;
      if (first + p + 1 < count && ++column == s.x) column = 0, ++row;
    }
    Vector sum[P][F];
    forward_block<P, F, U>(from, kernel, s, sum);
    int valid = std::min<int64_t>(P, count - first);
    for (int p = 0; p < P; ++p)
      if (p < valid)
        for (int f = 0; f < F; ++f) store(out + (first + p) * s.o + f * LANES, sum[p][f]);
  }
}

void forward(ffi::ThreadPool pool, const float* images, const float* kernel, const Shape& s, float* out) {
  int64_t vectors = s.o / LANES;
  std::vector<float> packed(s.taps() * s.o);  // [block of filters][tap][filter]
  std::vector<std::pair<int64_t, int>> blocks;
  for (int64_t first = 0; first < vectors;) {
    int f = std::min<int64_t>(4, vectors - first);
    for (int64_t t = 0; t < s.taps(); ++t)
      std::memcpy(&packed[first * LANES * s.taps() + t * f * LANES], kernel + t * s.o + first * LANES, f * LANES * 4);
    blocks.emplace_back(first, f);
    first += f;
  }
  parallel(pool, s.b, [&](int64_t n) {
    static thread_local std::vector<float> buffer;
    const float* image = padded(images + n * s.h * s.w * s.c, s, buffer);
    for (auto [first, f] : blocks) {
      const float* k = &packed[first * LANES * s.taps()];
      float* to = out + n * s.y * s.x * s.o + first * LANES;
      if (f == 1) forward_image<1, 4>(image, k, s, to);
      if (f == 2) forward_image<2, 2>(image, k, s, to);
      if (f == 3) forward_image<3, 1>(image, k, s, to);
      if (f == 4) forward_image<4, 1>(image, k, s, to);
    }
  });
}

// Adds to sums [taps of a run][o] for `T` taps and `F` vectors of filters what rows of an image and gradient give.
template <int T, int F>
void gradient_block(const float* image, const float* gradient, const Shape& s, int64_t rows, float* sums) {
  Vector sum[T][F];
  for (int t = 0; t < T; ++t)
    for (int f = 0; f < F; ++f) sum[t][f] = load(sums + t * s.o + f * LANES);
  int64_t step = s.stride_w * s.c;
  for (int64_t n = 0; n < rows; ++n) {
    const float* values = image + n * s.stride_h * s.row();
    for (int64_t m = 0; m < s.x; ++m, values += step, gradient += s.o) {
      Vector g[F];
      for (int f = 0; f < F; ++f) g[f] = load(gradient + f * LANES);
#pragma GCC unroll 32
      for (int t = 0; t < T; ++t)
#pragma GCC unroll 4
        for (int f = 0; f < F; ++f) sum[t][f] += values[t] * g[f];
    }
  }
  for (int t = 0; t < T; ++t)
    for (int f = 0; f < F; ++f) store(sums + t * s.o + f * LANES, sum[t][f]);
}

template <int T, int F>
void gradient_run(const float* image, const float* gradient, const Shape& s, int64_t rows, int64_t left, float* sums) {
  if constexpr (T > 0) {
    for (; left >= T; left -= T, image += T, sums += T * s.o) gradient_block<T, F>(image, gradient, s, rows, sums);
    if (left) gradient_run<(T > 8 ? T - 4 : T - 1), F>(image, gradient, s, rows, left, sums);
  }
}

void kernel_gradient(ffi::ThreadPool pool, const float* images, const float* gradient, const Shape& s, float* out) {
  constexpr int64_t CACHED = 6144;  // floats of rows of image and gradient that stay in the first cache
  int64_t size = s.taps() * s.o, slices = std::max<int64_t>(1, std::min<int64_t>(s.b, pool.num_threads()));
  int64_t band = std::max<int64_t>(1, CACHED / (s.x * s.o + s.stride_h * s.row()));
  std::vector<float> sums(slices * size, 0.f);
  parallel(pool, slices, [&](int64_t slice) {
    static thread_local std::vector<float> buffer;
    float* own = &sums[slice * size];
    for (int64_t n = s.b * slice / slices; n < s.b * (slice + 1) / slices; ++n) {
      const float* image = padded(images + n * s.h * s.w * s.c, s, buffer);
      for (int64_t first = 0; first < s.y; first += band) {
        int64_t rows = std::min(band, s.y - first);
        const float* g = gradient + (n * s.y + first) * s.x * s.o;
        const float* top = image + first * s.stride_h * s.row();
        for (int64_t i = 0; i < s.kh; ++i)
          for (int64_t j = 0; j < s.runs(); ++j) {
            const float* from = top + i * s.dilation_h * s.row() + j * s.dilation_w * s.c;
            float* to = own + (i * s.runs() + j) * s.run() * s.o;
            for (int64_t o = 0; o < s.o;) {
              if (s.o - o >= 2 * LANES) {
                gradient_run<REGISTERS / 2, 2>(from, g + o, s, rows, s.run(), to + o);
                o += 2 * LANES;
              } else {
                gradient_run<REGISTERS, 1>(from, g + o, s, rows, s.run(), to + o);
                o += LANES;
              }
            }
          }
      }
    }
  });
  std::memcpy(out, sums.data(), size * sizeof(float));
  for (int64_t slice = 1; slice < slices; ++slice)
    for (int64_t n = 0; n < size; ++n) out[n] += sums[slice * size + n];
}

using Array = ffi::Buffer<ffi::F32, 4>;
using Numbers = ffi::Span<const int64_t>;

Shape shape_of(ffi::Span<const int64_t> images, ffi::Span<const int64_t> kernel, ffi::Span<const int64_t> maps,
               Numbers strides, Numbers pads, Numbers dilation) {
  return {images[0], images[1], images[2], images[3], kernel[0], kernel[1], kernel[3], maps[1],     maps[2],
          strides[0], strides[1], dilation[0], dilation[1], pads[0], pads[2], pads[1], pads[3]};
}

ffi::Error Forward(ffi::ThreadPool pool, Array images, Array kernel, ffi::Result<Array> out, Numbers strides,
                   Numbers pads, Numbers dilation) {
  Shape s = shape_of(images.dimensions(), kernel.dimensions(), out->dimensions(), strides, pads, dilation);
  forward(pool, images.typed_data(), kernel.typed_data(), s, out->typed_data());
  return ffi::Error::Success();
}

ffi::Error KernelGradient(ffi::ThreadPool pool, Array images, Array gradient, ffi::Result<Array> out, Numbers strides,
                          Numbers pads, Numbers dilation) {
  Shape s = shape_of(images.dimensions(), out->dimensions(), gradient.dimensions(), strides, pads, dilation);
  kernel_gradient(pool, images.typed_data(), gradient.typed_data(), s, out->typed_data());
  return ffi::Error::Success();
}

}  // namespace

#define HANDLER(name, function)                                                                              \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(name, function,                                                              \
                                ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Arg<Array>().Arg<Array>().Ret<Array>() \
                                    .Attr<Numbers>("strides").Attr<Numbers>("pads").Attr<Numbers>("dilation"))

HANDLER(engine_direct_forward, Forward);
HANDLER(engine_direct_kernel_gradient, KernelGradient);
