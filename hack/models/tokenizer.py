"""Trains the byte-level BPE both models share and writes it as tokenizer.json.

python tokenizer.py --data DIR --work DIR
"""

import argparse
from pathlib import Path

import corpus
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

VOCABULARY = 2_048
SPECIAL = ["<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
PAD, SYSTEM, USER, ASSISTANT, END = range(5)
SYSTEM_PROMPT = "banking desk"
# weir_lab.tokens repeats this rule with the standard library's `re`: change both or neither.
WORDS = r"[ _]?\p{L}+|[ _]?\p{N}|[^\p{L}\p{N}\s_]+|\s+|_"


def train(data: Path) -> Tokenizer:
    """Return the tokenizer, learned from training texts and the answers only.

    Held-out and test texts take no part. Answers repeat so that intents become few tokens.
    """
    texts = corpus.load(data)
    lines = [question.text for question in texts.fit] * 2 + corpus.clinc_texts(data)
    lines += [corpus.answer(intent) for intent in texts.intents] * 30 + [SYSTEM_PROMPT] * 200
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(lines, trainer)
    return tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    train(args.data).save(str(args.work / "tokenizer.json"))


if __name__ == "__main__":
    main()
