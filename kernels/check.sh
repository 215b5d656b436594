#!/usr/bin/env bash
# The kernels' four gates, without a GPU, by one or more versions of Triton: kernels/check.sh [VERSION …], default 3.7.1 3.9.0.
# Each version lies in a folder of its own that is put before the environment's packages, so torch is not installed
# again. `python` must have torch and fastbert's test extra. TRITON_OVERLAYS: where the folders are kept (build/triton).
set -euo pipefail
cd "$(dirname "$0")/.."
overlays=${TRITON_OVERLAYS:-build/triton}
for version in "${@:-3.7.1 3.9.0}"; do
  for one in $version; do
    folder=$overlays/$one
    if [ ! -e "$folder/triton/__init__.py" ]; then
      numpy=()
      # its interpreter turns arrays of one element into Python numbers, which newer NumPys refuse
      case $one in 3.6.*) numpy=("numpy<2.4") ;; esac
      python -m pip install -q --no-deps --target "$folder" "triton==$one" "${numpy[@]}"
    fi
    export PYTHONPATH=$PWD/$folder
    case $overlays in /*) export PYTHONPATH=$folder ;; esac
    python -c "import triton; assert triton.__version__ == '$one', triton.__version__"
    printf '[%s] gates by Triton %s\n' "$(date +%T)" "$one"
    python -m pytest -q tests/kernels
  done
done
