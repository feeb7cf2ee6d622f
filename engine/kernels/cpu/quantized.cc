// Convolutions of uint8 images with int8 kernels and exact int32 sums on a CPU, with bias, activation, a max-pool of 2x2
// and requantisation in the same pass, for engine/kernels/quantized.py. Needs AVX512-VNNI, which is checked as it runs.

#include "xla/ffi/api/ffi.h"

#if defined(__x86_64__)
#include "quantized.h"
#endif

namespace ffi = xla::ffi;

namespace {

using Bytes = ffi::Buffer<ffi::U8, 4>;
using Kernel = ffi::Buffer<ffi::S8, 5>;
using Sums = ffi::Buffer<ffi::S32, 1>;
using Values = ffi::Buffer<ffi::F32, 1>;
using Numbers = ffi::Span<const int64_t>;

// kernel: [kh groups vectors 16 4]. edge: the pixel around images. out: float32, or uint8. sizes: width of the kernel,
// strides, dilation of rows, pads at the top and the left, whether the largest of each 2x2 is taken; then, of uint8
// outputs, what stands for zero, the least and the largest.
ffi::Error Convolve(ffi::ThreadPool threads, Bytes images, Kernel kernel, Sums bias, Values factors, Bytes edge,
                    ffi::Result<ffi::AnyBuffer> out, Numbers sizes) {
#if defined(__x86_64__)
  if (!__builtin_cpu_supports("avx512vnni")) return ffi::Error(ffi::ErrorCode::kUnimplemented, "no AVX512-VNNI");
  Numbers in = images.dimensions(), k = kernel.dimensions(), maps = out->dimensions();
  quantized::Shape s = {in[0], in[1], in[2], in[3], k[0], sizes[0], k[1], maps[3], maps[1], maps[2],
                        sizes[1], sizes[2], sizes[3], sizes[4], sizes[5], sizes[6] != 0};
  quantized::Tail tail = {bias.typed_data(), factors.typed_data(), static_cast<int32_t>(sizes[7]),
                          static_cast<float>(sizes[8] - sizes[7]), static_cast<float>(sizes[9] - sizes[7])};
  bool is_float = out->element_type() == ffi::F32;
  quantized::convolve(threads, images.typed_data(), edge.typed_data(), kernel.typed_data(), s, tail,
                      is_float ? nullptr : static_cast<uint8_t*>(out->untyped_data()),
                      is_float ? static_cast<float*>(out->untyped_data()) : nullptr);
  return ffi::Error::Success();
#else
  return ffi::Error(ffi::ErrorCode::kUnimplemented, "no AVX512-VNNI");
#endif
}

}  // namespace

// Whether this processor has what it takes.
extern "C" int engine_has_vnni() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw");
#else
  return 0;
#endif
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(engine_quantized_convolution, Convolve,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Bytes>()
                                  .Arg<Kernel>()
                                  .Arg<Sums>()
                                  .Arg<Values>()
                                  .Arg<Bytes>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Attr<Numbers>("sizes"));
