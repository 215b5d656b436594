#!/usr/bin/env bash
# One visit to a machine with one CUDA GPU and no network, nine minutes at most: is it right, how quick is it, a real
# training. docs/gpu.md says how to read what comes out.
#   OUT=results bash benchmarks/gpu/visit.sh        (from the repository root)
# Carried along, where the machine lacks them: .whl/*.whl (tyro and its needs), fastbert/_C*.so (the built core).
# $OUT gets results.jsonl (one fact a line, flushed at once), summary.txt and the logs. No phase stops another, each has
# its own limit, and the whole ends by itself. VISIT_SMALL=1: tiny shapes, to try the script itself,
# and PATIENCE=N times as long.
set -u
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
cd "$root" || exit 1
export OUT=${OUT:-$root/build/gpu-visit}
mkdir -p "$OUT"
LIMIT_S=${LIMIT_S:-535}
began=$(date +%s)
small=${VISIT_SMALL:-}

left() { echo $((LIMIT_S - $(date +%s) + began)); }
log() { printf '[%4d s] %s\n' $(($(date +%s) - began)) "$*"; }
# within SECONDS NAME COMMAND…: at most so long, and at most what is left; what it did is a fact
within() {
  local most=$(($1 * ${PATIENCE:-1})) name=$2 have code
  shift 2
  have=$(left)
  if [ "$have" -lt 8 ]; then
    log "$name: no time left"
    printf '{"kind": "phase", "name": "%s", "skipped": "no time left"}\n' "$name" >>"$OUT/results.jsonl"
    return 0
  fi
  [ "$most" -gt "$have" ] && most=$have
  log "$name (at most $most s)"
  timeout -k 5 "$most" "$@" >"$OUT/$name.log" 2>&1
  code=$?
  log "$name: exit $code"
  printf '{"kind": "phase", "name": "%s", "exit": %d, "ended_s": %d}\n' "$name" "$code" $(($(date +%s) - began)) \
    >>"$OUT/results.jsonl"
  [ "$code" -ne 0 ] && tail -n 4 "$OUT/$name.log"
  return 0
}

# the package as it lies here: no network, no installation
if ls .whl/*.whl >/dev/null 2>&1; then
  python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$OUT/site" .whl/*.whl
fi
export PYTHONPATH=$OUT/site:$root${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1
export TRITON_CACHE_DIR=$OUT/triton TORCHINDUCTOR_CACHE_DIR=$OUT/inductor PYTORCH_ALLOC_CONF=expandable_segments:True
[ -e fastbert/kernels ] || python3 -c "import fastbert.kernels" 2>/dev/null || ln -s ../kernels/gpu fastbert/kernels
visit="python3 $here/visit.py"

# 1 · what is it, does anything run at all
within 40 facts $visit facts
# 2 · is it right
which=()
[ -n "$small" ] && which=(-k "rotary or bias_gelu")
within 90 model $visit model
within 100 command $visit command
within 100 parity python3 -m pytest -m gpu tests/kernels/test_gpu.py -q --tb=line -p no:cacheprovider "${which[@]}"
$visit note parity "$OUT/parity.log"
# 3 · how quick is a step
within 80 step $visit step
# 4 · a real training: raw text to a model
sizes=(--preset "${PRESET:-base}" --minutes "${MINUTES:-3}" --vocab-size 30522 --evaluations 12 --eval-tokens 131072)
[ -n "$small" ] && sizes=(--preset tiny --steps 20 --evaluations 1 --vocab-size 300 --batch-tokens 256 --max-length 32 --eval-tokens 64)
within "${TRAIN_LIMIT_S:-215}" train python3 -m fastbert.train --data bundled:en --device cuda --output "$OUT/run" "${sizes[@]}"
within 20 run $visit run "$OUT/run"
# 5 · each kernel against its limit and its peers, inference, a short tuning: what is left of the time
within 90 ops $visit ops
within 40 inference $visit inference "$OUT/run"
within 60 tune $visit tune
$visit summary | tee "$OUT/summary.txt"
