// lwfm::episodes on CUDA tensors; the contract is in episodes.cpp, except that
// lists are not checked, because that would wait for the device, that a query without an assignment
// has similarities of NaN, and that what is recorded has another layout: see RecordShapes.
#if LWFM_WITH_CUDA

#include "episodes_cuda.h"

#include <torch/csrc/stable/library.h>

#include <optional>
#include <vector>

namespace {

using namespace lwfm::episodes_on_cuda;
using lwfm::data_of;
using lwfm::EncodedPool;
using lwfm::Sizes;
using lwfm::TensorList;
using torch::stable::Tensor;

template <class T>
void compare_part(const Inputs& in, const Part& part, const TensorList& outputs,
                  const Record& record, void* stream) {
  const OptionalTensor rows = rows_of(in, part);
  std::vector<Products> products;
  for (const Tensor& x : in.pool.positions)
    products.emplace_back(in, part, gather(in, part, x, rows));
  lwfm::EpisodeArguments<T> arguments = kernel_arguments<T>(in, part, products, record);
  const std::int64_t first = first_row(in, part);
  arguments.base = data_of<T>(outputs[0]) + first * in.sizes.way;
  arguments.matching = data_of<T>(outputs[1]) + first * in.sizes.way;
  if (in.options.features) arguments.features = data_of<T>(outputs[2]) + first * in.pool.channels();
  const OptionalTensor workspace = workspace_of(in, lwfm::episode_workspace(arguments));
  if (workspace.has_value()) arguments.workspace = workspace->mutable_data_ptr();
  lwfm::require_launched(lwfm::compare_episodes(arguments, stream), "episodes");
}

TensorList episodes_cuda(TensorList positions, TensorList squares, TensorList grams,
                         TensorList embedded, TensorList embedded_squares, OptionalTensor support,
                         OptionalTensor query, Tensor order, Tensor begin, double temperature,
                         std::int64_t top_k, bool mean_over_layers, bool merge_shots, bool features,
                         bool record) {
  const EncodedPool pool(positions, squares, grams, embedded, embedded_squares);
  const Inputs in(
      pool, support, query, order, begin,
      lwfm::episode_options(pool, temperature, top_k, mean_over_layers, merge_shots, features));
  const Tensor& like = pool.positions[0];
  const lwfm::OnDeviceOf device(like);
  const Sizes similarities = in.sizes.shape({in.sizes.Q, in.sizes.way});
  TensorList outputs{
      lwfm::empty_like(like, similarities), lwfm::empty_like(like, similarities),
      lwfm::empty_like(like, features ? in.sizes.shape({in.sizes.Q, pool.channels()}) : Sizes{0})};
  const RecordShapes shapes(in, in.sizes.E, in.sizes.Q);
  std::optional<Record> recorded;
  if (record) recorded.emplace(in, shapes, true);
  if (in.sizes.E * in.sizes.Q > 0) {
    for (const Part& part : parts_of(in, 1)) {
      lwfm::for_dtype(like, [&](auto number) {
        compare_part<decltype(number)>(in, part, outputs, record ? *recorded : Record::of(in, part),
                                       device.stream());
      });
    }
  }
  if (record) {
    outputs.insert(outputs.end(), recorded->tensors.begin(), recorded->tensors.end());
  } else {
    outputs.push_back(lwfm::empty_like(like, Sizes{0}));
  }
  return outputs;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(lwfm, CUDA, library) {
  library.impl("episodes", TORCH_BOX(&episodes_cuda));
}

#endif
