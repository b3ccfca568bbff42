// Episodes of a pool of encoded images: what they read, and the layout of their tiles.
//
// Letters: n images of the pool, E episodes, S support images and Q queries of each, K shots of a
// class, P positions, C and D channels, l a layer. Support images are sorted by class everywhere
// inside; the queries of an episode are processed in tiles.
#pragma once

#include <algorithm>
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "core/matching/class_images.h"
#include "core/matching/embedding_weights_group.h"

namespace lwfm {

// One layer of all images of the pool, contiguous.
template <class T>
struct PoolLayer {
  std::int64_t P, C, D;       // D: 0 without an embedding
  const T* positions;         // [n, P, C]
  const T* squares;           // [n, P]: squared norms of the positions
  const T* grams;             // [n, P, P]: inner products of an image's positions
  const T* embedded;          // [n, P, D]
  const T* embedded_squares;  // [n, P]

  bool is_embedded() const { return D > 0; }
  const T* position(std::int64_t image, std::int64_t p) const {
    return positions + (image * P + p) * C;
  }
  const T* embedded_position(std::int64_t image, std::int64_t p) const {
    return embedded + (image * P + p) * D;
  }
};

// Which images of the pool make the episodes. Without lists: one episode, the first S images of the
// pool are its support images and the others its queries.
struct EpisodeImages {
  std::int64_t E, S, Q;
  ClassImages classes;
  const std::int64_t* support;  // [E, S], or null
  const std::int64_t* query;    // [E, Q], or null

  std::int64_t support_image(std::int64_t e, std::int64_t n) const {
    const std::int64_t at = classes.images[n];
    return support == nullptr ? at : support[e * S + at];
  }
  std::int64_t query_image(std::int64_t e, std::int64_t q) const {
    return query == nullptr ? S + q : query[e * Q + q];
  }
  // Whether the squared norms of a class's weighted means come from the products [K P, K P] of its
  // positions, which all queries share. With more positions than queries the means take less time.
  bool has_gram(std::int64_t c, std::int64_t P) const { return classes.shots(c) * P <= Q; }
  // Where the products of a class begin, one class after another.
  std::int64_t gram_begin(std::int64_t c, std::int64_t P) const {
    std::int64_t entries = 0;
    for (std::int64_t n = 0; n < c; ++n) {
      if (has_gram(n, P)) entries += classes.shots(n) * classes.shots(n) * P * P;
    }
    return entries;
  }
};

struct EpisodeOptions {
  double temperature;     // of layer-wise embedding; infinite: none
  std::int64_t top_k;     // matched pairs averaged; 0: no matching, -1: all
  bool mean_over_layers;  // of matched similarities, else their maximum
  bool merge_shots;       // one assignment of all shots of a class, else one of each
  bool features;          // whether queries' weighted means are wanted

  bool matches() const { return top_k != 0; }
  std::int64_t matched(std::int64_t P) const { return top_k < 0 ? P : top_k; }
};

// Problems of assignment of a query: with each support image, or with each class.
struct MatchProblems {
  const EpisodeImages& images;
  bool merged;

  std::int64_t count() const { return merged ? images.classes.way : images.S; }
  std::int64_t first_of(std::int64_t c) const { return merged ? c : images.classes.begin[c]; }
  std::int64_t of_class(std::int64_t c) const { return merged ? 1 : images.classes.shots(c); }
  std::int64_t shots(std::int64_t c) const { return merged ? images.classes.shots(c) : 1; }
};

// Queries that are processed together: as many as the widest vectors have lanes, one where blocks
// are too large for that.
template <class T>
std::int64_t tile_queries(std::int64_t P) {
  return P * P <= kGroupedEntries ? kGroup<T> : 1;
}

// Queries first, ..., first + count - 1 of episode e.
struct QueryTile {
  std::int64_t e, first, count;
};

// The tiles of queries first, ..., first + count - 1 of an episode; a tile of each layer is one
// piece of work. `first` is a multiple of kGroup.
template <class T>
class TileList {
 public:
  TileList(const std::vector<PoolLayer<T>>& layers, std::int64_t first, std::int64_t count)
      : first_(first), end_(first + count) {
    for (const auto& layer : layers) {
      width_.push_back(tile_queries<T>(layer.P));
      begin_.push_back(begin_.back() + (count + width_.back() - 1) / width_.back());
    }
  }

  std::int64_t per_episode() const { return begin_.back(); }

  // Calls work(l, tile) for piece `number` of an episode.
  template <class Work>
  void run(std::int64_t e, std::int64_t number, const Work& work) const {
    std::size_t l = 0;
    while (begin_[l + 1] <= number) ++l;
    const std::int64_t first = first_ + (number - begin_[l]) * width_[l];
    work(l, QueryTile{e, first, std::min(width_[l], end_ - first)});
  }

 private:
  std::int64_t first_, end_;
  std::vector<std::int64_t> width_, begin_{0};
};

// Why the first problem without an assignment has none; the first in the order of episodes,
// queries, support images and layers, whichever thread meets it first.
class FirstFailure {
 public:
  using Key = std::vector<std::int64_t>;

  template <class Describe>
  void report(Key key, const Describe& describe) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (failed_ && first_ <= key) return;
    message_ = describe();
    first_ = std::move(key);
    failed_ = true;
  }
  bool failed() const { return failed_; }
  const std::string& message() const { return message_; }

 private:
  std::mutex mutex_;
  Key first_;
  std::string message_;
  bool failed_ = false;
};

}  // namespace lwfm
