#include "system/parallel.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>

#ifndef _WIN32
#include <pthread.h>
#endif
#ifdef __linux__
#include <sched.h>
#endif

namespace fastbert {
namespace {

using Body = std::function<void(size_t, int)>;

constexpr int kMaxThreads = 1024;

struct Job {
  const Body* body = nullptr;
  size_t count = 0;
  int helpers = 0;  // pool threads that take part, as workers 1..helpers
  std::atomic<size_t> next{0};
  std::atomic<bool> failed{false};
  std::mutex error_mutex;
  std::exception_ptr error;

  void work(int worker) {
    while (!failed.load(std::memory_order_relaxed)) {
      const size_t index = next.fetch_add(1, std::memory_order_relaxed);
      if (index >= count) return;
      try {
        (*body)(index, worker);
      } catch (...) {
        std::lock_guard<std::mutex> lock(error_mutex);
        if (!error) error = std::current_exception();
        failed = true;
      }
    }
  }
};

thread_local bool inside_parallel_for = false;

class Pool {
 public:
  // False when another thread is using the pool: the caller then works alone.
  bool run(Job& job) {
    std::unique_lock<std::mutex> turn(turn_mutex_, std::try_to_lock);
    if (!turn.owns_lock()) return false;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      job.helpers = grow(job.helpers);
      job_ = &job;
      ++generation_;
    }
    wake_.notify_all();
    job.work(0);
    std::unique_lock<std::mutex> lock(mutex_);
    job_ = nullptr;  // a thread that has not woken yet is not waited for: there is nothing left for it
    done_.wait(lock, [&] { return active_ == 0; });
    return true;
  }

 private:
  // Starts threads up to `wanted`; fewer when the system refuses, which costs time and never a result.
  int grow(int wanted) {
    while (size_ < wanted) {
      try {
        std::thread(&Pool::loop, this, size_ + 1, generation_).detach();
      } catch (const std::system_error&) {
        return size_;
      }
      ++size_;
    }
    return wanted;
  }

  void loop(int worker, uint64_t seen) {
    inside_parallel_for = true;
    for (;;) {
      Job* job;
      {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [&] { return generation_ != seen; });
        seen = generation_;
        if (!job_ || worker > job_->helpers) continue;
        job = job_;
        ++active_;
      }
      job->work(worker);
      std::lock_guard<std::mutex> lock(mutex_);
      if (--active_ == 0) done_.notify_one();
    }
  }

  std::mutex turn_mutex_;  // held for the whole of a parallel_for
  std::mutex mutex_;       // guards everything below
  std::condition_variable wake_, done_;
  Job* job_ = nullptr;
  int active_ = 0;  // threads at work on job_
  int size_ = 0;
  uint64_t generation_ = 0;
};

std::atomic<Pool*> the_pool{nullptr};

// The child of a fork has none of the pool's threads, and its locks may be held for ever: it starts a new pool.
// The old one is leaked, as is the pool at exit: its threads sleep on it until the process ends.
[[maybe_unused]] void forget_pool_in_child() {
  the_pool = nullptr;
  inside_parallel_for = false;
}

Pool& pool() {
  Pool* current = the_pool.load(std::memory_order_acquire);
  if (current) return *current;
#ifndef _WIN32
  static std::once_flag registered;
  std::call_once(registered, [] { pthread_atfork(nullptr, nullptr, forget_pool_in_child); });
#endif
  auto* fresh = new Pool;
  if (the_pool.compare_exchange_strong(current, fresh, std::memory_order_acq_rel)) return *fresh;
  delete fresh;
  return *current;
}

}  // namespace

int hardware_threads() {
#ifdef __linux__
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) return std::max(1, CPU_COUNT(&allowed));
#endif
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

void parallel_for(size_t count, int threads, const Body& body) {
  if (threads <= 0) threads = hardware_threads();
  threads = static_cast<int>(std::min<size_t>(std::min(threads, kMaxThreads), count));
  Job job;
  job.body = &body;
  job.count = count;
  job.helpers = threads - 1;
  if (threads <= 1 || inside_parallel_for) {
    job.work(0);
  } else {
    inside_parallel_for = true;
    if (!pool().run(job)) job.work(0);
    inside_parallel_for = false;
  }
  if (job.error) std::rethrow_exception(job.error);
}

}  // namespace fastbert
