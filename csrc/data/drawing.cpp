#include "data/drawing.hpp"

#include <algorithm>
#include <cmath>

namespace rsir {

Neighbours near_points(std::int64_t n, const double* points, double reach) {
  Neighbours found;
  found.offsets.push_back(0);
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t j = 0; j < n; ++j) {
      const double *a = points + 2 * i, *b = points + 2 * j;
      const double apart = 2.0 - std::cos(a[0] - b[0]) - std::cos(a[1] - b[1]);
      if (apart <= reach) found.ids.push_back(static_cast<std::int32_t>(j));
    }
    found.offsets.push_back(static_cast<std::int64_t>(found.ids.size()));
  }
  return found;
}

void draw_genres(const Genres& genres, std::int64_t n, const std::int64_t* users, const double* uniform,
                 const double* points, const std::int32_t* home, double concentration, std::int64_t* out) {
  std::int64_t most = 0;
  for (std::int64_t g = 0; g < genres.count; ++g)
    most = std::max(most, genres.offsets[g + 1] - genres.offsets[g]);
  std::vector<double> running(static_cast<std::size_t>(most));
  std::vector<double> cosine(static_cast<std::size_t>(2 * genres.count)), sine(cosine.size());
  for (std::size_t i = 0; i < cosine.size(); ++i)
    cosine[i] = std::cos(genres.centres[i]), sine[i] = std::sin(genres.centres[i]);
  for (std::int64_t i = 0; i < n; ++i) {
    const std::int64_t user = users[i];
    const std::int64_t first = genres.offsets[home[user]], count = genres.offsets[home[user] + 1] - first;
    const double a = points[2 * user], b = points[2 * user + 1];
    const double cos_a = std::cos(a), sin_a = std::sin(a), cos_b = std::cos(b), sin_b = std::sin(b);
    double total = 0.0;
    for (std::int64_t j = 0; j < count; ++j) {
      const std::size_t centre = 2 * static_cast<std::size_t>(genres.ids[first + j]);
      double close = cosine[centre] * cos_a + sine[centre] * sin_a;  // the cosine of the difference
      close += cosine[centre + 1] * cos_b + sine[centre + 1] * sin_b;
      total += std::exp(concentration * close);
      running[static_cast<std::size_t>(j)] = total;
    }
    std::int64_t place = 0;
    while (place < count - 1 && running[static_cast<std::size_t>(place)] <= uniform[i] * total) ++place;
    out[i] = genres.ids[first + place];
  }
}

void find_repeats(std::int64_t n, const std::int64_t* users, const std::int32_t* drawn, std::int64_t step,
                  std::int32_t* items, const std::int64_t* offsets, bool* repeated) {
  for (std::int64_t i = 0; i < n; ++i) {
    std::int32_t* own = items + offsets[users[i]];
    own[step] = drawn[i];
    repeated[i] = std::find(own, own + step, drawn[i]) != own + step;
  }
}

}  // namespace rsir
