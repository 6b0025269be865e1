"""Calibrates on held-out training texts, then measures the packed models on the test set, once.

    python evaluate.py --data DIR --work DIR

Needs weir_lab on PYTHONPATH. It writes calibration-small.json, evaluation.json and MODEL_CARD.md
into the package. Everything that is chosen is chosen before the first test text is read.
"""

import argparse
import json
import string
import time
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import answering
import calibrate
import corpus
import numpy as np
from answering import Said
from calibrate import Scorer
from corpus import Question

from weir_lab import weights

ALLOWED_LOSS = 0.005
COARSE_LEVELS = 5


@dataclass(frozen=True)
class Chosen:
    """What held-out texts decided."""

    scorer: Scorer
    min_probability: float
    calibration: dict[str, Any]
    held_out: dict[str, Any]


def right(said: list[Said], questions: list[Question]) -> np.ndarray:
    pairs = zip(said, questions, strict=True)
    return np.array([one.text == corpus.answer(question.intent) for one, question in pairs])


def quality(said: list[Said], questions: list[Question]) -> dict[str, float]:
    """Return shares: right answers, valid JSON, an intent the models know."""
    known = {corpus.answer(intent) for intent in weights.load("small").intents}
    return {
        "accuracy": round(float(right(said, questions).mean()), 4),
        "validJson": round(sum(_is_json(one.text) for one in said) / len(said), 4),
        "knownIntent": round(sum(one.text in known for one in said) / len(said), 4),
    }


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def choose(texts: corpus.Corpus) -> Chosen:
    asked = [question.text for question in texts.held_out]
    models = {name: answering.load(name) for name in weights.MODELS}
    said = {name: answering.ask(model, asked) for name, model in models.items()}
    good = {name: right(rows, texts.held_out) for name, rows in said.items()}
    logprobs = [one.logprobs for one in said["small"]]
    scorer, outside = calibrate.fit(logprobs, good["small"])
    bar = calibrate.threshold(outside, good["small"], good["large"], ALLOWED_LOSS)
    # Rounded up: the printed threshold is never laxer than the one found.
    bar = float(np.ceil(bar * 1_000) / 1_000)
    calibration = {
        "version": 1,
        "method": "Logprob",
        "features": {name: round(weight, 6) for name, weight in scorer.features.items()},
        "intercept": round(scorer.intercept, 6),
        "n": len(asked),
        "model": models["small"].digest,
        "fittedOn": "banking77 train, 1,000 held-out texts",
        "ece": round(calibrate.ece(outside, good["small"]), 4),
        "auroc": round(calibrate.auroc(outside, good["small"]), 4),
    }
    kept = cascade(outside, good["small"], good["large"], bar)
    calibration["recommended"] = {
        "minProbability": bar,
        "allowedLoss": ALLOWED_LOSS,
        "escalated": kept["escalated"],
        "against": models["large"].digest,
    }
    held_out = {name: quality(said[name], texts.held_out) for name in said}
    held_out["cascade"] = kept
    held_out["unknownCaught"] = {
        name: caught(model, [question.text for question in texts.unseen])
        for name, model in models.items()
    }
    return Chosen(scorer, bar, calibration, held_out)


def cascade(
    probability: np.ndarray, small: np.ndarray, large: np.ndarray, bar: float
) -> dict[str, float]:
    """Return what comes of keeping the small model's answers from `bar` on."""
    kept = probability >= bar
    return {
        "accuracy": round(float(np.where(kept, small, large).mean()), 4),
        "escalated": round(float(1 - kept.mean()), 4),
        "rightAmongKept": round(float(small[kept].mean()), 4),
    }


def caught(model: weights.Weights, asked: list[str]) -> float:
    """Return the share of foreign texts that are answered with "unknown"."""
    said = answering.ask(model, asked)
    hits = sum(one.text == corpus.answer(corpus.UNKNOWN) for one in said)
    return round(hits / len(said), 4)


def final(chosen: Chosen, data: Path) -> dict[str, Any]:
    """Return the test-set figures. This is the only place that reads the test set."""
    questions = corpus.test_questions(data)
    asked = [question.text for question in questions]
    models = {name: answering.load(name) for name in weights.MODELS}
    said = {name: answering.ask(model, asked) for name, model in models.items()}
    coarse = {name: answering.load(name, COARSE_LEVELS) for name in models}
    result: dict[str, Any] = {name: quality(rows, questions) for name, rows in said.items()}
    for name, model in coarse.items():
        result[f"{name}FiveLevels"] = quality(answering.ask(model, asked), questions)
    small, large = right(said["small"], questions), right(said["large"], questions)
    probability = chosen.scorer([one.logprobs for one in said["small"]])
    result["cascade"] = cascade(probability, small, large, chosen.min_probability)
    result["calibration"] = {
        "ece": round(calibrate.ece(probability, small), 4),
        "auroc": round(calibrate.auroc(probability, small), 4),
    }
    result["bothWrong"] = round(float((~small & ~large).mean()), 4)
    result["smallRightLargeWrong"] = round(float((small & ~large).mean()), 4)
    unknown = corpus.answer(corpus.UNKNOWN)
    for name, model in models.items():
        false = sum(one.text == unknown for one in said[name]) / len(asked)
        result[name]["falseUnknown"] = round(false, 4)
        foreign = corpus.test_unknown(data)
        result[name]["unknownCaught"] = {part: caught(model, foreign[part]) for part in foreign}
        result[name]["answersPerCpuSecond"] = speed(model, asked[:1_000])
    return result


def speed(model: weights.Weights, asked: list[str]) -> int:
    began = time.process_time()
    answering.ask(model, asked)
    return round(len(asked) / (time.process_time() - began))


def shapes() -> dict[str, dict[str, Any]]:
    loaded = {name: weights.load(name) for name in weights.MODELS}
    return {
        name: {
            "shape": model.shape.__dict__,
            "parameters": model.shape.parameters,
            "flopsPerToken": weights.flops_per_token(model.shape),
            "digest": model.digest,
            "bytes": (_folder() / f"{name}.npz").stat().st_size,
        }
        for name, model in loaded.items()
    }


def card(report: dict[str, Any]) -> str:
    """Return the model card: card.md with every ${a.b.c} replaced by that number."""
    template = (Path(__file__).parent / "card.md").read_text(encoding="utf8")
    fields: dict[str, str] = {}

    def walk(value: Any, path: str) -> None:
        if isinstance(value, dict):
            for name, part in value.items():
                walk(part, f"{path}_{name.replace(' ', '_')}" if path else name)
        elif isinstance(value, float):
            fields[path] = f"{value:.4g}"
            fields[path + "_pct"] = f"{value * 100:.1f} %"
        else:
            fields[path] = f"{value:,}" if isinstance(value, int) else str(value)

    walk(report, "")
    return string.Template(template).substitute(fields)


def _folder() -> Path:
    return Path(str(files("weir_lab"))) / "data"


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--held-out-only", action="store_true", help="leave the test set alone")
    args = parser.parse_args()
    chosen = choose(corpus.load(args.data))
    _write(_folder() / "calibration-small.json", chosen.calibration)
    report = {
        "models": shapes(),
        "teacher": json.loads((args.work / "teacher.json").read_text(encoding="utf8")),
        "recommended": chosen.calibration["recommended"],
        "heldOut": chosen.held_out,
    }
    print(json.dumps(report | {"calibration": chosen.calibration}, indent=1))
    if args.held_out_only:
        return
    report["test"] = final(chosen, args.data)
    print(json.dumps(report["test"], indent=1))
    _write(_folder() / "evaluation.json", report)
    (_folder() / "MODEL_CARD.md").write_text(
        card(report | {"calibration": chosen.calibration}), encoding="utf8"
    )


if __name__ == "__main__":
    main()
