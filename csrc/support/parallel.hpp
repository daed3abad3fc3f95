// Threads over a shared counter of tasks. They are kept from call to call, asleep: starting new ones for each took a
// fifteenth of a training step.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>

namespace rsir {

using Work = std::function<void(int)>;  // of a worker, by its number

// Calls work(worker) in up to `threads` threads at a time, each once: worker 0 is the calling one, and there are fewer
// if no more are to be had. Work must not throw.
void on_threads(int threads, const Work& work);

// Calls run(task, worker) once for every task in 0..tasks-1; worker is in 0..threads-1.
// The first exception of any task is thrown again here, after all tasks that had begun have ended.
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
  on_threads(threads, [&](int worker) {
    try {
      for (std::int64_t task; (task = next.fetch_add(1)) < tasks;) run(task, worker);
    } catch (...) {
      const std::lock_guard<std::mutex> hold(error_lock);
      if (!error) error = std::current_exception();
      next.store(tasks);
    }
  });
  if (error) std::rethrow_exception(error);
}

// Threads worth waking for so many floating point operations (that takes about 3 MFLOP of scanning).
inline int useful_threads(double operations, int threads) {
  const double worth = operations / 3e6 + 1.0;
  return worth < threads ? static_cast<int>(worth) : threads;
}

}  // namespace rsir
