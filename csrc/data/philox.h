// Philox4x32-10: counter-based randomness. A word is a pure function of (key, counter), so nothing has a state to save
// and no result depends on the order or the number of threads it was computed in.
// Reference: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
#pragma once
#include <cstddef>
#include <cstdint>

namespace fastbert {

// What a draw is for. Part of the counter, so that draws for different ends never share words.
// fastbert/data/batches/philox.py has the same numbers.
enum class Purpose : uint32_t { kSelect = 1, kReplace = 2 };

// The middle of the counter: (block, item low, item high 24 bits | purpose << 24, epoch). item < 2^56.
inline uint32_t counter_high(uint64_t item, Purpose purpose) {
  return static_cast<uint32_t>(item >> 32) | (static_cast<uint32_t>(purpose) << 24);
}

// out[4 * i + j] = word j of the block with counter (c0[i], c1[i], c2[i], c3) under the 64-bit key.
void philox_blocks(uint64_t key, const uint32_t* c0, const uint32_t* c1, const uint32_t* c2, uint32_t c3, size_t count,
                   uint32_t* out);

// The paths this machine can run, for tests: 0 portable, 1 AVX2, 2 AVX-512. philox_blocks takes the last one.
bool philox_path_supported(int path);
void philox_blocks_on(int path, uint64_t key, const uint32_t* c0, const uint32_t* c1, const uint32_t* c2, uint32_t c3,
                      size_t count, uint32_t* out);

}  // namespace fastbert
