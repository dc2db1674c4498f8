"""What a training needs from its recipe and inputs, put together once: store, vocabulary, grammars, phases, models."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import yaml

from data import storage
from data.config import GrammarConfig
from data.errors import InputError
from data.grammar.base import Grammar
from data.grammar.template import build_grammars
from data.lengths import Lengths
from data.shares import ShareSchedule
from data.store import Record, TokenStore
from data.stream import TokenStream
from data.text_tokenizer import load_text_tokenizer
from data.vocabulary import Vocabulary, build_vocabulary
from model.checkpoint_files import read_manifest
from model.export import INFO_FILE, check_text_tokenizer, read_info
from model.lm import add_lora, build_language_model
from model.schedule import PhasePlan, plan_phases, replace_weights
from model.train_config import PhaseConfig
from ray_jobs.draw_instructions import with_drawn
from ray_jobs.recipe import Recipe
from ray_jobs.train_store import find_sidecar, fingerprint_of, make_sidecar

log = logging.getLogger("antiphon")

SPEAKER_SLOT = "{speaker}"
PHASE_SEEDS = 1000  # phases of a run draw from seeds this far apart


@dataclass(frozen=True)
class TrainParts:
    """Everything a worker needs beside the engine."""

    recipe: Recipe
    inputs: dict[str, str]
    store: TokenStore
    records: Sequence[Record]
    text_tokenizer: Any
    vocabulary: Vocabulary
    grammars: dict[str, Grammar]
    phases: tuple[PhasePlan, ...]
    lengths: Lengths | None = None  # of all records of the store, where a sidecar has them

    def stream(self, plan: PhasePlan) -> TokenStream:
        """The token stream of a phase; its steps count from 0."""
        train = self.recipe.train
        return TokenStream(
            self.records if self.lengths is None else self.store.records,
            self.grammars,
            self.recipe.grammar.groups,
            plan.config,
            phase_steps=plan.steps,
            sequence_length=train.sequence_length,
            global_batch_rows=train.global_batch_rows,
            seed=self.recipe.seed * PHASE_SEEDS + plan.index,
            streams=self.store.streams,
            lengths=self.lengths,
            over_long=train.over_long,
        )


def load_parts(
    recipe: Recipe,
    inputs: dict[str, str],
    base: str | None = None,
    run_folder: str | None = None,
    measures: bool = False,
) -> TrainParts:
    """Open the inputs (folders by job name). Raises InputError when they do not fit the recipe.

    Where the weights come from a model folder (`base`, by default `model=`), its text tokenizer is used, and its
    vocabulary with what the recipe has beside it appended. A large store is read by the sidecar in `run_folder`; who
    `measures` makes it there, and must be the only one.
    """
    recipe = recipe.model_copy(update={"grammar": with_drawn(recipe.grammar, inputs)})
    folder = inputs["tokenize_speech"]
    brought = _models_brought(recipe) if base is None else []
    base = model_folder_of(recipe) if base is None else base
    text_tokenizer = load_text_tokenizer(base or storage.join(inputs["fit_tokenizer"], "text"))
    for path in brought:
        check_text_tokenizer(text_tokenizer, path)

    def describe(store: TokenStore) -> tuple[dict[str, Grammar], dict[str, Any]]:
        known = _vocabulary_of(base, store) if base else None
        vocabulary = build_vocabulary_for(recipe, store, text_tokenizer, known)
        grammars = build_grammars(recipe.grammar, vocabulary, text_tokenizer, store.streams)
        return grammars, {"vocabulary": vocabulary.to_json()}

    side = None
    if run_folder is not None:
        known = read_info(base)["blocks"] if base else None
        fingerprint = fingerprint_of(folder, recipe.grammar, text_tokenizer, known)
        if measures:
            make_sidecar(folder, run_folder, fingerprint, describe)
        side = find_sidecar(run_folder, fingerprint)
    store = TokenStore.open(folder) if side is None else side.store
    vocabulary = Vocabulary.from_json((side.about if side else describe(store)[1])["vocabulary"])
    return TrainParts(
        recipe=recipe,
        inputs=inputs,
        store=store,
        records=store.split("train"),
        text_tokenizer=text_tokenizer,
        vocabulary=vocabulary,
        grammars=build_grammars(recipe.grammar, vocabulary, text_tokenizer, store.streams),
        phases=phases_to_run(recipe),
        lengths=None if side is None else side.lengths,
    )


def load_parts_of(checkpoint: str, recipe: Recipe, inputs: dict[str, str]) -> TrainParts:
    """`load_parts` for a checkpoint, whose manifest knows what its weights came from."""
    base = from_run(run_folder_of(checkpoint), read_manifest(checkpoint)["base"])
    return load_parts(recipe, inputs, base if base and storage.exists(storage.join(base, INFO_FILE)) else None)


def _models_brought(recipe: Recipe) -> list[str]:
    """Models of others, by folder or hub id, that the phases to run start from."""
    phases = [plan.config for plan in plan_phases(recipe.train, recipe.phase)]
    first = [] if phases[0].start_from else [recipe.model or recipe.lm.path]
    named = dict.fromkeys([*first, *(phase.start_from for phase in phases)])
    return [path for path in named if path is not None and not storage.exists(storage.join(path, INFO_FILE))]


def model_folder_of(recipe: Recipe) -> str | None:
    """`model=`, or what a phase starts from, where it is a model folder of ours; None for plain ones.

    Raises InputError for lm.path of ours.
    """
    starts = [("start_from", p.start_from) for p in recipe.train.phases if recipe.phase in (None, p.name)]
    for key, path in (("model", recipe.model), ("lm.path", recipe.lm.path), *starts):
        if path is not None and storage.exists(storage.join(path, INFO_FILE)):
            if key == "lm.path":
                raise InputError(
                    f"lm.path={path!r} has an {INFO_FILE}, and so ids for markers and codes of its own: go on with its "
                    f"training by model={path}"
                )
            return path
    return None


def _vocabulary_of(folder: str, store: TokenStore) -> Vocabulary:
    info = read_info(folder)
    for name, described in info["streams"].items():
        ours = store.streams.get(name)
        if ours is not None and ours.tokenizer_id != described["tokenizer_id"]:
            log.warning(
                "stream %r was made by tokenizer %s, the model %s knows the codes of %s: it has to learn them anew",
                name,
                ours.tokenizer_id,
                folder,
                described["tokenizer_id"],
            )
    return Vocabulary.from_json(info)


def build_vocabulary_for(
    recipe: Recipe, store: TokenStore, text_tokenizer: Any, base: Vocabulary | None = None
) -> Vocabulary:
    """The vocabulary of a run, `base` extended where there is one: voices are the speakers whose training records some
    task with a voice accepts."""
    speakers = sorted({record.speaker for record in store.records if record.split == "train" and record.speaker})
    everyone = build_vocabulary(text_tokenizer, store.streams, recipe.grammar, speakers, base)
    voices = _heard(store, recipe.grammar, everyone, text_tokenizer)
    return build_vocabulary(text_tokenizer, store.streams, recipe.grammar, voices, base)


def _heard(store: TokenStore, config: GrammarConfig, vocabulary: Vocabulary, text_tokenizer: Any) -> list[str]:
    config = config.model_copy(update={"formats": {}, "groups": {}})  # no format names a voice
    grammars = build_grammars(config, vocabulary, text_tokenizer)
    voiced = [grammars[task] for task, template in config.templates.items() if SPEAKER_SLOT in template]
    heard: set[str] = set()
    for record in store.records if voiced else ():
        if (
            record.split == "train"
            and record.speaker
            and record.speaker not in heard
            and any(grammar.accepts(record) for grammar in voiced)
        ):
            heard.add(record.speaker)
    return sorted(heard)


def phases_to_run(recipe: Recipe) -> tuple[PhasePlan, ...]:
    """The phases with their steps, under `phase=` and `mixture=`. Raises InputError for bad ones of these, and for a
    phase that names a group or a task which the recipe lacks."""
    plans = plan_phases(recipe.train, recipe.phase)
    for plan in plans:
        ShareSchedule(recipe.grammar.groups, plan.config)
    if recipe.mixture is None:
        return plans
    weights = read_mixture(recipe)
    phases = replace_weights([plan.config for plan in plans], weights, recipe.phase)
    return tuple(
        PhasePlan(phase, plan.index, plan.first_step, plan.steps) for phase, plan in zip(phases, plans, strict=True)
    )


def target_phase(recipe: Recipe) -> PhaseConfig:
    """The phase whose weights a mixture search looks for. Raises InputError when there is none."""
    targets = [phase for phase in recipe.train.phases if phase.mixture_target]
    if not targets:
        raise InputError("no phase of train.phases has mixture_target: true: set it on the one to search for")
    return targets[0]


def read_mixture(recipe: Recipe) -> dict[str, float]:
    """The weights of `mixture=PATH` ({weights: {group: number}}). Raises InputError that names what is wrong."""
    path = str(recipe.mixture)
    if not storage.exists(path):
        raise InputError(f"mixture={path!r} does not exist: give the mixture.yaml of a tune run")
    try:
        content = yaml.safe_load(storage.read_text(path))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"mixture={path!r} is not YAML: {error}") from None
    weights = content.get("weights") if isinstance(content, dict) else None
    if not isinstance(weights, dict) or not all(isinstance(weight, int | float) for weight in weights.values()):
        raise InputError(f"mixture={path!r} holds {content!r}, expected {{weights: {{group: number, …}}}}")
    return {str(group): float(weight) for group, weight in weights.items()}


def first_model(parts: TrainParts, plan: PhasePlan, folder: str, base: str | None) -> Any:
    """The model that a phase starts from: `base` (see `base_of`; relative to the run's `folder`), or a new one.

    With adapters where the phase has them. Raises InputError when `base` has another vocabulary.
    """
    recipe = parts.recipe
    base = from_run(folder, base)
    config = recipe.lm if base is None else recipe.lm.model_copy(update={"path": base})
    known_ids = None
    if base is not None and storage.exists(storage.join(base, INFO_FILE)):
        known_ids = ids_known_to(base, parts.vocabulary)
    lm = build_language_model(config, parts.vocabulary, recipe.seed, known_ids)
    return add_lora(lm, plan.config.lora, recipe.seed * PHASE_SEEDS + plan.index) if plan.config.lora else lm


def from_run(folder: str, base: str | None) -> str | None:
    """What `base_of` gives, where it is `phases/NAME` of the run's `folder` as the path of that."""
    if base is None or storage.is_url(base) or not storage.exists(storage.join(folder, base)):
        return base
    return storage.join(folder, base)


def base_of(parts: TrainParts, plan: PhasePlan) -> str | None:
    """Where a phase's first weights come from: its `start_from`, else `phases/NAME` of the run, `model=`, or None for
    a new model."""
    if plan.config.start_from is not None:
        return plan.config.start_from
    place = parts.phases.index(plan)
    return f"phases/{parts.phases[place - 1].config.name}" if place else parts.recipe.model


def ids_known_to(path: str, vocabulary: Vocabulary) -> int:
    """How many ids the model folder has rows for, of a vocabulary that extends the folder's. Raises InputError where
    it is another."""
    theirs = Vocabulary.from_json(read_info(path))
    same_blocks = theirs.blocks == vocabulary.blocks[: len(theirs.blocks)]
    if not same_blocks or theirs.markers != vocabulary.markers[: len(theirs.markers)]:
        raise InputError(
            f"the model {path!r} has another vocabulary than this recipe's store and templates give "
            f"({theirs.size} ids against {vocabulary.size}): use the tokenizers and templates it was trained with"
        )
    return theirs.size


def run_folder_of(checkpoint: str) -> str:
    """The folder of the run that a checkpoint is of."""
    return checkpoint.rstrip("/").rsplit("/", 2)[0]


def put_weights(lm: Any, weights: dict[str, torch.Tensor], checkpoint: str) -> None:
    """Copy `weights` into the parameters of these names. Raises InputError where `checkpoint` has others."""
    parameters = dict(lm.named_parameters())
    with torch.no_grad():
        for name, weight in weights.items():
            if name not in parameters or parameters[name].shape != weight.shape:
                raise InputError(
                    f"{checkpoint!r} holds {name!r} of shape {list(weight.shape)}, which this recipe's model lacks: "
                    "use the recipe that it was trained with"
                )
            parameters[name].copy_(weight)
