// The threads the compute kernels run on: torch's own OpenMP threads where they are found in the process, else our
// pool.
#pragma once
#include <cstddef>
#include <functional>

namespace fastbert {

// Calls body(index, worker) once for every index in [0, count) on up to `threads` threads; worker < max(1, threads),
// and no two calls run at once with the same worker. The caller takes part. The body must not throw.
//
// Why not always our pool: after each of torch's parallel regions its threads spin for a while, waiting for the next.
// A pool beside them would have to share the cores with the spinning; inside of them the start also costs two
// microseconds instead of fifty. Nothing is linked for it: the entry points are looked up in the running process.
//
// The results of a correct body do not depend on `threads`: a sum over tasks is taken over a fixed number of parts.
void team_for(size_t count, int threads, const std::function<void(size_t index, int worker)>& body);

// "openmp" or "pool": what team_for runs on in this process.
const char* team_name();

}  // namespace fastbert
