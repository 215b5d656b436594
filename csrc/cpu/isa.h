// Which instruction set the compute kernels use: the best this machine has and ATEN_CPU_CAPABILITY allows.
#pragma once
#include <string>
#include <vector>

#include "system/simd.h"

namespace fastbert {

// On one kind of processor each holds the ones before it. kAvx2 includes FMA; kAvx512 is F, BW, DQ and VL; kAvx512Bf16
// adds vdpbf16ps, kAmxBf16 tiles of bf16 (Intel, from Sapphire Rapids on; Linux). On 64-bit Arm: kNeon is in every one,
// kNeonBf16 adds bfdot (Linux).
enum class Isa { kScalar, kAvx2, kAvx512, kAvx512Bf16, kAmxBf16, kNeon, kNeonBf16 };

// From the simplest to the quickest that this machine and this binary have; always holds kScalar.
std::vector<Isa> available_isas();
const char* isa_name(Isa isa);

// What the kernels use now, in the whole process.
Isa current_isa();
// Throws std::invalid_argument for a name this machine cannot run; "auto" is the best. Not while a kernel runs.
void set_current_isa(const std::string& name);

}  // namespace fastbert
