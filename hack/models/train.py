"""Trains one of the two models and writes its weights, in float32, to WORK/NAME.npz.

python train.py --data DIR --work DIR --model small|large [--epochs N] [--threads N]
"""

import argparse
import copy
import json
import math
import random
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import corpus
import examples
import numpy as np
import torch
from corpus import Question
from examples import Batch, Examples, Trie
from network import Decoder, Shape
from tokenizer import ASSISTANT, END, PAD, SYSTEM, SYSTEM_PROMPT, USER
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional

BATCH = 64
MEANING = 384
NEW_TOKENS = 18


@dataclass(frozen=True)
class Plan:
    """How one model is made. `gold_share` below 1 brings the teacher and its texts in."""

    shape: Shape
    epochs: int
    rate: float
    dropout: float = 0.1
    smoothing: float = 0.05
    gold_share: float = 1.0
    pool: int = 0
    meaning_weight: float = 0.0
    prompt_weight: float = 0.25
    decay: float = 0.1
    average: float = 0.995
    word_drop: float = 0.1


PLANS = {
    "small": Plan(Shape(width=32, layers=2, heads=1, inner=88), epochs=12, rate=6e-3),
    "middle": Plan(Shape(width=64, layers=2, heads=1, inner=176), epochs=11, rate=4e-3),
    "large": Plan(
        Shape(width=192, layers=3, heads=3, inner=512),
        epochs=14,
        rate=2e-3,
        gold_share=0.5,
        pool=6_000,
        meaning_weight=2.0,
        average=0.997,
    ),
}


class Trainer:
    """One training run: the network, its running average, the optimiser and the clock of steps."""

    def __init__(self, plan: Plan, given: Examples, trie: Trie, start: np.ndarray | None) -> None:
        self.plan, self.given, self.trie = plan, given, trie
        self.network = Decoder(plan.shape, plan.dropout)
        if start is not None:
            columns = torch.tensor(start[:, : plan.shape.width])
            with torch.no_grad():
                self.network.embedding.weight.copy_(columns / columns.std() * 0.05)
        self.reader = torch.nn.Linear(plan.shape.width, MEANING)
        self.average = copy.deepcopy(self.network)
        self.parameters = [*self.network.parameters(), *self.reader.parameters()]
        matrices = [p for p in self.parameters if p.dim() > 1]
        vectors = [p for p in self.parameters if p.dim() < 2]
        groups = [
            {"params": matrices, "weight_decay": plan.decay},
            {"params": vectors, "weight_decay": 0},
        ]
        self.optimiser = torch.optim.AdamW(groups, lr=plan.rate, betas=(0.9, 0.98))
        self.step = 0
        per_epoch = math.ceil((given.pooled + plan.pool) / BATCH)
        self.steps = per_epoch * plan.epochs

    def learn(self, batch: Batch) -> float:
        """Take one step; return the answer loss per text."""
        warm = min(1.0, (self.step + 1) / min(200, self.steps // 10))
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, self.step / self.steps)))
        for group in self.optimiser.param_groups:
            group["lr"] = self.plan.rate * warm * (0.02 + 0.98 * cosine)
        total, answer = self.loss(batch)
        self.optimiser.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimiser.step()
        self.step += 1
        keep = min(self.plan.average, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            pairs = list(self.average.parameters()), list(self.network.parameters())
            torch._foreach_lerp_(*pairs, 1 - keep)
        return float(answer)

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        target = self.given.target[batch.rows]
        path = torch.multinomial(target, 1)[:, 0]
        pairs = zip(batch.prompts, path.tolist(), strict=True)
        ids = _padded([prompt + self.trie.answers[row] for prompt, row in pairs])
        tag = torch.tensor([len(prompt) - 1 for prompt in batch.prompts])
        hidden = self.network(ids[:, :-1])
        place = torch.arange(hidden.shape[1])[None]
        said = (place >= tag[:, None]) & (place < (tag + self.trie.lengths[path])[:, None])
        told = self.network.logits(hidden[said]).log_softmax(-1)
        answer = self.trie.loss(told, target, path) / len(batch.rows)
        total = answer
        # The prompt's own next tokens: half of the texts, from the user tag on.
        user = batch.prompts[0].index(USER)
        read = (place >= user) & (place < tag[:, None]) & (torch.rand(len(tag), 1) < 0.5)
        if read.any():
            logits = self.network.logits(hidden[read])
            follow = functional.cross_entropy(logits, ids[:, 1:][read])
            total = total + self.plan.prompt_weight * follow
        if self.given.meaning is not None and self.plan.meaning_weight:
            seen = self.reader(hidden[torch.arange(len(tag)), tag])
            likeness = functional.cosine_similarity(seen, self.given.meaning[batch.rows])
            total = total + self.plan.meaning_weight * (1 - likeness).mean()
        return total, answer.detach()


def _padded(rows: list[list[int]]) -> Tensor:
    ids = torch.full((len(rows), max(map(len, rows))), PAD)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = torch.tensor(row)
    return ids


@torch.inference_mode()
def accuracy(network: Decoder, questions: list[Question], tokenizer: Tokenizer) -> float:
    """Return the share of questions answered, greedily, with exactly the right JSON."""
    network.eval()
    head = [SYSTEM, *tokenizer.encode(SYSTEM_PROMPT).ids, USER]
    prompts = [[*head, *tokenizer.encode(q.text).ids, ASSISTANT] for q in questions]
    length = torch.tensor([len(prompt) for prompt in prompts])
    ids = torch.cat([_padded(prompts), torch.zeros(len(prompts), NEW_TOKENS, dtype=torch.long)], 1)
    row = torch.arange(len(prompts))
    for step in range(NEW_TOKENS):
        hidden = network(ids[:, : int(length.max()) + step])
        ids[row, length + step] = network.logits(hidden[row, length + step - 1]).argmax(-1)
    right = 0
    for number, question in enumerate(questions):
        said = ids[number, length[number] : length[number] + NEW_TOKENS].tolist()
        said = said[: said.index(END)] if END in said else said
        right += tokenizer.decode(said) == corpus.answer(question.intent)
    return right / len(questions)


def run(name: str, plan: Plan, data: Path, work: Path, seed: int) -> None:
    torch.manual_seed(seed)
    rng = random.Random(seed)
    texts = corpus.load(data)
    tokenizer = Tokenizer.from_file(str(work / "tokenizer.json"))
    taught = plan.gold_share < 1
    if taught:
        given = examples.from_teacher(texts, work, plan.smoothing, plan.gold_share)
        start = np.load(work / "teacher.npz")["token_start"]
    else:
        given, start = examples.from_labels(texts, plan.smoothing), None
    trainer = Trainer(plan, given, Trie(texts.intents, tokenizer), start)
    history, began = [], time.monotonic()
    for number in range(1, plan.epochs + 1):
        trainer.network.train()
        batches = examples.epoch(
            given, tokenizer, rng, pool=plan.pool, batch=BATCH, word_drop=plan.word_drop
        )
        losses = [trainer.learn(batch) for batch in batches]
        line = {"epoch": number, "loss": round(sum(losses) / len(losses), 4)}
        if number % 2 == 0 or number == plan.epochs:
            line["heldOut"] = accuracy(trainer.average, texts.held_out[:400], tokenizer)
        line |= {"wall_s": round(time.monotonic() - began), "cpu_s": round(time.process_time())}
        history.append(line)
        print(json.dumps(line), flush=True)
        _save(work / f"{name}.npz", trainer.average, plan, texts.intents, history)


def _save(path: Path, network: Decoder, plan: Plan, intents: list[str], history: list) -> None:
    meta = {"shape": asdict(plan.shape), "plan": asdict(plan), "intents": intents}
    meta["history"] = history
    tensors = {name: weight.numpy() for name, weight in network.tensors().items()}
    text = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    part = path.with_name("part-" + path.name)
    np.savez(part, meta=text, **tensors)
    part.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--model", choices=sorted(PLANS), required=True)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    plan = PLANS[args.model]
    plan = replace(plan, epochs=args.epochs) if args.epochs else plan
    run(args.model, plan, args.data, args.work, args.seed)


if __name__ == "__main__":
    main()
