// Which instruction sets this binary has code for and this machine can run. Chosen at run time.
#pragma once
#include <string>
#include <vector>

namespace fastbert {

enum class SimdLevel { kScalar, kNeon, kAvx2, kAvx512 };

// Whether the user lets this process use the level: PyTorch's switch ATEN_CPU_CAPABILITY is ours too, so that one
// setting puts all of a program on a lower instruction set ("default": scalar loops, "avx2": nothing above AVX2).
bool simd_allowed(SimdLevel level);

// From the simplest to the quickest; always holds kScalar.
std::vector<SimdLevel> available_simd_levels();
SimdLevel best_simd_level();

const char* simd_name(SimdLevel level);
// Throws std::invalid_argument for an unknown name, or one that cannot run here. "auto" is the quickest.
SimdLevel simd_level_named(const std::string& name);

}  // namespace fastbert

#if (defined(__x86_64__) || defined(_M_X64)) && (defined(__GNUC__) || defined(__clang__))
#define FASTBERT_X86 1
#endif
// AMX's instructions in an assembler that knows them, and Linux, which is asked for leave to use them
#if defined(FASTBERT_X86) && defined(__linux__) && (defined(__clang__) ? __clang_major__ >= 12 : __GNUC__ >= 11)
#define FASTBERT_AMX 1
#endif
#if defined(__aarch64__)
#define FASTBERT_NEON 1
#endif
// bfdot in a compiler whose intrinsics have it function by function, and Linux, which tells whether the processor has
#if defined(FASTBERT_NEON) && defined(__linux__) && (defined(__clang__) ? __clang_major__ >= 16 : __GNUC__ >= 10)
#define FASTBERT_NEON_BF16 1
#endif
