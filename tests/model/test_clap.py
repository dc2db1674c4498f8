from pathlib import Path

import numpy as np
import pytest
import torch

from data.errors import InputError
from model.clap import Clap, load_clap, save_clap
from model.clap_training import fit_clap
from model.config import ClapConfig

TINY = ClapConfig(steps=6, batch_size=8, train_clips=12, seed=3)


def test_two_fits_of_one_seed_are_equal_and_survive_the_disk(tmp_path: Path) -> None:
    first, quality = fit_clap(TINY, 0.5)
    second, again = fit_clap(TINY, 0.5)
    assert quality == again
    assert set(quality) >= {"cosine_matched", "cosine_mismatched", "recall_at_1", "auc"}
    save_clap(first, str(tmp_path))
    loaded = load_clap(str(tmp_path))
    weights = loaded.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in second.state_dict().items())


def test_a_clip_is_judged_alike_in_any_company() -> None:
    model = Clap(["slow", "piano"]).eval()
    rng = np.random.default_rng(0)
    frames = [model.frames(rng.normal(0, 0.1, length).astype(np.float32), 16000) for length in (3, 4000, 9000)]
    with torch.no_grad():
        together = model.embed_audio(frames)
        alone = torch.cat([model.embed_audio([item]) for item in frames])
    assert torch.equal(together, alone)
    assert torch.allclose(together.norm(dim=1), torch.ones(3))


def test_captions_of_unknown_or_no_words_have_an_embedding() -> None:
    model = Clap(["slow", "piano"]).eval()
    with torch.no_grad():
        vectors = model.embed_text(["Slow piano", "slow piano", "tuba", "", "slow"])
    assert torch.equal(vectors[0], vectors[1])
    assert torch.equal(vectors[2], vectors[3])


def test_nothing_to_hear_and_nothing_to_load_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="empty wave"):
        Clap(["slow"]).frames(np.zeros(0, np.float32), 16000)
    with pytest.raises(InputError, match="fit_judges"):
        load_clap(str(tmp_path))


@pytest.mark.slow
def test_a_judge_fitted_for_real_tells_captions_apart() -> None:
    _, quality = fit_clap(ClapConfig(steps=250, train_clips=400), 1.2)
    assert quality["auc"] > 0.9
    assert quality["cosine_matched"] - quality["cosine_mismatched"] > 0.4
