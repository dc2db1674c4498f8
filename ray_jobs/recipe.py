"""A recipe: one YAML file, one complete run. Joins the rooms' configurations and loads them with overrides."""

import difflib
from typing import Any, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from data import storage
from data.config import CorpusConfig, GrammarConfig, TextConfig, TokenizeConfig
from data.errors import InputError
from data.frozen import Frozen, placement
from eval.config import EvalConfig, JudgesConfig
from model.config import AudioTokenizerConfig, LanguageModelConfig, VocoderConfig, loses_durations
from model.train_config import TrainConfig
from ray_jobs.config import LicencesConfig, TuneConfig
from ray_jobs.scales import scaled
from serve.config import ServeConfig

ARGUMENTS = ("phase", "mixture", "model", "checkpoint", "endpoint")


class Recipe(Frozen):
    """Everything a run is made of. `phase` to `endpoint` are arguments of single jobs, given on the command line."""

    name: str = placement("antiphon", "a name for people")
    seed: int = Field(1, description="every random draw depends on it")
    runs_dir: str = placement("runs", "folder or URL that holds the run folders")
    corpus: CorpusConfig
    tokenizers: dict[str, AudioTokenizerConfig] = Field(description="stream name (unit, music, …) -> audio tokenizer")
    text: TextConfig = TextConfig()
    tokenize: TokenizeConfig = TokenizeConfig()
    grammar: GrammarConfig
    lm: LanguageModelConfig = LanguageModelConfig()
    train: TrainConfig
    vocoder: VocoderConfig | None = None
    judges: JudgesConfig = JudgesConfig()
    tune: TuneConfig = TuneConfig()
    serve: ServeConfig = ServeConfig()
    eval: EvalConfig = EvalConfig()
    licences: LicencesConfig = LicencesConfig()

    planned_s: dict[str, float] = placement({}, "demo: seconds each step is expected to take")

    phase: str | None = placement(None, "train: run this phase alone")
    mixture: str | None = placement(None, "train: mixture.yaml whose weights replace the target phase's")
    model: str | None = placement(None, "train: start from this folder; deploy, run_eval: use this model folder")
    checkpoint: str | None = placement(None, "export: the checkpoint folder")
    endpoint: str | None = placement(None, "run_eval: URL of a running endpoint")

    @model_validator(mode="after")
    def _vocoder_gets_its_frames(self) -> "Recipe":
        compression = getattr(self.tokenizers.get("unit"), "compression", None)
        if self.vocoder is not None and compression is not None and loses_durations(compression):
            raise ValueError(
                f"vocoder {self.vocoder.kind} needs to know how long each unit lasts, and a language model over "
                f"tokenizers.unit.compression {compression.kind} after deduplication does not say: take compression "
                "{kind: unigram} or {kind: bpe} without dedup, or set vocoder: null"
            )
        return self

    def without_arguments(self) -> "Recipe":
        """The recipe that upstream jobs see."""
        return self.model_copy(update=dict.fromkeys(ARGUMENTS))


def load_recipe(path: str, overrides: list[str]) -> Recipe:
    """Read a recipe, at the scale that `scale=NAME` among the overrides names (see ray_jobs/scales.py), and apply the
    other `dotted.key=value` overrides (values are YAML), which win over the scale. Raises InputError.
    """
    try:
        tree = _unshared(yaml.safe_load(storage.read_text(path)))
    except FileNotFoundError:
        raise InputError(
            f"recipe {path!r} does not exist: give the path of a YAML file, e.g. configs/demo.yaml"
        ) from None
    except yaml.YAMLError as error:
        raise InputError(f"recipe {path!r} is not YAML: {error}") from None
    if not isinstance(tree, dict):
        raise InputError(f"recipe {path!r} holds {type(tree).__name__}, expected a mapping of sections")
    names = [override.removeprefix("scale=") for override in overrides if override.startswith("scale=")]
    tree = scaled(tree, names[-1] if names else None)
    for override in (other for other in overrides if not other.startswith("scale=")):
        _apply_override(tree, override)
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise InputError(f"recipe {path!r}:\n" + "\n".join(_explain(item, tree) for item in error.errors())) from None


def speech_rate_hz(recipe: Recipe) -> int:
    """Rate of the audio that evaluation sends: the first tokenizer's that names one (brought codecs have their own)."""
    rates = (getattr(config, "sample_rate", None) for config in recipe.tokenizers.values())
    return next((rate for rate in rates if rate), 16000)


def _unshared(value: Any) -> Any:
    """The same tree with a copy in place of each YAML alias: an override changes the place that it names alone."""
    if isinstance(value, dict):
        return {key: _unshared(item) for key, item in value.items()}
    return [_unshared(item) for item in value] if isinstance(value, list) else value


def _apply_override(tree: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise InputError(f"override {override!r} is not of the form dotted.key=value")
    node: Any = tree
    *parents, last = key.split(".")
    for parent in parents:
        node = node[_place(node, parent, override)] if isinstance(node, list) else node.setdefault(parent, {})
        if not isinstance(node, dict | list):
            raise InputError(f"override {override!r}: {parent!r} is a value, not a section")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"override {override!r}: the value is not YAML: {error}") from None
    node[_place(node, last, override) if isinstance(node, list) else last] = value


def _place(items: list[Any], part: str, override: str) -> int:
    if part.isdigit() and int(part) < len(items):
        return int(part)
    raise InputError(f"override {override!r}: {part!r} is no place in a list of {len(items)}: count them from 0")


def _explain(item: Any, tree: dict[str, Any]) -> str:
    location = [str(part) for part in item["loc"]]
    key = _key(item, tree)
    if item["type"] == "extra_forbidden":
        return f"  {key}: unknown key; {_hint(location[-1], _known_fields(location[:-1]), 'keys')}"
    if item["type"] == "union_tag_invalid":
        kinds = {kind.strip(" '") for kind in item["ctx"]["expected_tags"].split(",")}
        return f"  {key}.kind: {item['ctx']['tag']!r} is unknown; {_hint(item['ctx']['tag'], kinds, 'kinds')}"
    if item["type"] == "missing":
        return f"  {key}: is required and was not given"
    return f"  {key}: {item['msg']} (got {item['input']!r})"


def _key(item: Any, tree: dict[str, Any]) -> str:
    """The dotted key as the recipe spells it: pydantic names the kinds of sections between its parts, too."""
    parts: list[str] = []
    node: Any = tree
    for place, part in enumerate(item["loc"], start=1):
        inside = isinstance(node, list) or (isinstance(node, dict) and part in node)
        if inside or (item["type"] == "missing" and place == len(item["loc"])):
            parts.append(str(part))
            node = node[part] if inside else None
    return ".".join(parts)


def _hint(given: str, known: set[str], what: str) -> str:
    close = difflib.get_close_matches(given, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known {what}: {', '.join(sorted(known))}"


def _known_fields(location: list[str]) -> set[str]:
    """Field names of the configuration model at `location`, through unions, tuples and mappings."""
    models: list[Any] = [Recipe]
    for part in location:
        below = [model.model_fields[part].annotation for model in models if part in model.model_fields]
        models = [found for annotation in below for found in models_in(annotation)] or models
    return {name for model in models for name in model.model_fields}


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The configuration models that an annotation mentions."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in models_in(inner)]
