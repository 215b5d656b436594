#!/usr/bin/env bash
# Builds and tests the C++ core without Python: the presets dev, asan (ASan + UBSan) and tsan, one after another.
#   csrc/check.sh                   all three
#   csrc/check.sh dev asan          only these
#   csrc/check.sh --fuzz SECONDS    all three, then every fuzz target for that long (needs clang++)
#   csrc/check.sh --fuzz SECONDS fuzz    the fuzz targets alone
#   csrc/check.sh aarch64           the unit tests for 64-bit Arm, cross-compiled, run by qemu (with UBSan)
# Needs cmake, a C++17 compiler and doctest (apt-get install cmake g++ doctest-dev, and clang for --fuzz;
# g++-aarch64-linux-gnu and qemu-user for aarch64).
# JOBS sets the number of parallel compilations. Any failure ends it with a non-zero status.
set -euo pipefail
cd "$(dirname "$0")/.."

fuzz_seconds=0
presets=()
while (($#)); do
  case $1 in
    --fuzz)
      if [[ ! ${2:-} =~ ^[1-9][0-9]*$ ]]; then
        echo "error: --fuzz '${2:-}': expected a number of seconds for each target" >&2
        exit 2
      fi
      fuzz_seconds=$2
      shift 2
      ;;
    dev | asan | tsan | aarch64 | fuzz) presets+=("$1"); shift ;;
    -h | --help) sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "error: $1: expected --fuzz SECONDS or one of dev, asan, tsan, aarch64, fuzz" >&2; exit 2 ;;
  esac
done
if ((${#presets[@]} == 0)); then
  presets=(dev asan tsan)
  if ((fuzz_seconds)); then presets+=(fuzz); fi
fi
if ! command -v cmake >/dev/null; then
  echo "error: cmake is not installed (apt-get install cmake, or pip install cmake)" >&2
  exit 1
fi

jobs=${JOBS:-$(getconf _NPROCESSORS_ONLN)}
summary=()
for preset in "${presets[@]}"; do
  options=()
  if [[ $preset == fuzz ]]; then
    if ! command -v clang++ >/dev/null; then
      echo "skipped: fuzz: clang++ is not installed (apt-get install clang)" >&2
      summary+=("fuzz: SKIPPED, no clang++")
      continue
    fi
    options=(-DFASTBERT_FUZZ_SECONDS="$((fuzz_seconds ? fuzz_seconds : 5))")
  fi
  if [[ $preset == aarch64 ]]; then
    missing=""
    for tool in aarch64-linux-gnu-g++ qemu-aarch64; do
      command -v "$tool" >/dev/null || missing+=" $tool"
    done
    if [[ $missing ]]; then
      echo "skipped: aarch64: not installed:$missing (apt-get install g++-aarch64-linux-gnu qemu-user)" >&2
      summary+=("aarch64: SKIPPED, no$missing")
      continue
    fi
  fi
  echo "== $preset"
  cmake --preset "$preset" "${options[@]}" -Wno-dev --log-level=WARNING >/dev/null
  log=build/cmake-$preset/build.log
  if ! cmake --build --preset "$preset" --parallel "$jobs" >"$log" 2>&1; then
    cat "$log" >&2
    echo "error: $preset does not build" >&2
    exit 1
  fi
  ctest --preset "$preset"
  note=""
  if [[ $preset == aarch64 ]]; then note=" under qemu, but for the test that forks"; fi
  summary+=("$preset: passed$note")
done
printf '%s\n' "${summary[@]}"
