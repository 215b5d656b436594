#include "cpu/team.h"

#include <algorithm>
#include <atomic>

#include "system/parallel.h"

#ifndef _WIN32
#include <dlfcn.h>
#endif
#ifdef __linux__
#include <link.h>

#include <cstring>
#include <string>
#endif

namespace fastbert {
namespace {

using Region = void (*)(void* data);
// libgomp's entry point, which LLVM's and Intel's libomp offer too.
using GompParallel = void (*)(Region region, void* data, unsigned threads, unsigned flags);

#ifdef __linux__
// The path of an OpenMP library among torch's files: its wheels for Arm load one that other libraries do not see.
int note_torchs_openmp(dl_phdr_info* library, size_t, void* path) {
  const char* name = library->dlpi_name;
  if (!name || !std::strstr(name, "/torch")) return 0;
  if (!std::strstr(name, "libgomp") && !std::strstr(name, "libomp") && !std::strstr(name, "libiomp")) return 0;
  *static_cast<std::string*>(path) = name;
  return 1;
}
#endif

GompParallel find_openmp() {
  void* entry = nullptr;
#ifndef _WIN32
  entry = dlsym(RTLD_DEFAULT, "GOMP_parallel");
#endif
#ifdef __linux__
  std::string path;
  if (!entry && dl_iterate_phdr(&note_torchs_openmp, &path))
    if (void* library = dlopen(path.c_str(), RTLD_LAZY | RTLD_NOLOAD)) entry = dlsym(library, "GOMP_parallel");
#endif
  return reinterpret_cast<GompParallel>(entry);
}

GompParallel openmp() {
  static const GompParallel found = find_openmp();
  return found;
}

struct Work {
  const std::function<void(size_t, int)>& body;
  size_t count;
  std::atomic<size_t> next{0};
  std::atomic<int> workers{0};

  static void run(void* data) {
    auto& work = *static_cast<Work*>(data);
    const int worker = work.workers.fetch_add(1, std::memory_order_relaxed);
    for (size_t i; (i = work.next.fetch_add(1, std::memory_order_relaxed)) < work.count;) work.body(i, worker);
  }
};

}  // namespace

void team_for(size_t count, int threads, const std::function<void(size_t, int)>& body) {
  const auto wanted = static_cast<unsigned>(std::min<size_t>(std::max(threads, 1), count));
  if (wanted <= 1) {
    for (size_t i = 0; i < count; ++i) body(i, 0);
  } else if (openmp()) {
    Work work{body, count};
    openmp()(&Work::run, &work, wanted, 0);
  } else {
    parallel_for(count, static_cast<int>(wanted), body);
  }
}

const char* team_name() { return openmp() ? "openmp" : "pool"; }

}  // namespace fastbert
