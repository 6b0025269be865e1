"""Rounds a trained model to int8 and puts it, with tokenizer and test questions, into the package.

    python pack.py --data DIR --work DIR --model small|large

Needs weir_lab on PYTHONPATH. Weights travel as int8, arithmetic stays float32.
"""

import argparse
import csv
import gzip
import io
import json
import shutil
from importlib.resources import files
from pathlib import Path

import corpus
import numpy as np

from weir_lab import weights


def pack(work: Path, model: str) -> bytes:
    with np.load(work / f"{model}.npz", allow_pickle=False) as arrays:
        meta = json.loads(arrays["meta"].tobytes())
        tensors = {name: arrays[name] for name in arrays.files if name != "meta"}
    return weights.pack(weights.Shape(**meta["shape"]), tuple(meta["intents"]), tensors)


def questions(data: Path) -> bytes:
    """Return the test questions as a csv.gz that is the same on every day."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["text", "intent"])
    writer.writerows([question.text, question.intent] for question in corpus.test_questions(data))
    return gzip.compress(text.getvalue().encode(), mtime=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--model", choices=weights.MODELS, required=True)
    args = parser.parse_args()
    folder = Path(str(files("weir_lab"))) / "data"
    (folder / f"{args.model}.npz").write_bytes(pack(args.work, args.model))
    shutil.copy(args.work / "tokenizer.json", folder / "tokenizer.json")
    (folder / "questions.csv.gz").write_bytes(questions(args.data))


if __name__ == "__main__":
    main()
