"""The work of fit_judges in a process of its own."""

import logging
from typing import Any

from data import storage
from data.manifest import read_manifest
from eval.judges.recogniser import fit_recogniser
from model.clap import save_clap
from model.clap_training import fit_clap
from model.config import ClapConfig
from ray_jobs.job import configure_logging

log = logging.getLogger("antiphon")


def fit_recogniser_judge(prepared: str, folder: str) -> dict[str, Any] | None:
    """Write `folder`/recogniser from the texts of the train split alone; None where there are none."""
    configure_logging()
    utterances = read_manifest(storage.join(prepared, "manifest.jsonl"))
    texts = [u.text for u in utterances if u.split == "train" and u.kind == "speech" and (u.text or "").strip()]
    if not texts:
        log.warning("fit_judges: no training texts, so no recogniser")
        return None
    config = fit_recogniser(storage.join(folder, "recogniser"), [text for text in texts if text])
    if config["spelled_words"]:
        log.warning(
            "fit_judges: not in the recogniser's dictionary, so spelled: %s", ", ".join(config["spelled_words"])
        )
    if config["unheard_words"]:
        log.warning("fit_judges: the recogniser can never hear: %s", ", ".join(config["unheard_words"]))
    return config


def fit_clap_judge(fields: dict[str, Any], duration_s: float, folder: str) -> dict[str, float]:
    """Write `folder`/clap; the judge's quality. `fields` are those of ClapConfig."""
    configure_logging()
    model, quality = fit_clap(ClapConfig(**fields), duration_s)
    save_clap(model, storage.join(folder, "clap"))
    log.info("fit_judges: clap %s", ", ".join(f"{name} {value:.3f}" for name, value in quality.items()))
    return quality
