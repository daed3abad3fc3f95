// Loops of the simulator; rsir/data/drawing.py documents the meaning. Inputs have been checked.
#pragma once

#include <cstdint>
#include <vector>

namespace rsir {

struct Neighbours {
  std::vector<std::int64_t> offsets;  // (points + 1,)
  std::vector<std::int32_t> ids;      // ascending
};

// Of each point (n, 2) on the torus those within reach of it.
Neighbours near_points(std::int64_t n, const double* points, double reach);

struct Genres {
  std::int64_t count;
  const double* centres;        // (count, 2)
  const std::int64_t* offsets;  // (count + 1,), no list empty
  const std::int32_t* ids;      // of each those that are near
};

// A genre for each of n users, by their taste: points and home are of all users.
void draw_genres(const Genres&, std::int64_t n, const std::int64_t* users, const double* uniform, const double* points,
                 const std::int32_t* home, double concentration, std::int64_t* out);

// Writes drawn (n,) at place `step` of the users' rows of items; repeated (n,): whether the row has it before there.
void find_repeats(std::int64_t n, const std::int64_t* users, const std::int32_t* drawn, std::int64_t step,
                  std::int32_t* items, const std::int64_t* offsets, bool* repeated);

}  // namespace rsir
