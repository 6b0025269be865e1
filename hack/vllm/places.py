"""Where `run.sh` says that vLLM's environment and the exported model are."""

import os
from pathlib import Path

PROGRAMS = Path(os.environ["WEIR_VLLM_PROGRAMS"])
CLAIMS = {"weights": Path(os.environ["WEIR_VLLM_WEIGHTS"])}
"""Folders that stand for PersistentVolumeClaims."""
