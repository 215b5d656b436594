// A value for every code point, with memory only for the pages that are written: texts use few of them.
#pragma once
#include <array>
#include <cstdint>
#include <memory>

namespace fastbert {

template <class T>
class CodePointMap {
 public:
  explicit CodePointMap(T unset) : unset_(unset) {}

  T get(uint32_t code_point) const {
    const auto& page = pages_[code_point >> kPageBits];
    return page ? (*page)[code_point & (kPageSize - 1)] : unset_;
  }
  T& operator[](uint32_t code_point) {
    auto& page = pages_[code_point >> kPageBits];
    if (!page) {
      page = std::make_unique<Page>();
      page->fill(unset_);
    }
    return (*page)[code_point & (kPageSize - 1)];
  }
  // Calls visit(code_point, value) in the order of the code points for all that may have been written.
  template <class Visit>
  void for_each(Visit&& visit) const {
    for (uint32_t i = 0; i < pages_.size(); ++i)
      for (uint32_t j = 0; pages_[i] && j < kPageSize; ++j) visit(i << kPageBits | j, (*pages_[i])[j]);
  }

 private:
  static constexpr uint32_t kPageBits = 8, kPageSize = 1 << kPageBits;
  using Page = std::array<T, kPageSize>;

  T unset_;
  std::array<std::unique_ptr<Page>, (0x110000 >> kPageBits)> pages_;
};

}  // namespace fastbert
