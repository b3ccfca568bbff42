// lwfm::episodes on CUDA tensors; the contract is in episodes.cpp, except that
// lists are not checked, because that would wait for the device, that a query without an assignment
// has similarities of NaN, and that what is recorded has another layout: see RecordShapes.
#if LWFM_WITH_CUDA

#include "episodes_cuda.h"

#include <torch/csrc/stable/library.h>

#include <optional>
#include <vector>

#include "cuda/fused_plan.h"
#include "cuda/pair_kernels.h"

namespace {

using namespace lwfm::episodes_on_cuda;
using lwfm::data_of;
using lwfm::EncodedPool;
using lwfm::Sizes;
using lwfm::TensorList;
using torch::stable::Tensor;

// How positions are multiplied: by torch, or in the kernel.
struct Way {
  bool fused, tf32;

  Way(const Inputs& in, bool record, std::int64_t wanted, bool allows_tf32)
      : fused(false), tf32(allows_tf32) {
    lwfm::require(wanted >= -1 && wanted <= 1, "fused must be -1, 0 or 1");
    if (record || wanted == 0) return;
    const lwfm::EpisodesShape shape = shape_of(in);
    fused = wanted == 1 || lwfm::should_fuse(shape, lwfm::multiprocessors());
    lwfm::require(!fused || lwfm::can_fuse(shape), "the fused kernel takes images of at most " +
                                                       std::to_string(lwfm::kMaxAssignedPositions) +
                                                       " positions, matched shot by shot");
  }
};

template <class T>
void compare_part(const Inputs& in, const Part& part, const Way& way, const TensorList& outputs,
                  const Record& record, void* stream) {
  std::vector<Products> products;
  if (!way.fused) {
    const OptionalTensor rows = rows_of(in, part);
    for (const Tensor& x : in.pool.positions)
      products.emplace_back(in, part, gather(in, part, x, rows));
  }
  lwfm::EpisodeArguments<T> arguments = kernel_arguments<T>(in, part, products, record);
  const std::int64_t first = first_row(in, part);
  arguments.base = data_of<T>(outputs[0]) + first * in.sizes.way;
  arguments.matching = data_of<T>(outputs[1]) + first * in.sizes.way;
  if (in.options.features) arguments.features = data_of<T>(outputs[2]) + first * in.pool.channels();
  if (way.fused) {
    lwfm::require_launched(
        lwfm::compare_fused_episodes(arguments, way.tf32, lwfm::multiprocessors(), stream),
        "episodes");
    return;
  }
  const OptionalTensor workspace = workspace_of(in, lwfm::episode_workspace(arguments));
  if (workspace.has_value()) arguments.workspace = workspace->mutable_data_ptr();
  lwfm::require_launched(lwfm::compare_episodes(arguments, stream), "episodes");
}

TensorList episodes_cuda(TensorList positions, TensorList squares, TensorList grams,
                         TensorList embedded, TensorList embedded_squares, OptionalTensor support,
                         OptionalTensor query, Tensor order, Tensor begin, double temperature,
                         std::int64_t top_k, bool mean_over_layers, bool merge_shots, bool features,
                         bool record, std::int64_t fused, bool tf32) {
  const EncodedPool pool(positions, squares, grams, embedded, embedded_squares);
  const Inputs in(pool, support, query, order, begin,
                  lwfm::episode_options(pool.positions_of_layers(), temperature, top_k,
                                        mean_over_layers, merge_shots, features));
  const Tensor& like = pool.positions[0];
  const lwfm::OnDeviceOf device(like);
  const Way way(in, record, fused, tf32);
  const Sizes similarities = in.sizes.shape({in.sizes.Q, in.sizes.way});
  TensorList outputs{
      lwfm::empty_like(like, similarities), lwfm::empty_like(like, similarities),
      lwfm::empty_like(like, features ? in.sizes.shape({in.sizes.Q, pool.channels()}) : Sizes{0})};
  const RecordShapes shapes(in, in.sizes.E, in.sizes.Q);
  std::optional<Record> recorded;
  if (record) recorded.emplace(in, shapes, true);
  if (in.sizes.E * in.sizes.Q > 0) {
    for (const Part& part : parts_of(in, way.fused ? 0 : 1)) {
      lwfm::for_dtype(like, [&](auto number) {
        compare_part<decltype(number)>(in, part, way, outputs,
                                       record ? *recorded : Record::of(in, part), device.stream());
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
