"""From a checkpoint of any number of workers to a model folder: weights, card, licences, adapters. No cluster, no
process group.
"""

from collections.abc import Callable
from typing import Any

from data import storage
from data.config import BuiltinCorpus
from data.corpus.adapters.base import adapter_class
from data.corpus.brought import corpora_of
from data.errors import InputError
from data.vocabulary import Vocabulary
from model.adapter_export import ADAPTER, export_adapter
from model.checkpoint_files import assemble_weights, no_one, read_manifest
from model.export import INFO_FILE, export_model
from model.model_card import ModelCard
from model.schedule import PhasePlan
from ray_jobs.recipe import Recipe
from ray_jobs.train_log import flat_numbers
from ray_jobs.train_parts import (
    TrainParts,
    base_of,
    first_model,
    from_run,
    ids_known_to,
    put_weights,
    run_folder_of,
)

OWN_LICENCE = "apache-2.0"  # of a model whose corpus was made here and whose weights began here
UNKNOWN = "unknown"


def export_checkpoint(parts: TrainParts, checkpoint: str, folder: str, alive: Callable[[], None] = no_one) -> None:
    """Write the model folder of a checkpoint of any number of workers; no cluster needed. `alive` is called as it gets
    on.

    Raises InputError when the checkpoint is of another recipe, RuntimeError when what was written differs.
    """
    manifest = read_manifest(checkpoint)
    plan = _phase_of(parts, manifest, checkpoint)
    lm = first_model(parts, plan, run_folder_of(checkpoint), manifest["base"])
    alive()
    put_weights(lm, assemble_weights(checkpoint, alive), checkpoint)
    alive()
    if _exports_adapter(plan):
        _check_adapter_export(parts, plan, manifest["base"])
        base = from_run(run_folder_of(checkpoint), manifest["base"])
        export_adapter(storage.join(folder, ADAPTER), lm, str(base))
    vocoders = {}
    if parts.recipe.vocoder is not None:
        vocoders["unit"] = storage.join(parts.inputs["train_vocoder"], "unit")
    export_model(
        folder,
        lm,
        parts.text_tokenizer,
        parts.vocabulary,
        parts.recipe.grammar,
        list(parts.vocabulary.voices),
        parts.store.streams,
        {name: storage.join(parts.inputs["fit_tokenizer"], name) for name in parts.store.streams},
        vocoders,
        _card(parts, plan, manifest),
        alive,
    )


def check_adapter_exports(parts: TrainParts) -> None:
    """Raises InputError for a phase whose adapters alone would not give its model back."""
    for plan in filter(_exports_adapter, parts.phases):
        _check_adapter_export(parts, plan, base_of(parts, plan))


def _check_adapter_export(parts: TrainParts, plan: PhasePlan, base: str | None) -> None:
    name = plan.config.name
    if base is None or not (base.startswith("phases/") or _has_every_row(base, parts.vocabulary)):
        raise InputError(
            f"phase {name!r} has lora.export: adapter and starts from {base or 'a new model'}, which lacks rows for "
            "ids of the recipe: let a phase without adapters go before it, or take lora.export: merged"
        )
    if plan.config.trainable not in (None, "lora"):
        raise InputError(
            f"phase {name!r} has lora.export: adapter and trainable: {plan.config.trainable!r}: adapters would be "
            "a part of what it trains; set trainable: lora, or lora.export: merged"
        )


def _has_every_row(base: str, vocabulary: Vocabulary) -> bool:
    return storage.exists(storage.join(base, INFO_FILE)) and ids_known_to(base, vocabulary) == vocabulary.size


def _exports_adapter(plan: PhasePlan) -> bool:
    return plan.config.lora is not None and plan.config.lora.export == "adapter"


def _phase_of(parts: TrainParts, manifest: dict[str, Any], checkpoint: str) -> PhasePlan:
    for plan in parts.phases:
        if plan.config.name == manifest["phase"]:
            return plan
    known = [plan.config.name for plan in parts.phases]
    raise InputError(f"{checkpoint!r} is of phase {manifest['phase']!r}, this recipe has {known}: use its own recipe")


def _card(parts: TrainParts, plan: PhasePlan, manifest: dict[str, Any]) -> ModelCard:
    recipe = parts.recipe
    seconds: dict[str, float] = {}
    languages: set[str | None] = set()
    for record in parts.store.records:  # in their order, which a large store is read fastest in
        if record.split == "train":
            seconds[record.kind] = seconds.get(record.kind, 0) + (record.duration_s or 0)
            languages.add(record.lang)
    ran = _phases_behind(parts, plan, manifest)
    phases = [
        {"name": p.config.name, "steps": p.steps, "lr": p.config.lr, "weights": p.config.weights, "lora": p.config.lora}
        for p in ran
    ]
    phases[-1] |= {"steps": manifest["phase_step"], "weights": manifest["schedule"]["weights"]}
    licences = recipe.licences
    base_model = ran[0].config.start_from or manifest["recipe"]["model"] or recipe.lm.path
    made_here = isinstance(recipe.corpus, BuiltinCorpus) and base_model is None
    return ModelCard(
        name=recipe.name,
        base_model=base_model,
        licence=licences.model or (OWN_LICENCE if made_here else UNKNOWN),
        licences={
            "training data": licences.data or _data_licence(recipe),
            **({f"base model {base_model}": licences.base_model or UNKNOWN} if base_model else {}),
        },
        languages=tuple(sorted(filter(None, languages))),
        data={
            "training utterances": len(parts.records),
            **{f"hours of {kind}": f"{total / 3600:.2f}" for kind, total in sorted(seconds.items())},
        },
        phases=phases,
        metrics={"steps": manifest["step"], **flat_numbers(manifest.get("metrics", {}))},
    )


def _phases_behind(parts: TrainParts, plan: PhasePlan, manifest: dict[str, Any]) -> tuple[PhasePlan, ...]:
    """The phases that a checkpoint's weights went through: its run may have done one alone, which an export is not
    told, and a phase with `start_from` takes nothing from those before it."""
    alone = manifest["recipe"]["phase"] is not None
    ran = (plan,) if alone else parts.phases[: parts.phases.index(plan) + 1]
    starts = [place for place, one in enumerate(ran) if one.config.start_from is not None]
    return ran[starts[-1] :] if starts else ran


def _data_licence(recipe: Recipe) -> str:
    """What the adapters of the corpora say of their data."""
    if isinstance(recipe.corpus, BuiltinCorpus):
        return "made on this machine"
    kinds = sorted({corpus.kind for corpus in corpora_of(recipe.corpus).values()})
    return "; ".join(f"{kind}: {adapter_class(kind).licence}" for kind in kinds)
