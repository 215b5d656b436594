#include "text/segment_cache.h"

#include <cstdlib>
#include <new>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace fastbert {
namespace {

constexpr size_t kPage = size_t{4} << 10, kLargePage = size_t{2} << 20;
[[maybe_unused]] constexpr size_t kLine = 64;

}  // namespace

#ifdef __linux__
PageBlock::PageBlock(size_t num_bytes) {
  const size_t page = num_bytes < kLargePage ? kPage : kLargePage;
  num_bytes_ = (num_bytes + page - 1) / page * page;
  memory_ = mmap(nullptr, num_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory_ == MAP_FAILED) throw std::bad_alloc();
  if (page == kLargePage) madvise(memory_, num_bytes_, MADV_HUGEPAGE);  // before the first touch; refused at no harm
}

PageBlock::~PageBlock() { munmap(memory_, num_bytes_); }
#else
PageBlock::PageBlock(size_t num_bytes) : num_bytes_(num_bytes) {
  memory_ = ::operator new (num_bytes_, std::align_val_t{kLine});
  std::memset(memory_, 0, num_bytes_);
}

PageBlock::~PageBlock() { ::operator delete (memory_, std::align_val_t{kLine}); }
#endif

}  // namespace fastbert
