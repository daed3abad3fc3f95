#include "support/parallel.hpp"

#include <unistd.h>

#include <condition_variable>
#include <thread>
#include <vector>

#include "support/ieee.hpp"

namespace rsir {

namespace {

// How often to look whether a helper is done before sleeping: they mostly end within some microseconds of each other.
constexpr int kLooks = 100;

// A thread that sleeps until there is work. It is never joined nor destroyed, and ends with the process.
class Helper {
 public:
  Helper() { std::thread(&Helper::serve, this).detach(); }

  void begin(const Work& work, int worker) {
    {
      const std::lock_guard<std::mutex> hold(lock_);
      work_ = &work;
      worker_ = worker;
      busy_.store(true);
    }
    wake_.notify_one();
  }

  void wait() {
    for (int look = 0; look < kLooks && busy_.load(); ++look) std::this_thread::yield();
    std::unique_lock<std::mutex> hold(lock_);
    done_.wait(hold, [this] { return !busy_.load(); });
  }

 private:
  void serve() {
    const Ieee arithmetic;  // a thread starts with the mode of the one that made it
    std::unique_lock<std::mutex> hold(lock_);
    while (true) {
      wake_.wait(hold, [this] { return busy_.load(); });
      hold.unlock();
      (*work_)(worker_);
      hold.lock();
      busy_.store(false);
      done_.notify_one();
    }
  }

  std::mutex lock_;
  std::condition_variable wake_, done_;
  const Work* work_ = nullptr;
  int worker_ = 0;
  std::atomic<bool> busy_{false};
};

// Helpers without work; calls that run at the same time take different ones.
struct Idle {
  explicit Idle(pid_t pid) : process(pid) {}

  pid_t process;
  std::mutex lock;
  std::vector<Helper*> helpers;
};

// Those of this process: a fork takes no threads along, and a lock as it was just then.
Idle& idle() {
  static std::atomic<Idle*> current{nullptr};
  const pid_t process = getpid();
  Idle* found = current.load();
  if (found && found->process == process) return *found;
  Idle* fresh = new Idle(process);
  if (current.compare_exchange_strong(found, fresh)) return *fresh;
  delete fresh;
  return *found;
}

}  // namespace

void on_threads(int threads, const Work& work) {
  Idle& all = idle();
  std::vector<Helper*> mine;
  try {
    mine.reserve(static_cast<std::size_t>(threads));
    {
      const std::lock_guard<std::mutex> hold(all.lock);
      while (static_cast<int>(mine.size()) + 1 < threads && !all.helpers.empty()) {
        mine.push_back(all.helpers.back());
        all.helpers.pop_back();
      }
    }
    while (static_cast<int>(mine.size()) + 1 < threads) mine.push_back(new Helper());
  } catch (...) {
    // fewer threads than asked for: those there are do all the work
  }
  int worker = 0;
  for (Helper* helper : mine) helper->begin(work, ++worker);
  work(0);
  for (Helper* helper : mine) helper->wait();
  const std::lock_guard<std::mutex> hold(all.lock);
  for (auto helper = mine.rbegin(); helper != mine.rend(); ++helper) all.helpers.push_back(*helper);
}

}  // namespace rsir
