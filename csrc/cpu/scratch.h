// Memory a thread keeps from one kernel to the next: fresh pages would cost more than the work on them.
#pragma once
#include <cstddef>

namespace fastbert {

// At least so many bytes, 64-byte aligned, of the calling thread alone; what was in it is lost with the next call.
void* thread_scratch(size_t bytes);

}  // namespace fastbert
