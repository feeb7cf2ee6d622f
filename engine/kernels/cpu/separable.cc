// Depthwise and 1x1 convolutions of float32 images on a CPU with bias and activation in the same pass, and gradients of
// the depthwise ones, for engine/kernels/separable.py.

#include "xla/ffi/api/ffi.h"

#include "depthwise.h"
#include "pointwise.h"
#include "tails.h"

namespace ffi = xla::ffi;

namespace {

using Array = ffi::Buffer<ffi::F32, 4>;
using Matrix = ffi::Buffer<ffi::F32, 2>;
using Values = ffi::Buffer<ffi::F32, 1>;
using Numbers = ffi::Span<const int64_t>;

template <typename Buffer>
auto* if_any(Buffer& values) {
  return values.element_count() ? values.typed_data() : nullptr;
}

// sizes: strides and pads at the top and the left, each of h before that of w.
depthwise::Shape shape_of(Numbers images, Numbers kernel, Numbers maps, Numbers sizes) {
  return {images[0], images[1], images[2], images[3], kernel[0], kernel[1],
          maps[1],   maps[2],   sizes[0],  sizes[1],  sizes[2],  sizes[3]};
}

// kernel: [kh kw 1 c], as those of its gradient. bias: [c], or empty.
ffi::Error Depthwise(ffi::ThreadPool threads, Array images, Array kernel, Values bias, ffi::Result<Array> out,
                     Numbers sizes, int64_t tail) {
  auto s = shape_of(images.dimensions(), kernel.dimensions(), out->dimensions(), sizes);
  depthwise::convolve(threads, images.typed_data(), kernel.typed_data(), if_any(bias), s, static_cast<Tail>(tail),
                      out->typed_data());
  return ffi::Error::Success();
}

ffi::Error DepthwiseGradients(ffi::ThreadPool threads, Array images, Array kernel, Array gradient,
                              ffi::Result<Array> to_images, ffi::Result<Array> to_kernel, Numbers sizes) {
  auto s = shape_of(images.dimensions(), kernel.dimensions(), gradient.dimensions(), sizes);
  depthwise::gradients(threads, images.typed_data(), kernel.typed_data(), gradient.typed_data(), s,
                       to_images->typed_data(), to_kernel->typed_data());
  return ffi::Error::Success();
}

// packed: what Pack made of a kernel [c o]. bias: [o], or empty. added: like out, or empty.
ffi::Error Pointwise(ffi::ThreadPool threads, Array images, Values packed, Values bias, Array added,
                     ffi::Result<Array> out, Numbers strides, int64_t tail) {
  Numbers in = images.dimensions(), maps = out->dimensions();
  pointwise::Product s = {in[0], in[1], in[2], in[3], maps[3], maps[1], maps[2], strides[0], strides[1]};
  pointwise::Ends ends = {if_any(bias), if_any(added), static_cast<Tail>(tail)};
  pointwise::multiply(threads, images.typed_data(), packed.typed_data(), s, ends, out->typed_data());
  return ffi::Error::Success();
}

// The gradient [c o] with respect to a kernel.
ffi::Error PointwiseGradient(ffi::ThreadPool threads, Array images, Array gradient, ffi::Result<Matrix> out,
                             Numbers strides) {
  Numbers in = images.dimensions(), maps = gradient.dimensions();
  pointwise::Product s = {in[0], in[1], in[2], in[3], maps[3], maps[1], maps[2], strides[0], strides[1]};
  pointwise::kernel_gradient(threads, images.typed_data(), gradient.typed_data(), s, out->typed_data());
  return ffi::Error::Success();
}

ffi::Error Pack(ffi::ThreadPool threads, Matrix kernel, ffi::Result<Values> out) {
  Numbers sizes = kernel.dimensions();
  pointwise::pack(threads, kernel.typed_data(), sizes[0], sizes[1], out->typed_data());
  return ffi::Error::Success();
}

}  // namespace

#define BINDING ffi::Ffi::Bind().Ctx<ffi::ThreadPool>()
XLA_FFI_DEFINE_HANDLER_SYMBOL(engine_depthwise, Depthwise,
                              BINDING.Arg<Array>().Arg<Array>().Arg<Values>().Ret<Array>().Attr<Numbers>("sizes")
                              .Attr<int64_t>("tail"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(engine_depthwise_gradients, DepthwiseGradients,
                              BINDING.Arg<Array>().Arg<Array>().Arg<Array>().Ret<Array>().Ret<Array>()
                              .Attr<Numbers>("sizes"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(engine_pointwise, Pointwise,
                              BINDING.Arg<Array>().Arg<Values>().Arg<Values>().Arg<Array>().Ret<Array>()
                              .Attr<Numbers>("strides").Attr<int64_t>("tail"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(engine_pointwise_gradient, PointwiseGradient,
                              BINDING.Arg<Array>().Arg<Array>().Ret<Matrix>().Attr<Numbers>("strides"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(engine_pointwise_pack, Pack,
                              BINDING.Arg<Matrix>().Ret<Values>());
