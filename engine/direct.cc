// Direct convolution of float32 images on a CPU, for engine/native.py; alone, or with a max-pool of its maps.
//
// Images are NHWC, kernels HWIO. A block of sums is kept in registers while everything that adds to it passes by. With
// a pool, the maps of an image are only ever in a cache. The number of filters is a multiple of LANES.

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
constexpr int LANES = 16, REGISTERS = 24, RUN = 8;  // values of a vector; vectors of a block; steps at once for one
#else
constexpr int LANES = 8, REGISTERS = 12, RUN = 2;
#endif
typedef float Vector __attribute__((vector_size(LANES * 4)));
typedef float InMemory __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef int32_t Numbering __attribute__((vector_size(LANES * 4)));
typedef uint8_t Places __attribute__((vector_size(LANES)));

inline Vector load(const float* p) { return *reinterpret_cast<const InMemory*>(p); }
inline void store(float* p, Vector v) { *reinterpret_cast<InMemory*>(p) = v; }
inline Vector positive(Vector v) { return (v <= 0) ? Vector{} : v; }  // NaN stays

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
  int64_t image() const { return h * w * c; }
  int64_t map() const { return y * x * o; }
};

// Calls work(n) for every n below count, on this thread and those of the pool. What a thread of the pool has not begun
// when all is done, it never begins: the caller needs none of them.
template <typename Work>
void parallel(ffi::ThreadPool threads, int64_t count, const Work& work) {
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
  int64_t helpers = std::min<int64_t>(threads.num_threads(), count) - 1;
  for (int64_t n = 0; n < helpers; ++n) threads.Schedule(std::function<void()>(drain));
  drain();
  while (progress->done.load(std::memory_order_acquire) < count) std::this_thread::yield();
}

// What `rows` rows of maps, from `first` on, depend on: those rows of the image, with zeros around them.
const float* padded(const float* image, const Shape& s, int64_t first, int64_t rows, std::vector<float>& buffer) {
  int64_t top = first * s.stride_h - s.top, count = (rows - 1) * s.stride_h + (s.kh - 1) * s.dilation_h + 1;
  if (!s.is_padded()) return image + top * s.row();
  buffer.assign(count * s.row(), 0.f);
  for (int64_t n = std::max<int64_t>(0, -top); n < count && top + n < s.h; ++n)
    std::memcpy(&buffer[n * s.row() + s.left * s.c], image + (top + n) * s.w * s.c, s.w * s.c * sizeof(float));
  return buffer.data();
}

// As many rows of each image at once that all threads have work, however few images there are.
int64_t rows_at_once(ffi::ThreadPool threads, int64_t images, int64_t rows) {
  int64_t pieces = 4 * std::max<int64_t>(1, threads.num_threads());
  return images >= pieces ? rows : std::max<int64_t>(1, rows * images / pieces);
}

// Adds to sums of `F` vectors of filters at `P` pixels of an image; from[p] is where pixel p's window begins.
template <int P, int F, int U>
void forward_block(const float* const* from, const float* kernel, const Shape& s, Vector (&sum)[P][F]) {
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
#pragma GCC unroll 8
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

// All pixels of an image for `F` vectors of filters, whose bias is added, and of that, if asked for, the positive part.
template <int F, int U, int P = REGISTERS / F>
void forward_image(const float* image, const float* kernel, const float* bias, const Shape& s, bool is_relu,
                   float* out) {
  int64_t count = s.y * s.x;
  for (int64_t first = 0; first < count; first += P) {
    const float* from[P];
    int64_t row = first / s.x, column = first % s.x;
    for (int p = 0; p < P; ++p) {
      from[p] = image + row * s.stride_h * s.row() + column * s.stride_w * s.c;
      if (first + p + 1 < count && ++column == s.x) column = 0, ++row;
    }
    Vector sum[P][F];
    for (auto& of_pixel : sum)
      for (int f = 0; f < F; ++f) of_pixel[f] = load(bias + f * LANES);
    forward_block<P, F, U>(from, kernel, s, sum);
    int valid = std::min<int64_t>(P, count - first);
    for (int p = 0; p < P; ++p)
      if (p < valid)
        for (int f = 0; f < F; ++f)
          store(out + (first + p) * s.o + f * LANES, is_relu ? positive(sum[p][f]) : sum[p][f]);
  }
}

// A kernel as forward_image reads it, [block of filters][tap][filter of the block], and its bias.
struct Packed {
  std::vector<float> values, bias;
  std::vector<std::pair<int64_t, int>> blocks;  // first filter, vectors

  Packed(const float* kernel, const float* added, const Shape& s) : values(s.taps() * s.o), bias(s.o, 0.f) {
    if (added) std::copy(added, added + s.o, bias.begin());
    for (int64_t first = 0; first < s.o;) {
      int f = std::min<int64_t>(4, (s.o - first) / LANES);
      for (int64_t t = 0; t < s.taps(); ++t)
        std::memcpy(&values[first * s.taps() + t * f * LANES], kernel + t * s.o + first, f * LANES * sizeof(float));
      blocks.emplace_back(first, f);
      first += f * LANES;
    }
  }

  // What an image, padded, gives: [y x o].
  void convolve(const float* image, const Shape& s, bool is_relu, float* out) const {
    for (auto [first, f] : blocks) {
      const float *kernel = &values[first * s.taps()], *added = &bias[first];
      if (f == 1) forward_image<1, RUN, REGISTERS - 4>(image, kernel, added, s, is_relu, out + first);
      if (f == 2) forward_image<2, 2>(image, kernel, added, s, is_relu, out + first);
      if (f == 3) forward_image<3, 1>(image, kernel, added, s, is_relu, out + first);
      if (f == 4) forward_image<4, 1>(image, kernel, added, s, is_relu, out + first);
    }
  }
};

void forward(ffi::ThreadPool threads, const float* images, const Packed& kernel, const Shape& s, bool is_relu,
             float* out) {
  int64_t most = rows_at_once(threads, s.b, s.y), pieces = (s.y + most - 1) / most;
  parallel(threads, s.b * pieces, [&](int64_t piece) {
    static thread_local std::vector<float> around;
    int64_t n = piece / pieces, first = piece % pieces * most;
    Shape part = s;
    part.y = std::min(most, s.y - first);
    const float* image = padded(images + n * s.image(), s, first, part.y, around);
    kernel.convolve(image, part, is_relu, out + n * s.map() + first * s.x * s.o);
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
    if (left) gradient_run<(T > 12 ? T - 4 : T - 1), F>(image, gradient, s, rows, left, sums);
  }
}

// Adds to sums [taps][o] what rows of a padded image and of the gradient give.
void gradient_rows(const float* image, const float* gradient, const Shape& s, int64_t rows, float* sums) {
  constexpr int64_t CACHED = 6144;  // floats of image and gradient that stay in the first cache
  int64_t band = std::max<int64_t>(1, CACHED / (s.x * s.o + s.stride_h * s.row()));
  for (int64_t first = 0; first < rows; first += band) {
    int64_t some = std::min(band, rows - first);
    const float* top = image + first * s.stride_h * s.row();
    const float* g = gradient + first * s.x * s.o;
    for (int64_t i = 0; i < s.kh; ++i)
      for (int64_t j = 0; j < s.runs(); ++j) {
        const float* from = top + i * s.dilation_h * s.row() + j * s.dilation_w * s.c;
        float* to = sums + (i * s.runs() + j) * s.run() * s.o;
        int64_t o = 0;
        for (; o + 2 * LANES <= s.o; o += 2 * LANES)
          gradient_run<REGISTERS / 2, 2>(from, g + o, s, some, s.run(), to + o);
        if (o < s.o) gradient_run<REGISTERS, 1>(from, g + o, s, some, s.run(), to + o);
      }
  }
}

// out [taps][o]: the sum of what add(n, sums) adds for each image n, in as many parts as there are threads.
template <typename Add>
void sum_of_images(ffi::ThreadPool threads, const Shape& s, float* out, const Add& add) {
  constexpr int64_t AT_ONCE = 4096;
  int64_t size = s.taps() * s.o, parts = std::max<int64_t>(1, std::min<int64_t>(s.b, threads.num_threads()));
  std::unique_ptr<float[]> sums(new float[parts * size]);
  parallel(threads, parts, [&](int64_t part) {
    float* own = &sums[part * size];
    std::fill(own, own + size, 0.f);
    for (int64_t n = s.b * part / parts; n < s.b * (part + 1) / parts; ++n) add(n, own);
  });
  parallel(threads, (size + AT_ONCE - 1) / AT_ONCE, [&](int64_t piece) {
    int64_t first = piece * AT_ONCE, count = std::min(AT_ONCE, size - first);
    std::copy_n(&sums[first], count, out + first);
    for (int64_t part = 1; part < parts; ++part)
      for (int64_t n = first; n < first + count; ++n) out[n] += sums[part * size + n];
  });
}

void kernel_gradient(ffi::ThreadPool threads, const float* images, const float* gradient, const Shape& s, float* out) {
  sum_of_images(threads, s, out, [&](int64_t n, float* sums) {
    static thread_local std::vector<float> around;
    gradient_rows(padded(images + n * s.image(), s, 0, s.y, around), gradient + n * s.map(), s, s.y, sums);
  });
}

// A pool over the maps of a convolution, without padding: its window, and how many windows there are.
struct Pool {
  int64_t h, w, stride_h, stride_w, y, x;
  int64_t size(const Shape& s) const { return y * x * s.o; }
  bool covers() const { return h == stride_h && w == stride_w; }
  // Rows of windows at once, so many that their maps stay in the second cache; maps that windows share are made once.
  int64_t band(const Shape& s) const {
    constexpr int64_t CACHED = 65536;  // floats
    return h > stride_h ? y : std::clamp<int64_t>(CACHED / (stride_h * s.x * s.o), 1, y);
  }
  // Rows of maps below so many rows of windows; columns below all.
  int64_t rows(int64_t count) const { return (count - 1) * stride_h + h; }
  int64_t columns() const { return (x - 1) * stride_w + w; }
};

// The largest of each window of rows of maps, and at which place it is: the first of equals. NaN counts as largest.
void pool_rows(const float* maps, const Shape& s, const Pool& p, int64_t rows, bool is_relu, float* out,
               uint8_t* winners) {
  for (int64_t y = 0; y < rows; ++y)
    for (int64_t x = 0; x < p.x; ++x)
      for (int64_t o = 0; o < s.o; o += LANES, out += LANES, winners += LANES) {
        const float* from = maps + (y * p.stride_h * s.x + x * p.stride_w) * s.o + o;
        Vector largest = load(from);
        Numbering winner = {};
        for (int64_t i = 0, n = 0; i < p.h; ++i)
          for (int64_t j = 0; j < p.w; ++j, ++n) {
            Vector value = load(from + (i * s.x + j) * s.o);
            auto is_larger = (value > largest) | (value != value);
            largest = is_larger ? value : largest;
            winner = is_larger ? Numbering{} + static_cast<int32_t>(n) : winner;
          }
        store(out, is_relu ? positive(largest) : largest);
        Places places = __builtin_convertvector(winner, Places);
        std::memcpy(winners, &places, LANES);
      }
}

// Adds to rows of maps, `pitch` floats from one to the next, what came back to windows; where these cover the maps, the
// rest of each window is made zero, else it must have been.
void unpool_rows(const float* gradient, const uint8_t* winners, const Shape& s, const Pool& p, int64_t rows,
                 int64_t pitch, float* maps) {
  bool covers = p.covers();
  for (int64_t y = 0; y < rows; ++y)
    for (int64_t x = 0; x < p.x; ++x)
      for (int64_t o = 0; o < s.o; o += LANES, gradient += LANES, winners += LANES) {
        float* to = maps + y * p.stride_h * pitch + x * p.stride_w * s.o + o;
        Vector value = load(gradient);
        Places places;
        std::memcpy(&places, winners, LANES);
        Numbering winner = __builtin_convertvector(places, Numbering);
        for (int64_t i = 0, n = 0; i < p.h; ++i)
          for (int64_t j = 0; j < p.w; ++j, ++n) {
            float* place = to + i * pitch + j * s.o;
            Vector share = (winner == static_cast<int32_t>(n)) ? value : Vector{};
            store(place, covers ? share : load(place) + share);
          }
      }
}

void forward_pooled(ffi::ThreadPool threads, const float* images, const Packed& kernel, const Shape& s, const Pool& p,
                    bool is_relu, float* out, uint8_t* winners) {
  int64_t most = std::min(p.band(s), rows_at_once(threads, s.b, p.y)), pieces = (p.y + most - 1) / most;
  parallel(threads, s.b * pieces, [&](int64_t piece) {
    static thread_local std::vector<float> around, maps;
    int64_t n = piece / pieces, first = piece % pieces * most, rows = std::min(most, p.y - first);
    int64_t done = n * p.size(s) + first * p.x * s.o;
    Shape part = s;
    part.y = p.rows(rows);
    maps.resize(part.map());
    kernel.convolve(padded(images + n * s.image(), s, first * p.stride_h, part.y, around), part, false, maps.data());
    pool_rows(maps.data(), s, p, rows, is_relu, out + done, winners + done);
  });
}

void kernel_gradient_pooled(ffi::ThreadPool threads, const float* images, const uint8_t* winners,
                            const float* gradient, const Shape& s, const Pool& p, float* out) {
  sum_of_images(threads, s, out, [&](int64_t n, float* sums) {
    static thread_local std::vector<float> around, maps;
    const float* image = padded(images + n * s.image(), s, 0, s.y, around);
    for (int64_t first = 0; first < p.y; first += p.band(s)) {
      int64_t rows = std::min(p.band(s), p.y - first), done = n * p.size(s) + first * p.x * s.o;
      maps.resize(p.rows(rows) * s.x * s.o);
      if (!p.covers()) std::fill(maps.begin(), maps.end(), 0.f);
      unpool_rows(gradient + done, winners + done, s, p, rows, s.x * s.o, maps.data());
      const float* top = image + first * p.stride_h * s.stride_h * s.row();
      gradient_rows(top, maps.data(), s, p.rows(rows), sums);
    }
  });
}

// s: of the convolution, with the turned kernel, of what came back to the maps, whose channels are the filters.
void input_gradient_pooled(ffi::ThreadPool threads, const uint8_t* winners, const float* gradient,
                           const Packed& turned, const Shape& s, const Pool& p, float* out) {
  Shape maps = s;  // as the pool saw them
  maps.o = s.c;
  parallel(threads, s.b, [&](int64_t n) {
    static thread_local std::vector<float> around;
    int64_t done = n * p.size(maps);
    around.assign(s.padded_h() * s.row(), 0.f);
    unpool_rows(gradient + done, winners + done, maps, p, p.y, s.row(), &around[s.top * s.row() + s.left * s.c]);
    turned.convolve(around.data(), s, false, out + n * s.map());
  });
}

using Array = ffi::Buffer<ffi::F32, 4>;
using Bias = ffi::Buffer<ffi::F32, 1>;
using Winners = ffi::Buffer<ffi::U8, 4>;
using Numbers = ffi::Span<const int64_t>;

// sizes: strides, pads (top, bottom, left, right) and dilation, each of h before that of w.
Shape shape_of(Numbers images, Numbers kernel, int64_t y, int64_t x, Numbers sizes) {
  return {images[0], images[1], images[2], images[3], kernel[0], kernel[1], kernel[3], y,        x,
          sizes[0],  sizes[1],  sizes[6],  sizes[7],  sizes[2],  sizes[4],  sizes[3],  sizes[5]};
}

// sizes: window and strides. windows: the shape of what the pool gives.
Pool pool_of(Numbers sizes, Numbers windows) {
  return {sizes[0], sizes[1], sizes[2], sizes[3], windows[1], windows[2]};
}

ffi::Error Forward(ffi::ThreadPool threads, Array images, Array kernel, Bias bias, ffi::Result<Array> out,
                   Numbers sizes, bool is_relu) {
  Shape s = shape_of(images.dimensions(), kernel.dimensions(), out->dimensions()[1], out->dimensions()[2], sizes);
  Packed packed(kernel.typed_data(), bias.typed_data(), s);
  forward(threads, images.typed_data(), packed, s, is_relu, out->typed_data());
  return ffi::Error::Success();
}

ffi::Error KernelGradient(ffi::ThreadPool threads, Array images, Array gradient, ffi::Result<Array> out,
                          Numbers sizes) {
  Numbers maps = gradient.dimensions();
  Shape s = shape_of(images.dimensions(), out->dimensions(), maps[1], maps[2], sizes);
  kernel_gradient(threads, images.typed_data(), gradient.typed_data(), s, out->typed_data());
  return ffi::Error::Success();
}

ffi::Error ForwardPooled(ffi::ThreadPool threads, Array images, Array kernel, Bias bias, ffi::Result<Array> out,
                         ffi::Result<Winners> winners, Numbers sizes, Numbers pool, bool is_relu) {
  Pool p = pool_of(pool, out->dimensions());
  Shape s = shape_of(images.dimensions(), kernel.dimensions(), p.rows(p.y), p.columns(), sizes);
  Packed packed(kernel.typed_data(), bias.typed_data(), s);
  forward_pooled(threads, images.typed_data(), packed, s, p, is_relu, out->typed_data(), winners->typed_data());
  return ffi::Error::Success();
}

ffi::Error KernelGradientPooled(ffi::ThreadPool threads, Array images, Winners winners, Array gradient,
                                ffi::Result<Array> out, Numbers sizes, Numbers pool) {
  Pool p = pool_of(pool, gradient.dimensions());
  Shape s = shape_of(images.dimensions(), out->dimensions(), p.rows(p.y), p.columns(), sizes);
  kernel_gradient_pooled(threads, images.typed_data(), winners.typed_data(), gradient.typed_data(), s, p,
                         out->typed_data());
  return ffi::Error::Success();
}

ffi::Error InputGradientPooled(ffi::ThreadPool threads, Winners winners, Array gradient, Array turned,
                               ffi::Result<Array> out, Numbers sizes, Numbers pool) {
  Numbers windows = gradient.dimensions(), images = out->dimensions();
  Pool p = pool_of(pool, windows);
  int64_t maps[] = {windows[0], p.rows(p.y), p.columns(), windows[3]};
  Shape s = shape_of({maps, 4}, turned.dimensions(), images[1], images[2], sizes);
  Packed packed(turned.typed_data(), nullptr, s);
  input_gradient_pooled(threads, winners.typed_data(), gradient.typed_data(), packed, s, p, out->typed_data());
  return ffi::Error::Success();
}

}  // namespace

#define BINDING ffi::Ffi::Bind().Ctx<ffi::ThreadPool>()
#define SIZES Attr<Numbers>("sizes")
#define POOL Attr<Numbers>("pool")
#define IS_RELU Attr<bool>("is_relu")
XLA_FFI_DEFINE_HANDLER_SYMBOL(engine_direct_forward, Forward,
                              BINDING.Arg<Array>().Arg<Array>().Arg<Bias>().Ret<Array>().SIZES.IS_RELU);
XLA_FFI_DEFINE_HANDLER_SYMBOL(engine_direct_kernel_gradient, KernelGradient,
                              BINDING.Arg<Array>().Arg<Array>().Ret<Array>().SIZES);
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    engine_direct_forward_pooled, ForwardPooled,
    BINDING.Arg<Array>().Arg<Array>().Arg<Bias>().Ret<Array>().Ret<Winners>().SIZES.POOL.IS_RELU);
XLA_FFI_DEFINE_HANDLER_SYMBOL(engine_direct_kernel_gradient_pooled, KernelGradientPooled,
                              BINDING.Arg<Array>().Arg<Winners>().Arg<Array>().Ret<Array>().SIZES.POOL);
XLA_FFI_DEFINE_HANDLER_SYMBOL(engine_direct_input_gradient_pooled, InputGradientPooled,
                              BINDING.Arg<Winners>().Arg<Array>().Arg<Array>().Ret<Array>().SIZES.POOL);
