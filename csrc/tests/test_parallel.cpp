#include "system/parallel.h"

#include <doctest/doctest.h>

#include <atomic>
#include <stdexcept>
#include <thread>
#include <vector>

#if defined(__unix__) && !defined(__SANITIZE_THREAD__)
#include <sys/wait.h>
#include <unistd.h>
#endif

using fastbert::parallel_for;

TEST_CASE("parallel: every index once, workers in range, at any number of threads") {
  for (int threads : {0, 1, 2, 3, 8}) {
    for (size_t count : {0, 1, 2, 7, 1000}) {
      std::vector<std::atomic<int>> seen(count);
      std::atomic<bool> in_range{true};
      parallel_for(count, threads, [&](size_t index, int worker) {
        ++seen[index];
        const int limit = threads > 0 ? threads : fastbert::hardware_threads();
        if (worker < 0 || worker >= limit) in_range = false;
      });
      CHECK(in_range);
      for (auto& times : seen) REQUIRE(times == 1);
    }
  }
}

TEST_CASE("parallel: no two calls run at once with the same worker") {
  std::atomic<int> busy[4] = {};
  std::atomic<bool> clash{false};
  parallel_for(2000, 4, [&](size_t, int worker) {
    if (busy[worker]++) clash = true;
    --busy[worker];
  });
  CHECK(!clash);
}

TEST_CASE("parallel: the first exception comes back, and the pool lives on") {
  for (int round = 0; round < 20; ++round) {
    CHECK_THROWS_AS(parallel_for(100, 4,
                                 [](size_t i, int) {
                                   if (i == 13) throw std::runtime_error("13");
                                 }),
                    std::runtime_error);
    std::atomic<int> sum{0};
    parallel_for(10, 4, [&](size_t, int) { ++sum; });
    CHECK(sum == 10);
  }
}

TEST_CASE("parallel: nested and simultaneous calls do all of their work") {
  std::atomic<int> sum{0};
  parallel_for(8, 4, [&](size_t, int) { parallel_for(8, 4, [&](size_t, int) { ++sum; }); });
  CHECK(sum == 64);
  std::vector<std::thread> callers;
  for (int i = 0; i < 4; ++i)
    callers.emplace_back([&] {
      for (int k = 0; k < 50; ++k) parallel_for(4, 3, [&](size_t, int) { ++sum; });
    });
  for (auto& caller : callers) caller.join();
  CHECK(sum == 64 + 4 * 50 * 4);
}

#if defined(__unix__) && !defined(__SANITIZE_THREAD__)
TEST_CASE("parallel: a forked child has a pool of its own") {
  parallel_for(16, 4, [](size_t, int) {});
  const pid_t child = fork();
  if (child == 0) {
    std::atomic<int> sum{0};
    parallel_for(16, 4, [&](size_t, int) { ++sum; });
    _exit(sum == 16 ? 0 : 1);
  }
  int status = -1;
  waitpid(child, &status, 0);
  CHECK(status == 0);
}
#endif
