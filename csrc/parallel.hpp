// Plain threads over a shared counter of tasks. No pool is kept between calls: a start costs some tens of
// microseconds, and callers ask for fewer threads when the work is not worth it.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace rsir {

// Calls run(task, worker) once for every task in 0..tasks-1; worker is in 0..threads-1.
// The first exception of any task is thrown again here, after all threads have ended.
template <class Run>
void parallel_for(std::int64_t tasks, int threads, Run run) {
  if (threads > tasks) threads = static_cast<int>(tasks);
  if (threads <= 1) {
    for (std::int64_t task = 0; task < tasks; ++task) run(task, 0);
    return;
  }
  std::atomic<std::int64_t> next{0};
  std::exception_ptr error;
  std::mutex error_lock;
  auto work = [&](int worker) {
    try {
      for (std::int64_t task; (task = next.fetch_add(1)) < tasks;) run(task, worker);
    } catch (...) {
      const std::lock_guard<std::mutex> hold(error_lock);
      if (!error) error = std::current_exception();
      next.store(tasks);
    }
  };
  std::vector<std::thread> others;
  try {
    others.reserve(static_cast<std::size_t>(threads - 1));
    for (int worker = 1; worker < threads; ++worker) others.emplace_back(work, worker);
  } catch (...) {
    // fewer threads than asked for: those there are, and this one, do all the tasks
  }
  work(0);
  for (std::thread& thread : others) thread.join();
  if (error) std::rethrow_exception(error);
}

// Threads worth starting for so many floating point operations (a start is about 3 MFLOP of scanning).
inline int useful_threads(double operations, int threads) {
  const double worth = operations / 3e6 + 1.0;
  return worth < threads ? static_cast<int>(worth) : threads;
}

}  // namespace rsir
