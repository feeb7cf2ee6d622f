// Batch norm of float32 images on a CPU in training, for engine/kernels/batch_norm.py.

#include "batch_norm.h"

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

using Array = ffi::Buffer<ffi::F32, 3>;
using Values = ffi::Buffer<ffi::F32, 1>;
using Flags = ffi::Buffer<ffi::PRED, 1>;

batch_norm::Shape shape_of(Array& images) {
  auto sizes = images.dimensions();
  return {sizes[0], sizes[1], sizes[2]};
}

// counted: [b], or empty where all examples count.
const bool* if_any(Flags& counted) { return counted.element_count() ? counted.typed_data() : nullptr; }

ffi::Error Forward(ffi::ThreadPool threads, Array images, Values scale, Values offset, Flags counted,
                   ffi::Result<Array> out, ffi::Result<Values> mean, ffi::Result<Values> variance, float epsilon,
                   int64_t tail) {
  auto s = shape_of(images);
  batch_norm::measure(threads, images.typed_data(), if_any(counted), s, mean->typed_data(), variance->typed_data());
  batch_norm::normalize(threads, images.typed_data(), mean->typed_data(), variance->typed_data(), scale.typed_data(),
                        offset.typed_data(), epsilon, static_cast<Tail>(tail), s, out->typed_data());
  return ffi::Error::Success();
}

ffi::Error Gradients(ffi::ThreadPool threads, Array images, Array gradient, Values mean, Values variance, Values scale,
                     Values offset, Flags counted, ffi::Result<Array> to_images, ffi::Result<Values> to_scale,
                     ffi::Result<Values> to_offset, float epsilon, int64_t tail) {
  batch_norm::gradients(threads, images.typed_data(), gradient.typed_data(), if_any(counted), mean.typed_data(),
                        variance.typed_data(), scale.typed_data(), offset.typed_data(), epsilon,
                        static_cast<Tail>(tail), shape_of(images), to_images->typed_data(), to_scale->typed_data(),
                        to_offset->typed_data());
  return ffi::Error::Success();
}

}  // namespace

#define BINDING ffi::Ffi::Bind().Ctx<ffi::ThreadPool>()
XLA_FFI_DEFINE_HANDLER_SYMBOL(engine_batch_norm, Forward,
                              BINDING.Arg<Array>().Arg<Values>().Arg<Values>().Arg<Flags>().Ret<Array>().Ret<Values>()
                              .Ret<Values>().Attr<float>("epsilon").Attr<int64_t>("tail"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(engine_batch_norm_gradients, Gradients,
                              BINDING.Arg<Array>().Arg<Array>().Arg<Values>().Arg<Values>().Arg<Values>().Arg<Values>()
                              .Arg<Flags>().Ret<Array>().Ret<Values>().Ret<Values>().Attr<float>("epsilon")
                              .Attr<int64_t>("tail"));
