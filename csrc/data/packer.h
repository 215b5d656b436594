// Deals sequences into batches of at most a budget of tokens: as few batches as best-fit-decreasing needs, or one in a
// hundred more, and those filled evenly where that can be. fastbert/data/batches/packing.py is the readable twin,
// byte-identical.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace fastbert {

// batch_of (count,) becomes the batch of each sequence; returns the number of batches.
// Every length must be in [1, batch_tokens] and batch_tokens below 2^31.
int64_t pack_batches(const int64_t* lengths, size_t count, int64_t batch_tokens, std::vector<int64_t>& batch_of);

}  // namespace fastbert
