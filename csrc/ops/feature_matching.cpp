// lwfm::feature_matching: raw [Q, S, P, M] with row_scale [Q, S, P] and column_scale [Q, S, M],
// support [S, P, D], query [Q, M, D]; or paired, [B, P, M], [B, P], [B, M], [B, P, D], [B, M, D]
//   -> similarity [Q, S], assignment [Q, S, P] int64, cosines [Q, S, P] of the assigned positions;
//   see core/matching/feature_matching.h.
#include "core/matching/feature_matching.h"

#include <torch/csrc/stable/library.h>

#include <new>
#include <tuple>

#include "core/assignment/error_message.h"
#include "core/simd/dispatch.h"
#include "feature_matching.h"

namespace {

using lwfm::Features;
using lwfm::MatchedFeatures;
using lwfm::MatchingWorkspace;
using lwfm::ScalarType;
using lwfm::ScaledBlocks;
using lwfm::Status;
using torch::stable::Tensor;
using Two = std::tuple<Tensor, Tensor>;
using Three = std::tuple<Tensor, Tensor, Tensor>;

// Features [images, positions, D] of one side with their inverse norms.
template <class T>
class FeatureBatch {
 public:
  explicit FeatureBatch(const Tensor& tensor)
      : tensor_(lwfm::contiguous_of(tensor)),
        positions_(tensor.size(1)),
        channels_(tensor.size(2)),
        inverse_norms_(static_cast<std::size_t>(tensor.size(0) * positions_)) {
    const T* values = lwfm::data_of<const T>(tensor_);
    const auto rows = static_cast<std::int64_t>(inverse_norms_.size());
    torch::stable::parallel_for(0, rows, 64, [&](std::int64_t begin, std::int64_t end) {
      lwfm::vectorized([&](auto bytes) LWFM_INLINE_LAMBDA {
        lwfm::inverse_norms<decltype(bytes)::value>(values + begin * channels_, end - begin,
                                                    channels_, inverse_norms_.data() + begin);
      });
    });
  }

  std::int64_t positions() const { return positions_; }

  Features<T> operator[](std::int64_t image) const {
    const std::int64_t row = image * positions_;
    return {lwfm::data_of<const T>(tensor_) + row * channels_, inverse_norms_.data() + row,
            channels_};
  }

 private:
  Tensor tensor_;
  std::int64_t positions_, channels_;
  std::vector<T> inverse_norms_;
};

// The pairs in the order of memory and the order of work.
struct Pairs : lwfm::Pairing {
  explicit Pairs(const lwfm::Pairing& pairing) : Pairing(pairing) {}

  std::int64_t support_of(std::int64_t p) const { return paired ? p : p % S; }
  std::int64_t query_of(std::int64_t p) const { return paired ? p : p / S; }
  std::int64_t count() const { return paired ? Q : Q * S; }

  // Pairs are processed in tiles of some queries with some support images: each image's
  // features are fetched into L1 once for many pairs.
  static constexpr std::int64_t kTile = 8;

  std::int64_t tiles_across() const { return paired ? 1 : (S + kTile - 1) / kTile; }
  std::int64_t tiles() const { return (Q + kTile - 1) / kTile * tiles_across(); }

  template <class Work>
  void for_pairs_of_tile(std::int64_t tile, const Work& work) const {
    const std::int64_t q_begin = tile / tiles_across() * kTile,
                       q_end = std::min(q_begin + kTile, Q);
    if (paired) {
      for (std::int64_t p = q_begin; p < q_end; ++p) work(p);
      return;
    }
    const std::int64_t s_begin = tile % tiles_across() * kTile;
    for (std::int64_t s = s_begin; s < std::min(s_begin + kTile, S); ++s) {
      for (std::int64_t q = q_begin; q < q_end; ++q) work(q * S + s);
    }
  }

  // The pairs of an image: first, how far apart, how many.
  struct OfImage {
    std::int64_t first, step, count;
  };
  OfImage of_support(std::int64_t s) const { return paired ? OfImage{s, 1, 1} : OfImage{s, S, Q}; }
  OfImage of_query(std::int64_t q) const {
    return paired ? OfImage{q, 1, 1} : OfImage{q * S, 1, S};
  }
};

template <class T>
void match_all(const ScaledBlocks<T>& blocks, const Tensor& support, const Tensor& query,
               const Pairs& pairing, std::int64_t top_k, const MatchedFeatures& outputs) {
  const FeatureBatch<T> supports(support), queries(query);
  const std::int64_t P = blocks.raw.rows();
  T* const similarity = lwfm::data_of<T>(outputs.similarity);
  auto* const columns = lwfm::data_of<std::int64_t>(outputs.assignment);
  T* const cosines = lwfm::data_of<T>(outputs.cosines);
  std::vector<Status> statuses(static_cast<std::size_t>(blocks.raw.count()), Status::ok);
  const auto match = [&](std::int64_t p) {
    thread_local MatchingWorkspace<T> workspace;
    const Status status = lwfm::match_positions(workspace, blocks[p], columns + p * P);
    statuses[static_cast<std::size_t>(p)] = status;
    if (status != Status::ok) return;
    lwfm::vectorized([&](auto bytes) LWFM_INLINE_LAMBDA {
      lwfm::matched_cosines<decltype(bytes)::value>(supports[pairing.support_of(p)],
                                                    queries[pairing.query_of(p)], columns + p * P,
                                                    P, cosines + p * P);
    });
    similarity[p] = lwfm::mean_of_matches(workspace, cosines + p * P, columns + p * P, P, top_k);
  };
  torch::stable::parallel_for(0, pairing.tiles(), 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t tile = begin; tile < end; ++tile) pairing.for_pairs_of_tile(tile, match);
  });
  lwfm::require_solved(statuses, blocks, columns);
}

Three feature_matching_cpu(const Tensor& raw, const Tensor& row_scale, const Tensor& column_scale,
                           const Tensor& support, const Tensor& query, std::int64_t top_k) {
  const Pairs pairing(
      lwfm::require_feature_matching(raw, row_scale, column_scale, support, query, top_k));
  const MatchedFeatures outputs = lwfm::empty_matches(raw);
  if (raw.scalar_type() == ScalarType::Float) {
    match_all<float>({raw, row_scale, column_scale}, support, query, pairing, top_k, outputs);
  } else {
    match_all<double>({raw, row_scale, column_scale}, support, query, pairing, top_k, outputs);
  }
  return {outputs.similarity, outputs.assignment, outputs.cosines};
}

// What the backward pass reads for every pair, contiguous.
template <class T>
struct PairResults {
  Tensor grad, assignment, cosines;
  std::int64_t P, top_k;

  PairResults(const Tensor& grad_similarity, const Tensor& columns, const Tensor& matched,
              std::int64_t k)
      : grad(lwfm::contiguous_of(grad_similarity)),
        assignment(lwfm::contiguous_of(columns)),
        cosines(lwfm::contiguous_of(matched)),
        P(columns.size(columns.dim() - 1)),
        top_k(k) {}

  // Throws unless each pair has at least `top_k` matches with positions 0..M-1.
  void require_matches(std::int64_t M) const {
    const auto* const columns = lwfm::data_of<const std::int64_t>(assignment);
    bool valid = true;
    for (std::int64_t p = 0; p < grad.numel(); ++p) {
      std::int64_t matched = 0;
      for (std::int64_t i = p * P; i < (p + 1) * P; ++i) {
        valid = valid && columns[i] < M;
        matched += columns[i] >= 0;
      }
      valid = valid && matched >= top_k;
    }
    lwfm::require(valid, "assignment must have top_k positions of the query or more, -1 elsewhere");
  }

  T share_of(std::int64_t p) const {
    return lwfm::data_of<const T>(grad)[p] / static_cast<T>(top_k);
  }
  const std::int64_t* assignment_of(std::int64_t p) const {
    return lwfm::data_of<const std::int64_t>(assignment) + p * P;
  }
  const T* cosines_of(std::int64_t p) const { return lwfm::data_of<const T>(cosines) + p * P; }
};

// The gradient of the images of one side; each is summed by one thread, over its pairs in order.
template <class T>
Tensor gradient_of_side(const FeatureBatch<T>& own, const FeatureBatch<T>& other,
                        const Tensor& like, const Pairs& pairing, bool own_is_support,
                        const PairResults<T>& pairs) {
  Tensor grad = torch::stable::new_empty(like, like.sizes(), like.scalar_type());
  torch::stable::zero_(grad);
  const std::int64_t rows = own.positions(), size = rows * like.size(2);
  const auto add_images = [&](std::int64_t begin, std::int64_t end) {
    thread_local MatchingWorkspace<T> workspace;
    std::vector<T> along(static_cast<std::size_t>(rows));
    for (std::int64_t image = begin; image < end; ++image) {
      const lwfm::FeatureGradient<T> to{lwfm::data_of<T>(grad) + image * size, along.data()};
      std::fill(along.begin(), along.end(), T{0});
      const auto mine = own_is_support ? pairing.of_support(image) : pairing.of_query(image);
      for (std::int64_t n = 0, p = mine.first; n < mine.count; ++n, p += mine.step) {
        if (pairs.share_of(p) == T{0}) continue;
        lwfm::select_matches(workspace, pairs.cosines_of(p), pairs.assignment_of(p), pairs.P,
                             pairs.top_k);
        const auto& theirs = other[own_is_support ? pairing.query_of(p) : pairing.support_of(p)];
        lwfm::vectorized([&](auto bytes) LWFM_INLINE_LAMBDA {
          lwfm::matched_cosines_backward<decltype(bytes)::value>(
              workspace, own_is_support, own[image], theirs, pairs.assignment_of(p), pairs.top_k,
              pairs.share_of(p), to);
        });
      }
      lwfm::vectorized([&](auto bytes) LWFM_INLINE_LAMBDA {
        lwfm::finish_gradient<decltype(bytes)::value>(own[image], rows, to);
      });
    }
  };
  torch::stable::parallel_for(0, like.size(0), 1, add_images);
  return grad;
}

template <class T>
Two gradients_of(const Tensor& grad, const Tensor& support, const Tensor& query,
                 const MatchedFeatures& forward, const Pairs& pairing, std::int64_t top_k) {
  const FeatureBatch<T> supports(support), queries(query);
  const PairResults<T> pairs(grad, forward.assignment, forward.cosines, top_k);
  pairs.require_matches(query.size(1));
  return {gradient_of_side(supports, queries, support, pairing, true, pairs),
          gradient_of_side(queries, supports, query, pairing, false, pairs)};
}

Two feature_matching_backward_cpu(const Tensor& grad, const Tensor& support, const Tensor& query,
                                  const Tensor& assignment, const Tensor& cosines,
                                  std::int64_t top_k) {
  const MatchedFeatures forward{grad, assignment, cosines};
  const Pairs pairing(lwfm::require_matching_gradient(grad, support, query, forward, top_k));
  const auto gradients =
      support.scalar_type() == ScalarType::Float ? gradients_of<float> : gradients_of<double>;
  return gradients(grad, support, query, forward, pairing, top_k);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(lwfm, library) {
  library.def(
      "feature_matching(Tensor raw, Tensor row_scale, Tensor column_scale, Tensor support, "
      "Tensor query, int top_k) -> (Tensor similarity, Tensor assignment, Tensor cosines)");
  library.def(
      "feature_matching_backward(Tensor grad, Tensor support, Tensor query, Tensor assignment, "
      "Tensor cosines, int top_k) -> (Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(lwfm, CPU, library) {
  library.impl("feature_matching", TORCH_BOX(&feature_matching_cpu));
  library.impl("feature_matching_backward", TORCH_BOX(&feature_matching_backward_cpu));
}
