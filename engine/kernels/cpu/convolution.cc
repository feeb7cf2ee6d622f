// Convolutions of float32 images on a CPU with bias, relu and a max-pool in the same pass, and their gradients, for
// engine/kernels/ffi.py. With a pool, the maps of an image are only ever in a cache.

#include <optional>
#include <vector>

#include "direct.h"
#include "minimal.h"
#include "pools.h"
#include "shapes.h"
#include "threads.h"
#include "vectors.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

// What `rows` rows of maps, from `first` on, depend on: those rows of some images, with zeros around them. Minimal
// filtering reads no zeros, so it needs no copy.
Images padded(const float* images, const Shape& s, int64_t count, int64_t first, int64_t rows, Floats& memory) {
  int64_t top = first * s.stride_h - s.top, high = s.rows_below(rows), size = s.w * s.c;
  if (minimal::serves(s)) return {images, s.image(), size, s.h, s.w, -top, s.left};
  if (!s.is_padded()) return {images + top * size, s.image(), size, high, s.w};
  float* to = memory.of(count * high * s.row());
  for (int64_t image = 0; image < count; ++image, images += s.image())
    for (int64_t n = top; n < top + high; ++n, to += s.row()) {
      bool is_inside = n >= 0 && n < s.h;
      std::fill(to, to + (is_inside ? s.left * s.c : s.row()), 0.f);
      if (!is_inside) continue;
      std::memcpy(to + s.left * s.c, images + n * size, size * sizeof(float));
      std::fill(to + s.left * s.c + size, to + s.row(), 0.f);
    }
  return {memory.of(0), high * s.row(), s.row(), high, s.w + s.left + s.right};
}

// A kernel, made ready for many images, and its bias.
class Kernel {
 public:
  // memory: for size(s) floats.
  Kernel(ffi::ThreadPool threads, const float* kernel, const float* bias, const Shape& s, float* memory)
      : is_minimal_(minimal::serves(s)), values_(memory), bias_(bias) {
    constexpr int64_t AT_ONCE = 16;  // channels
    if (!is_minimal_) direct::pack(kernel, s, memory);
    else
      parallel(threads, (s.c + AT_ONCE - 1) / AT_ONCE, [&](int64_t n) {
        minimal::spread_kernel(kernel, s, n * AT_ONCE, std::min(AT_ONCE, s.c - n * AT_ONCE), memory);
      });
  }

  // One that was made ready in an earlier call.
  Kernel(const float* ready, const float* bias, const Shape& s)
      : is_minimal_(minimal::serves(s)), values_(ready), bias_(bias) {}

  static int64_t size(const Shape& s) { return (minimal::serves(s) ? minimal::planes(s) * s.c : direct::taps(s)) * s.o; }

  // What padded images give: [b y x o].
  void convolve(Images images, const Shape& s, bool is_relu, float* out) const {
    (is_minimal_ ? minimal::convolve : direct::convolve)(images, values_, bias_, s, is_relu, out);
  }

  // Whether convolve_and_pool serves.
  bool pools(const Shape& s, const Pool& p) const { return (is_minimal_ ? minimal::pools : direct::pools)(s, p); }

  // The largest of each window of 2x2 of that, whose maps are only ever in registers.
  void convolve_and_pool(Images images, const Shape& s, bool is_relu, float* out, uint8_t* winners) const {
    (is_minimal_ ? minimal::convolve_and_pool : direct::convolve_and_pool)(images, values_, bias_, s, is_relu, out,
                                                                           winners);
  }

  const float* values() const { return values_; }

 private:
  bool is_minimal_;
  const float *values_, *bias_;
};

// So many images of a share at once.
int64_t images_at_once(const Shape& s, int64_t share) {
  return minimal::serves(s) ? std::clamp<int64_t>(share, 1, minimal::images_at_once(s)) : 1;
}

// `rows` rows of windows of some images, from row `first` on; of several images all rows.
void convolve_rows(const float* images, int64_t count, int64_t first, int64_t rows, const Kernel& kernel,
                   const Shape& s, const Pool& p, bool is_relu, float* out, uint8_t* winners) {
  static thread_local Floats around, maps;
  int64_t done = first * p.x * s.o;
  Shape part = s.part(count, p.rows(rows));  // from a tile's row on, see rows_at_once
  Images some = padded(images, s, count, first * p.stride_h, part.y, around);
  if (p.is_none()) return kernel.convolve(some, part, is_relu, out + done);
  if (kernel.pools(part, p)) return kernel.convolve_and_pool(some, part, is_relu, out + done, after(winners, done));
  float* values = maps.of(count * part.map());
  kernel.convolve(some, part, false, values);
  for (int64_t image = 0; image < count; ++image, done += p.size(s))
    pool_rows(values + image * part.map(), part, p, rows, is_relu, out + done, after(winners, done));
}

void forward(ffi::ThreadPool threads, const float* images, const Kernel& kernel, const Shape& s, const Pool& p,
             bool is_relu, float* out, uint8_t* winners) {
  int64_t most = std::min(p.is_none() ? p.y : p.band(s), rows_at_once(threads, s.b, p.y));
  int64_t pieces = (p.y + most - 1) / most;
  int64_t together = pieces > 1 ? 1 : images_at_once(s, s.b / num_threads(threads));
  parallel(threads, (s.b + together - 1) / together * pieces, [&](int64_t piece) {
    int64_t n = piece / pieces * together, first = piece % pieces * most, rows = std::min(most, p.y - first);
    convolve_rows(images + n * s.image(), std::min(together, s.b - n), first, rows, kernel, s, p, is_relu,
                  out + n * p.size(s), after(winners, n * p.size(s)));
  });
}

// A convolution of several that follow one another.
struct Link {
  Kernel kernel;
  Shape s;
  Pool p;
  bool is_relu;
  int64_t size() const { return p.size(s); }
};

// What the last link gives for images. Some at a time pass all links, so that the maps between stay in the second cache;
// of fewer than there are pieces of work for all threads, each link shares the rows.
void pass_all(ffi::ThreadPool threads, const float* images, int64_t b, const std::vector<Link>& links, float* out) {
  constexpr int64_t CACHED = 131072, MOST = 48;  // floats; images
  int64_t largest = 1, pieces = 4 * num_threads(threads), last = links.size() - 1;
  for (const Link& link : links) largest = std::max(largest, link.s.image() + link.size());
  auto pass = [&](const float* from, int64_t count, float* to, Floats (&between)[2], const auto& work) {
    for (int64_t n = 0; n <= last; ++n) {
      float* maps = n < last ? between[n % 2].of(count * links[n].size()) : to;
      work(links[n], from, maps);
      from = maps;
    }
  };
  if (b < pieces) {
    Floats between[2];
    return pass(images, b, out, between, [&](const Link& link, const float* from, float* to) {
      Shape s = link.s;
      s.b = b;
      forward(threads, from, link.kernel, s, link.p, link.is_relu, to, nullptr);
    });
  }
  int64_t together = std::clamp<int64_t>(CACHED / largest, 1, MOST), each = num_threads(threads);
  int64_t groups = std::min(b, ((b + together - 1) / together + each - 1) / each * each);
  parallel(threads, groups, [&](int64_t group) {
    static thread_local Floats between[2];
    int64_t begin = b * group / groups, count = b * (group + 1) / groups - begin;
    pass(images + begin * links[0].s.image(), count, out + begin * links[last].size(), between,
         [&](const Link& link, const float* from, float* to) {
           const Shape& s = link.s;
           int64_t most = link.p.is_none() ? link.p.y : std::min(link.p.y, link.p.band(s));
           int64_t at_once = most < link.p.y ? 1 : images_at_once(s, count);
           for (int64_t n = 0; n < count; n += at_once)
             for (int64_t first = 0; first < link.p.y; first += most)
               convolve_rows(from + n * s.image(), std::min(at_once, count - n), first,
                             std::min(most, link.p.y - first), link.kernel, s, link.p, link.is_relu,
                             to + n * link.size(), nullptr);
         });
  });
}

// Gradients with respect to the outputs of a forward pass, and what it kept: the positions of the largest, or, without a pool but
// with a relu, the outputs themselves.
struct Returned {
  const float* gradient;
  const uint8_t* winners;
  const float* outputs;
  Returned from(int64_t offset) const {
    return {gradient + offset, winners ? winners + offset : nullptr, outputs ? outputs + offset : nullptr};
  }
  // To rows of maps, `pitch` floats apart, and to the bias.
  void spread(const Shape& s, const Pool& p, int64_t rows, int64_t pitch, float* maps, float* to_bias) const {
    if (winners) unpool_rows(gradient, winners, s, p, rows, pitch, maps, to_bias);
    else pass_rows(gradient, outputs, s, rows, pitch, maps, to_bias);
  }
};

// The convolution with the flipped kernel, from maps to images.
struct Turned {
  Kernel kernel;
  Shape shape;
};

// The sums over images that a share of them has: of the kernel, in planes or not, and then of the bias.
struct Sums {
  bool is_minimal;
  int64_t weights, size;
  explicit Sums(const Shape& s) : is_minimal(minimal::serves(s)) {
    weights = Kernel::size(s), size = weights + s.o;
  }

  // to_kernel [taps][o] and to_bias from those of all shares, one behind the other.
  void add_up(ffi::ThreadPool threads, const float* sums, int64_t shares, const Shape& s, float* to_kernel,
              float* to_bias) const {
    constexpr int64_t AT_ONCE = 4096;
    auto total = [&](int64_t first, int64_t count, float* to) {
      std::copy_n(sums + first, count, to);
      for (int64_t share = 1; share < shares; ++share)
        for (int64_t n = 0; n < count; ++n) to[n] += sums[share * size + first + n];
    };
    int64_t count = is_minimal ? s.c * s.o : weights;
    parallel(threads, (count + AT_ONCE - 1) / AT_ONCE, [&](int64_t piece) {
      int64_t first = piece * AT_ONCE, some = std::min(AT_ONCE, count - first);
      if (is_minimal) minimal::gather_kernel(sums, shares, size, s, first, some, to_kernel);
      else total(first, some, to_kernel + first);
    });
    total(weights, s.o, to_bias);
  }
};

// Gradients with respect to kernel and bias, and to the images, if `turned` says how. The images are shared out to as many
// threads as there is memory for sums of their own.
void backward(ffi::ThreadPool threads, const float* images, Returned returned, const Shape& s, const Pool& p,
              const Turned* turned, float* to_images, float* to_kernel, float* to_bias) {
  constexpr int64_t MOST_SUMS = 1 << 25;  // floats
  Sums sums(s);
  int64_t shares = std::max<int64_t>(1, std::min({s.b, num_threads(threads), MOST_SUMS / sums.size}));
  // With a flipped kernel, all maps of an image are spread before they are convolved, with zeros around them; minimal
  // filtering gets both gradients from the same tiles.
  bool is_convolved = turned && !sums.is_minimal;
  int64_t most = turned ? p.y : std::min(p.y, p.band(s)), pitch = s.x * s.o, corner = 0, apart = p.rows(most) * pitch;
  if (is_convolved) {
    const Shape& back = turned->shape;
    pitch = back.row(), corner = back.top * pitch + back.left * s.o, apart = back.rows_below(back.y) * pitch;
  }
  int64_t together = most < p.y ? 1 : images_at_once(s, s.b / shares);
  static thread_local Floats kept;
  Floats own_memory;
  float* of_shares = memory_for(shares * sums.size, kept, own_memory);
  parallel(threads, shares, [&](int64_t share) {
    static thread_local Floats around, maps;
    float *own = of_shares + share * sums.size, *own_bias = own + sums.weights, *gradient = maps.of(together * apart);
    std::vector<float> bias_of_image(s.o);
    std::fill_n(own, sums.size, 0.f);
    // Stays zero around the maps, where nothing is written; of the maps everything is, or what is not is made zero.
    std::fill_n(gradient, together * apart, 0.f);
    int64_t end = s.b * (share + 1) / shares;
    for (int64_t n = s.b * share / shares; n < end; n += together) {
      int64_t count = std::min(together, end - n);
      for (int64_t first = 0; first < p.y; first += most) {
        int64_t rows = std::min(most, p.y - first);
        Shape some = s.part(count, p.rows(rows));
        if (!p.covers() && !p.overlaps_by_one()) std::fill_n(gradient, count * apart, 0.f);
        for (int64_t image = 0; image < count; ++image) {
          std::fill(bias_of_image.begin(), bias_of_image.end(), 0.f);
          returned.from((n + image) * p.size(s) + first * p.x * s.o)
              .spread(s, p, rows, pitch, gradient + image * apart + corner, bias_of_image.data());
          for (int64_t o = 0; o < s.o; ++o) own_bias[o] += bias_of_image[o];
        }
        Images below = padded(images + n * s.image(), s, count, first * p.stride_h, some.y, around);
        Gradient of_maps = {gradient + corner, pitch, apart};
        if (!sums.is_minimal) direct::add_gradient(below, of_maps, some, own);
        else
          minimal::add_gradient(below, of_maps, some, own, turned ? turned->kernel.values() : nullptr,
                                to_images + n * s.image());
      }
      if (!is_convolved) continue;
      Shape back = turned->shape.part(count, turned->shape.y);
      Images spread = {gradient, apart, pitch, apart / pitch, pitch / s.o};
      turned->kernel.convolve(spread, back, false, to_images + n * back.map());
    }
  });
  sums.add_up(threads, of_shares, shares, s, to_kernel, to_bias);
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

template <typename Values>
auto* if_any(Values& values) {
  return values.element_count() ? values.typed_data() : nullptr;
}

// winners: empty without a pool, or if they are not needed. tile: of minimal filtering.
ffi::Error Forward(ffi::ThreadPool threads, Array images, Array kernel, Bias bias, ffi::Result<Array> out,
                   ffi::Result<Winners> winners, Numbers sizes, Numbers pool, int64_t tile, bool is_relu) {
  Pool p = pool_of(pool, out->dimensions());
  Shape s = shape_of(images.dimensions(), kernel.dimensions(), p.rows(p.y), p.columns(), sizes);
  s.tile = tile;
  static thread_local Floats kept;
  Floats own;
  Kernel ready(threads, kernel.typed_data(), bias.typed_data(), s, memory_for(Kernel::size(s), kept, own));
  forward(threads, images.typed_data(), ready, s, p, is_relu, out->typed_data(), if_any(*winners));
  return ffi::Error::Success();
}

// The tile of a kernel made ready: [planes 1 c o].
int64_t tile_of(Numbers spread) { return spread[0] == 36 ? 4 : 2; }

// A kernel [3 3 c o] as minimal filtering reads it, for many calls of ForwardSpread: [planes 1 c o].
ffi::Error Spread(ffi::ThreadPool threads, Array kernel, ffi::Result<Array> out) {
  Numbers sizes = kernel.dimensions();
  Shape s = {1, 1, 1, sizes[2], 3, 3, sizes[3], 1, 1, 1, 1, 1, 1, 0, 0, 0, 0};
  s.tile = tile_of(out->dimensions());
  if (sizes[0] != 3 || sizes[1] != 3 || !minimal::serves(s) || out->element_count() != size_t(Kernel::size(s)))
    return ffi::Error::InvalidArgument("a kernel that minimal filtering does not serve");
  Kernel(threads, kernel.typed_data(), nullptr, s, out->typed_data());
  return ffi::Error::Success();
}

// Forward without a pool, with what Spread gives.
ffi::Error ForwardSpread(ffi::ThreadPool threads, Array images, Array kernel, Bias bias, ffi::Result<Array> out,
                         Numbers sizes, bool is_relu) {
  int64_t window[] = {3, 3, images.dimensions()[3], bias.dimensions()[0]}, none[] = {1, 1, 1, 1};
  Pool p = pool_of({none, 4}, out->dimensions());
  Shape s = shape_of(images.dimensions(), {window, 4}, p.rows(p.y), p.columns(), sizes);
  s.tile = tile_of(kernel.dimensions());
  if (!minimal::serves(s) || kernel.element_count() != size_t(Kernel::size(s)))
    return ffi::Error::InvalidArgument("a kernel that was not made ready for these images");
  Kernel ready(kernel.typed_data(), bias.typed_data(), s);
  forward(threads, images.typed_data(), ready, s, p, is_relu, out->typed_data(), nullptr);
  return ffi::Error::Success();
}

using Values = ffi::Buffer<ffi::F32, 1>;

// A kernel as Chain reads it. sizes: strides and dilation alone count.
ffi::Error Pack(ffi::ThreadPool threads, Array kernel, ffi::Result<Values> out, Numbers sizes, int64_t tile) {
  int64_t none[] = {1, 1, 1, kernel.dimensions()[2]};
  Shape s = shape_of({none, 4}, kernel.dimensions(), 1, 1, sizes);
  s.tile = tile;
  if (out->element_count() != size_t(Kernel::size(s))) return ffi::Error::InvalidArgument("the size of a packed kernel");
  Kernel(threads, kernel.typed_data(), nullptr, s, out->typed_data());
  return ffi::Error::Success();
}

// Convolutions one after the other. weights: of each what Pack gives and its bias, and room up to a multiple of 16
// values. sizes: of each its kernel's four, strides, pads and dilation, those of its pool, the windows (y, x), the tile,
// and 1 with a relu.
ffi::Error Chain(ffi::ThreadPool threads, Array images, Values weights, ffi::Result<Array> out, Numbers sizes) {
  constexpr size_t OF_KERNEL = 4, OF_WINDOW = 8, OF_POOL = 4, OF_LINK = OF_KERNEL + OF_WINDOW + OF_POOL + 4;
  const float *next = weights.typed_data(), *end = next + weights.element_count();
  Numbers in = images.dimensions();
  int64_t maps[] = {in[0], in[1], in[2], in[3]};
  std::vector<Link> links;
  for (size_t n = 0; n + OF_LINK <= sizes.size(); n += OF_LINK) {
    const int64_t *kernel = sizes.begin() + n, *window = kernel + OF_KERNEL, *pool = window + OF_WINDOW,
                  *rest = pool + OF_POOL;
    Pool p = {pool[0], pool[1], pool[2], pool[3], rest[0], rest[1]};
    Shape s = shape_of({maps, 4}, {kernel, OF_KERNEL}, p.rows(p.y), p.columns(), {window, OF_WINDOW});
    s.tile = rest[2];
    int64_t size = Kernel::size(s), room = (size + s.o + 15) / 16 * 16;
    if (kernel[2] != s.c || end - next < room) break;
    links.push_back({Kernel(next, next + size, s), s, p, rest[3] != 0});
    next += room, maps[1] = p.y, maps[2] = p.x, maps[3] = s.o;
  }
  bool fits = std::equal(maps, maps + 4, out->dimensions().begin());
  if (links.empty() || links.size() * OF_LINK != sizes.size() || next != end || !fits)
    return ffi::Error::InvalidArgument("convolutions that were not made ready for these images");
  pass_all(threads, images.typed_data(), in[0], links, out->typed_data());
  return ffi::Error::Success();
}

// outputs: empty with a pool or without a relu; winners: empty without a pool. back: sizes of the convolution with the
// flipped kernel; to_images: empty if it is not needed.
ffi::Error Backward(ffi::ThreadPool threads, Array images, Array turned, Winners winners, Array outputs, Array gradient,
                    ffi::Result<Array> to_images, ffi::Result<Array> to_kernel, ffi::Result<Bias> to_bias,
                    Numbers sizes, Numbers back, Numbers pool, int64_t tile) {
  Numbers windows = gradient.dimensions();
  Pool p = pool_of(pool, windows);
  Shape s = shape_of(images.dimensions(), to_kernel->dimensions(), p.rows(p.y), p.columns(), sizes);
  int64_t maps[] = {s.b, s.y, s.x, s.o};
  Shape shape = shape_of({maps, 4}, turned.dimensions(), s.h, s.w, back);
  s.tile = shape.tile = tile;
  static thread_local Floats kept;
  Floats own;
  std::vector<float> no_bias(shape.o, 0.f);
  std::optional<Turned> onto_images;
  if (to_images->element_count()) {
    float* memory = memory_for(Kernel::size(shape), kept, own);
    onto_images = {Kernel(threads, turned.typed_data(), no_bias.data(), shape, memory), shape};
  }
  Returned returned = {gradient.typed_data(), if_any(winners), if_any(outputs)};
  backward(threads, images.typed_data(), returned, s, p, onto_images ? &*onto_images : nullptr, to_images->typed_data(),
           to_kernel->typed_data(), to_bias->typed_data());
  return ffi::Error::Success();
}

}  // namespace

#define BINDING ffi::Ffi::Bind().Ctx<ffi::ThreadPool>()
#define SIZES(name) .Attr<Numbers>(name)
XLA_FFI_DEFINE_HANDLER_SYMBOL(engine_convolution_forward, Forward,
                              BINDING.Arg<Array>().Arg<Array>().Arg<Bias>().Ret<Array>().Ret<Winners>()
                              SIZES("sizes") SIZES("pool").Attr<int64_t>("tile").Attr<bool>("is_relu"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(engine_convolution_spread, Spread, BINDING.Arg<Array>().Ret<Array>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(engine_convolution_forward_spread, ForwardSpread,
                              BINDING.Arg<Array>().Arg<Array>().Arg<Bias>().Ret<Array>()
                              SIZES("sizes").Attr<bool>("is_relu"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(engine_convolution_pack, Pack,
                              BINDING.Arg<Array>().Ret<Values>() SIZES("sizes").Attr<int64_t>("tile"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(engine_convolution_chain, Chain,
                              BINDING.Arg<Array>().Arg<Values>().Ret<Array>() SIZES("sizes"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    engine_convolution_backward, Backward,
    BINDING.Arg<Array>().Arg<Array>().Arg<Winners>().Arg<Array>().Arg<Array>().Ret<Array>().Ret<Array>().Ret<Bias>()
    SIZES("sizes") SIZES("back") SIZES("pool").Attr<int64_t>("tile"));
