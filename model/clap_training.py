"""Fits the music judge on clips of its own, made from its own seed: it never hears the corpus' clips.

All combinations of attributes may occur here. The corpus holds combinations out from the language model, and a judge
that had not learnt them could not tell whether the model mastered them.
Shapes: B = clips, E = embedding.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.utils import clip_grad_norm_

from data.corpus.music import all_combinations, caption_of, caption_words, sample_attributes, synthesize_music
from model.clap import SAMPLE_RATE, Clap
from model.config import ClapConfig
from model.determinism import one_thread

TEST_CLIPS = 64
MAX_GRAD_NORM = 1.0


@dataclass(frozen=True)
class Clips:
    """Frames and captions, one of each per clip."""

    frames: list[torch.Tensor]
    captions: list[str]


def fit_clap(config: ClapConfig, duration_s: float) -> tuple[Clap, dict[str, float]]:
    """A fitted judge, and its quality on 64 fresh clips of different captions. Depends on `config.seed` alone."""
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        rng = np.random.default_rng(config.seed)
        model = Clap(caption_words())
        drawn = [sample_attributes(rng) for _ in range(config.train_clips)]
        train = make_clips(model, drawn, rng, duration_s)
        _train(model, train, config, rng)
        order = rng.permutation(len(all_combinations()))[:TEST_CLIPS]
        test = make_clips(model, [all_combinations()[int(index)] for index in order], rng, duration_s)
        return model.eval(), measure(model, test)


def make_clips(model: Clap, attributes: list[dict[str, str]], rng: np.random.Generator, duration_s: float) -> Clips:
    """A clip of `duration_s` for each combination."""
    waves = [synthesize_music(combination, rng, duration_s, SAMPLE_RATE) for combination in attributes]
    return Clips([model.frames(wave, SAMPLE_RATE) for wave in waves], [caption_of(item) for item in attributes])


@torch.no_grad()
def measure(model: Clap, clips: Clips) -> dict[str, float]:
    """Cosines of matched and mismatched pairs, retrieval of the caption (R@1) and the area under the ROC curve."""
    cosine_BB = (model.embed_audio(clips.frames) @ model.embed_text(clips.captions).T).double()
    count = len(clips.captions)
    matched_B = cosine_BB.diagonal()
    others = cosine_BB[~torch.eye(count, dtype=torch.bool)]
    above = (matched_B[:, None] > others[None, :]).double() + (matched_B[:, None] == others[None, :]).double() / 2
    return {
        "cosine_matched": float(matched_B.mean()),
        "cosine_mismatched": float(others.mean()),
        "recall_at_1": float((cosine_BB.argmax(1) == torch.arange(count)).double().mean()),
        "auc": float(above.mean()),
        "test_clips": count,
    }


def _train(model: Clap, clips: Clips, config: ClapConfig, rng: np.random.Generator) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.lr, total_steps=config.steps + 1)
    size = min(config.batch_size, len(clips.captions))
    model.train()
    for _ in range(config.steps):
        chosen = rng.choice(len(clips.captions), size=size, replace=False)
        loss = model.loss([_vary(clips.frames[i], rng) for i in chosen], [clips.captions[i] for i in chosen])
        optimizer.zero_grad()
        loss.backward()
        clip_grad_norm_(model.parameters(), MAX_GRAD_NORM)
        optimizer.step()
        schedule.step()


def _vary(frames_TM: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Another level and a little noise: what is judged later went through codes and back."""
    noise_TM = rng.normal(0.0, 0.1, frames_TM.shape) + rng.uniform(-0.5, 0.5)
    return frames_TM + torch.from_numpy(noise_TM.astype(np.float32))
