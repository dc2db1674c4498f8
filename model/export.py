"""Model folders: a plain Hugging Face model and tokenizer, plus what Antiphon knows about them.

config.json, model.safetensors, generation_config.json, tokenizer files   load without our code
README.md                                                                 model card
audio_tokenizer/<stream>/, vocoder/<stream>/                              copied, so the folder is self-contained
antiphon.json      {format_version, blocks, markers, streams, templates, groups, voices, and formats where there are
                   any}; written last
"""

import copy
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from data import storage
from data.config import GrammarConfig
from data.errors import InputError
from data.grammar.base import Grammar
from data.store import StreamInfo
from data.text_tokenizer import encode_text, load_text_tokenizer
from data.vocabulary import Vocabulary
from model.checkpoint_files import no_one
from model.lm import load_language_model, merge_lora
from model.model_card import ModelCard

FORMAT_VERSION = 1
INFO_FILE = "antiphon.json"
AUDIO_TOKENIZERS = "audio_tokenizer"
VOCODERS = "vocoder"
PROBE_TOKENS = 16
PROBE_TEXTS = ("Two words, and don't: 3.14", "the one and all of it", "Zoë ﬁnds 漢字 [eos]", "a\n b  c")


@dataclass(frozen=True)
class ModelFolder:
    """A loaded model folder. Audio tokenizers and vocoders load when first asked for."""

    path: str
    lm: Any
    text_tokenizer: Any
    vocabulary: Vocabulary
    grammars: dict[str, Grammar]
    voices: list[str]
    info: dict[str, Any] = field(repr=False)

    @cached_property
    def audio_tokenizers(self) -> dict[str, Any]:
        """Stream name -> audio tokenizer."""
        from model.audio_tokenizers.base import load_audio_tokenizer

        return {name: load_audio_tokenizer(path) for name, path in _subfolders(self.path, AUDIO_TOKENIZERS).items()}

    @cached_property
    def vocoders(self) -> dict[str, Any]:
        """Stream name -> vocoder."""
        from model.vocoders.base import load_vocoder

        return {name: load_vocoder(path) for name, path in _subfolders(self.path, VOCODERS).items()}


def export_model(
    folder: str,
    lm: Any,
    text_tokenizer: Any,
    vocabulary: Vocabulary,
    grammar: GrammarConfig,
    voices: list[str],
    streams: Mapping[str, StreamInfo],
    audio_tokenizers: Mapping[str, str],
    vocoders: Mapping[str, str],
    card: ModelCard | None = None,
    alive: Callable[[], None] = no_one,
) -> None:
    """Write a model folder, load it again and check that it is the same model.

    `audio_tokenizers` and `vocoders` are folders by stream name. Adapters of `lm` are merged in place.
    Raises RuntimeError when the reloaded model or tokenizer differs.
    """
    lm = merge_lora(lm).eval()
    tokenizer = extend_tokenizer(text_tokenizer, vocabulary)
    described = {name: asdict(info) for name, info in streams.items()}
    info = {
        "format_version": FORMAT_VERSION,
        **vocabulary.to_json(),
        "streams": described,
        "templates": dict(grammar.templates),
        "groups": {group: list(tasks) for group, tasks in grammar.groups.items()},
        "voices": list(voices),
    }
    if grammar.formats:
        info["formats"] = {task: form.model_dump(mode="json") for task, form in grammar.formats.items()}
    storage.delete(storage.join(folder, INFO_FILE))
    with tempfile.TemporaryDirectory() as scratch:
        local = Path(scratch) if storage.is_url(folder) else Path(folder)
        local.mkdir(parents=True, exist_ok=True)
        lm.save_pretrained(local, safe_serialization=True)
        alive()
        tokenizer.save_pretrained(local)
        _check_equal(local, lm, tokenizer, vocabulary)
        alive()
        for name in storage.list_files(local) if storage.is_url(folder) else ():
            storage.copy_file(local / name, storage.join(folder, name))
            alive()
    copied = {storage.join(AUDIO_TOKENIZERS, name): source for name, source in audio_tokenizers.items()}
    copied |= {storage.join(VOCODERS, name): source for name, source in vocoders.items()}
    for name, source in copied.items():
        _replace_folder(source, storage.join(folder, name))
        alive()
    tasks = {**grammar.templates, **{task: form.kind for task, form in grammar.formats.items()}}
    rendered = (card or ModelCard()).render(tasks, described, list(voices))
    storage.write_text(storage.join(folder, "README.md"), rendered)
    storage.write_json(storage.join(folder, INFO_FILE), info)


def load_model_folder(path: str, dtype: torch.dtype = torch.float32) -> ModelFolder:
    """Open a model folder, local or a URL; the LM in evaluation mode and `dtype`.

    Raises InputError when the folder is no model folder or was written by a newer version.
    """
    from data.grammar.template import build_grammars

    info = read_info(path)
    local = str(storage.local_folder(path))
    vocabulary = Vocabulary.from_json(info)
    tokenizer = load_text_tokenizer(local)
    grammar = GrammarConfig(templates=info["templates"], formats=info.get("formats", {}), groups=info["groups"])
    streams = {name: StreamInfo(**described) for name, described in info["streams"].items()}
    return ModelFolder(
        path=local,
        lm=load_language_model(local).to(dtype).eval(),
        text_tokenizer=tokenizer,
        vocabulary=vocabulary,
        grammars=build_grammars(grammar, vocabulary, tokenizer, streams),
        voices=list(info["voices"]),
        info=info,
    )


def read_info(path: str) -> dict[str, Any]:
    """antiphon.json of a model folder. Raises InputError when there is none, or it is of another format."""
    file = storage.join(path, INFO_FILE)
    if not storage.exists(file):
        raise InputError(f"{path!r} is no model folder: it has no {INFO_FILE}; give one that train or export has made")
    info = storage.read_json(file)
    if info.get("format_version") != FORMAT_VERSION:
        raise InputError(
            f"{file} has format_version {info.get('format_version')!r}, this code reads {FORMAT_VERSION}: "
            "export the checkpoint again"
        )
    return info


def check_text_tokenizer(text_tokenizer: Any, lm_path: str) -> None:
    """Raises InputError where the tokenizer, saved beside the language model of `lm_path`, would be read otherwise.

    transformers reads the tokenizers of some families (Qwen2) by the family's class, whatever the folder says.
    """
    from transformers import AutoConfig

    local = str(storage.local_folder(lm_path)) if storage.is_url(lm_path) else lm_path
    try:
        config = AutoConfig.from_pretrained(local)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{lm_path!r} holds no causal language model: give a model folder or a hub id ({error})"
        ) from None
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        text_tokenizer.save_pretrained(folder)
        if not _same_texts(text_tokenizer, load_text_tokenizer(folder)):
            raise InputError(
                f"the text tokenizer would be read otherwise beside a {config.model_type} model, whose family has its "
                f"own: use the model's, text: {{kind: pretrained, path: {lm_path}}}"
            )


def _same_texts(one: Any, other: Any) -> bool:
    return len(one) == len(other) and all(encode_text(one, text) == encode_text(other, text) for text in PROBE_TEXTS)


def extend_tokenizer(text_tokenizer: Any, vocabulary: Vocabulary) -> Any:
    """A copy of the text tokenizer in which markers and codes are added tokens with the vocabulary's ids.

    Special ones: a transcript that says "[eos]" stays text. A tokenizer that has them already comes back as it is.
    """
    tokenizer = copy.deepcopy(text_tokenizer)
    tokenizer.add_tokens(vocabulary.added_tokens(), special_tokens=True)
    tokenizer.pad_token, tokenizer.eos_token = "[pad]", "[eos]"
    return tokenizer


def _check_equal(folder: Path, lm: Any, text_tokenizer: Any, vocabulary: Vocabulary) -> None:
    """The folder must give the same logits and the same ids to software that knows nothing of Antiphon."""
    tokenizer = load_text_tokenizer(str(folder))
    expected = list(range(vocabulary.blocks[0].stop, vocabulary.size))
    if tokenizer.convert_tokens_to_ids(vocabulary.added_tokens()) != expected:
        raise RuntimeError(f"the tokenizer saved in {folder} does not give markers and codes the vocabulary's ids")
    if not _same_texts(text_tokenizer, tokenizer):
        raise RuntimeError(f"the tokenizer saved in {folder} gives texts other ids than the one that was trained with")
    ids_1T = torch.arange(PROBE_TOKENS)[None] * 7919 % vocabulary.size
    with torch.no_grad():
        kept_1TV = lm(input_ids=ids_1T, use_cache=False).logits
        read_1TV = load_language_model(str(folder)).eval()(input_ids=ids_1T, use_cache=False).logits
    if not torch.equal(kept_1TV, read_1TV):
        difference = (kept_1TV - read_1TV).abs().max().item()
        raise RuntimeError(f"the model saved in {folder} gives logits that differ by up to {difference:g}")


def _replace_folder(source: str, target: str) -> None:
    if storage.is_url(source) or storage.is_url(target):
        storage.delete(target)
        storage.copy_folder(source, target)
        return
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)


def _subfolders(path: str, kind: str) -> dict[str, str]:
    names = {name.split("/")[0] for name in storage.list_files(storage.join(path, kind)) if "/" in name}
    return {name: storage.join(path, kind, name) for name in sorted(names)}
