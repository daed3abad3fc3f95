// What this machine can do, for benchmarks to hold figures against.
#pragma once

#include <time.h>

#include <chrono>
#include <cstdint>
#include <vector>

#include "support/memory.hpp"
#include "support/parallel.hpp"

namespace rsir {

// Seconds this thread has run, which a busy neighbour does not add to.
inline double thread_seconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// Floating point operations of independent multiply-adds in registers per second of running, summed over threads.
// burn runs so many of them and returns the operations done (isa/unit.hpp).
inline double measure_fma(double (*burn)(std::int64_t, float*), int threads, double seconds) {
  constexpr std::int64_t kIterations = 200000;
  std::vector<double> rates(static_cast<std::size_t>(threads));
  parallel_for(threads, threads, [&](std::int64_t task, int) {
    float sink[3] = {0.999f, 0.001f, 0.0f};
    double operations = 0.0, elapsed = 0.0;
    const double start = thread_seconds();
    do {
      operations += burn(kIterations, sink);
      elapsed = thread_seconds() - start;
    } while (elapsed < seconds);
    rates[static_cast<std::size_t>(task)] = operations / elapsed;
  });
  double sum = 0.0;
  for (const double rate : rates) sum += rate;
  return sum;
}

// Bytes a second read from a buffer of that size in each thread.
inline double measure_read(int threads, std::int64_t bytes) {
  using Clock = std::chrono::steady_clock;
  const std::int64_t words = bytes / 8;
  std::vector<double> rates(static_cast<std::size_t>(threads));
  std::vector<std::uint64_t> sums(static_cast<std::size_t>(threads));
  parallel_for(threads, threads, [&](std::int64_t task, int) {
    const Aligned<std::uint64_t> buffer = allocate_aligned<std::uint64_t>(words);
    for (std::int64_t i = 0; i < words; ++i) buffer[i] = static_cast<std::uint64_t>(i);
    double best = 0.0;
    std::uint64_t sum = 0;
    for (int turn = 0; turn < 5; ++turn) {
      const auto start = Clock::now();
      for (std::int64_t i = 0; i < words; ++i) sum += buffer[i];
      const double elapsed = std::chrono::duration<double>(Clock::now() - start).count();
      best = best > static_cast<double>(bytes) / elapsed ? best : static_cast<double>(bytes) / elapsed;
    }
    rates[static_cast<std::size_t>(task)] = best;
    sums[static_cast<std::size_t>(task)] = sum;
  });
  double total = 0.0;
  for (const double rate : rates) total += rate;
  volatile std::uint64_t keep = sums[0];  // the sums must be computed
  (void)keep;
  return total;
}

}  // namespace rsir
