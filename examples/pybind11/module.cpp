// The kernels for NumPy, in place and without a copy: float32 arrays [N, ...] in C order. Whatever gives the gradient,
// this moves the images.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <initializer_list>
#include <string>
#include <utility>

#include "kernels/perturb.h"
#include "kernels/random_start.h"

namespace py = pybind11;
using Images = py::array_t<float, py::array::c_style>;
using Index = py::array_t<int64_t, py::array::c_style>;

// What is written must be the caller's to write, and nothing that is read at the same time.
static float* writable(Images& adv, std::initializer_list<std::pair<const char*, const Images*>> inputs) {
  if (adv.ndim() == 0) throw py::value_error("adv: must be [N, ...]");
  if (!adv.writeable()) throw py::value_error("adv: the array is read-only, and is written in place: give a copy");
  for (const auto& [name, other] : inputs) {
    if (adv.ndim() != other->ndim() || !std::equal(adv.shape(), adv.shape() + adv.ndim(), other->shape())) {
      throw py::value_error(std::string(name) + ": must have the shape of adv");
    }
    if (other->data() < adv.data() + adv.size() && adv.data() < other->data() + other->size()) {
      throw py::value_error(std::string("adv: shares memory with ") + name + ": give a copy");
    }
  }
  return adv.mutable_data();
}

static void random_start(Images adv, Images clean, Index index, float eps, uint64_t seed, uint32_t draw, float lo,
                         float hi) {
  float* out = writable(adv, {{"clean", &clean}});
  const int64_t n = adv.shape(0), pixels = n ? adv.size() / n : 0;
  if (index.ndim() != 1 || index.size() != n) throw py::value_error("index: must be [N]");
  bat_fast::linf_start_cpu(out, clean.data(), index.data(), {n, pixels, pixels, 1}, 0, n, {.seed = seed, .draw = draw},
                           bat_fast::StartLimits<float>{eps, lo, hi});
}

template <bool l2>
void step(Images adv, Images grad, Images clean, float step_size, float eps, float lo, float hi) {
  float* out = writable(adv, {{"grad", &grad}, {"clean", &clean}});
  const int64_t n = adv.shape(0), pixels = n ? adv.size() / n : 0;
  const bat_fast::StepLimits<float> limits{step_size, eps, lo, hi};
  if constexpr (l2) {
    bat_fast::l2_step_cpu(out, grad.data(), clean.data(), pixels, 0, n, limits);
  } else {
    bat_fast::linf_step_cpu(out, grad.data(), clean.data(), 0, adv.size(), limits);
  }
}

PYBIND11_MODULE(bat_fast_numpy, m) {
  // An array is never converted: that would be a copy, and the caller's would stay as it was.
  const auto array = [](const char* name) { return py::arg(name).noconvert(); };
  const auto lo = py::arg("lo") = 0.0, hi = py::arg("hi") = 1.0;
  m.def("random_start", random_start, array("adv"), array("clean"), array("index"), py::arg("eps"), py::arg("seed") = 0,
        py::arg("draw") = 0, lo, hi);
  m.def("linf_step", step<false>, array("adv"), array("grad"), array("clean"), py::arg("step_size"), py::arg("eps"), lo,
        hi);
  m.def("l2_step", step<true>, array("adv"), array("grad"), array("clean"), py::arg("step_size"), py::arg("eps"), lo,
        hi);
}
