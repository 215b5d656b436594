// A growing array of ids that is never filled with zeros first.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

namespace fastbert {

class IdBuffer {
 public:
  int32_t* data() { return data_.get(); }
  const int32_t* data() const { return data_.get(); }
  size_t size() const { return size_; }
  size_t capacity() const { return capacity_; }
  void clear() { size_ = 0; }
  void push_back(int32_t id) {
    reserve_more(1);
    data_.get()[size_++] = id;
  }
  // After it `extra` ids may be written at end(), then counted by set_end().
  void reserve_more(size_t extra) {
    if (size_ + extra > capacity_) grow(extra);
  }
  int32_t* end() { return data_.get() + size_; }
  void set_end(const int32_t* end) { size_ = static_cast<size_t>(end - data_.get()); }
  void resize_down(size_t size) { size_ = size; }

 private:
  struct Free {
    void operator()(int32_t* p) const { std::free(p); }
  };
  void grow(size_t extra) {
    const size_t capacity = std::max(size_ + extra, capacity_ + capacity_ / 2);
    auto* moved = static_cast<int32_t*>(std::realloc(data_.get(), capacity * sizeof(int32_t)));
    if (!moved) throw std::bad_alloc();
    static_cast<void>(data_.release());
    data_.reset(moved);
    capacity_ = capacity;
  }
  std::unique_ptr<int32_t, Free> data_;
  size_t size_ = 0, capacity_ = 0;
};

}  // namespace fastbert
