// A persistent thread pool behind one function, safe after fork().
#pragma once
#include <cstddef>
#include <functional>

namespace fastbert {

// Threads this process may run on (its CPU affinity where the system tells it), at least 1.
int hardware_threads();

// Calls body(index, worker) once for every index in [0, count), on up to `threads` threads (<= 0 means
// hardware_threads()), and returns when all have ended. The caller takes part as worker 0.
//  - worker is in [0, max(1, threads)) and no two calls run at once with the same worker: it may pick a scratch buffer.
//  - Indices are handed out in increasing order, one at a time: make them coarse (tens of microseconds or more).
//  - The first exception stops the handing out and is rethrown here, after every running call has ended.
//  - A call from inside a body, or while another thread is inside parallel_for, runs on the calling thread alone.
//  - The results of a correct body must not depend on `threads`; nothing here tells it how many there are.
void parallel_for(size_t count, int threads, const std::function<void(size_t index, int worker)>& body);

}  // namespace fastbert
