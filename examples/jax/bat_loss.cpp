// The kernels of row_loss.h as two calls that XLA makes on the CPU. Classes are int32, as JAX has them.
#include <cstdint>
#include <vector>

#include "kernels/row_loss.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;
using Classes = ffi::Buffer<ffi::S32, 1>;
template <ffi::DataType type>
using Number = ffi::Buffer<type, 0>;
template <ffi::DataType type>
using Column = ffi::Buffer<type, 1>;
template <ffi::DataType type>
using Matrix = ffi::Buffer<type, 2>;

// The logits as the kernels take them, with wide classes.
template <typename T>
struct Rows : bat_fast::Logits<T> {
  std::vector<int64_t> wide;
  template <typename Logits>
  Rows(Logits logits, Classes target) : wide(target.typed_data(), target.typed_data() + target.element_count()) {
    this->data = logits.typed_data();
    this->target = wide.data();
    this->rows = logits.dimensions()[0];
    this->classes = logits.dimensions()[1];
  }
};

template <ffi::DataType type, typename T = ffi::NativeType<type>>
ffi::Error forward(Matrix<type> logits, Classes target, double alpha, bool by_weights, ffi::Result<Number<type>> loss,
                   ffi::Result<Column<type>> weights, ffi::Result<Matrix<type>> norm, ffi::Result<Number<type>> total) {
  // Dtypes and numbers of dimensions XLA has checked.
  if (target.dimensions()[0] != logits.dimensions()[0]) return ffi::Error::InvalidArgument("target must be [N]");
  const Rows<T> rows(logits, target);
  std::vector<T> losses(rows.rows);
  bat_fast::bat_rows_cpu<T>(rows, static_cast<T>(alpha), weights->typed_data(), losses.data(),
                            reinterpret_cast<bat_fast::RowNorm<T>*>(norm->typed_data()), 0, rows.rows);
  const auto mean = bat_fast::weighted_mean_cpu(weights->typed_data(), losses.data(), rows.rows, by_weights);
  *loss->typed_data() = mean.value;
  *total->typed_data() = mean.total;
  return ffi::Error::Success();
}

template <ffi::DataType type, typename T = ffi::NativeType<type>>
ffi::Error backward(Number<type> grad_loss, Matrix<type> logits, Classes target, Column<type> weights,
                    Matrix<type> norm, Number<type> total, ffi::Result<Matrix<type>> grad) {
  const Rows<T> rows(logits, target);
  bat_fast::bat_backward_cpu<T>(rows, weights.typed_data(),
                                reinterpret_cast<const bat_fast::RowNorm<T>*>(norm.typed_data()),
                                *grad_loss.typed_data() / *total.typed_data(), grad->typed_data(), 0, rows.rows);
  return ffi::Error::Success();
}

#define BAT_FAST_CALLS(type)                                                   \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(bat_loss_##type, forward<ffi::type>,           \
                                ffi::Ffi::Bind()                               \
                                    .Arg<Matrix<ffi::type>>()                  \
                                    .Arg<Classes>()                            \
                                    .Attr<double>("alpha")                     \
                                    .Attr<bool>("by_weights")                  \
                                    .Ret<Number<ffi::type>>()                  \
                                    .Ret<Column<ffi::type>>()                  \
                                    .Ret<Matrix<ffi::type>>()                  \
                                    .Ret<Number<ffi::type>>());                \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(bat_loss_backward_##type, backward<ffi::type>, \
                                ffi::Ffi::Bind()                               \
                                    .Arg<Number<ffi::type>>()                  \
                                    .Arg<Matrix<ffi::type>>()                  \
                                    .Arg<Classes>()                            \
                                    .Arg<Column<ffi::type>>()                  \
                                    .Arg<Matrix<ffi::type>>()                  \
                                    .Arg<Number<ffi::type>>()                  \
                                    .Ret<Matrix<ffi::type>>())

BAT_FAST_CALLS(F32);
BAT_FAST_CALLS(F64);
