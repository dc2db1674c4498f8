"""One record under one grammar, as the command line shows it: ids, mask, segments, tokens, and what is read back."""

from __future__ import annotations

import difflib
import json
import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from data import storage
from data.config import GrammarConfig
from data.durations import frames_of_codes
from data.errors import InputError
from data.grammar.base import Grammar, Segment
from data.grammar.formats import KINDS
from data.grammar.joined import JoinedRecord
from data.grammar.sequence_format import SequenceFormat
from data.grammar.template import build_grammars
from data.mixture import draw_rng
from data.store import LINKS, Record, StreamInfo
from data.text_tokenizer import build_byte_words_tokenizer, load_text_tokenizer
from data.vocabulary import TEXT_BLOCK, Vocabulary, build_vocabulary

log = logging.getLogger("antiphon")

# What a stream is where neither record nor model says: frames per second, codebooks, codes of each.
STREAMS = {
    "unit": StreamInfo(25.0, 1, 1000, ""),
    "pitch": StreamInfo(12.5, 1, 64, ""),
    "style": StreamInfo(1.0, 1, 100, ""),
    "semantic": StreamInfo(50.0, 1, 1024, ""),
    "acoustic": StreamInfo(50.0, 7, 1024, ""),
    "music": StreamInfo(50.0, 4, 2048, ""),
    "image": StreamInfo(1.0, 1, 8192, ""),
}
_FIELDS = ("text", "speaker", "lang", "duration_s", "caption", "kind", "split")
_CODE_LIMIT = int(np.iinfo(np.int16).max)


@dataclass(frozen=True)
class Shown:
    """A grammar with what its ids mean; `spelling` as in SequenceFormat."""

    grammar: Grammar
    vocabulary: Vocabulary
    text_tokenizer: Any
    spelling: Mapping[str, str]


def show(name: str, path: str, seed: int = 0, model: str | None = None) -> dict[str, Any]:
    """{ids, loss_mask, segments, tokens, parsed} of the record in a JSON file (a list of records is joined).

    The draws are those of the record's first visit under this seed. Raises InputError for an unknown grammar, a file
    that holds no record, and a record that the grammar does not accept.
    """
    value = _read_json(path)
    values = value if isinstance(value, list) else [value]
    records = [record_from_json(item, path) for item in values]
    if not records:
        raise InputError(f"{path} holds an empty list: give a record, or several to be joined")
    infos = _stream_infos(values, records, path)
    shown = _of_model(name, model, infos) if model else _built_in(name, infos, build_byte_words_tokenizer([]))
    record: Any = records[0] if len(records) == 1 else JoinedRecord(tuple(records))
    rendered = shown.grammar.render(record, draw_rng(seed, shown.grammar.name, record.id, 0))
    if dropped := shown.grammar.dropped_codes(record):
        log.warning("%s: %d codes make no whole frame and are not shown", path, dropped)
    return {
        "ids": rendered.ids.tolist(),
        "loss_mask": rendered.loss_mask.tolist(),
        "segments": [_plain(segment) for segment in rendered.segments],
        "tokens": [spell(shown, token) for token in rendered.ids.tolist()],
        "parsed": [_plain(segment) for segment in shown.grammar.parse(rendered.ids)],
    }


def default_format(kind: str) -> SequenceFormat:
    """A published format as its publication has it. Raises InputError for an unknown kind."""
    if kind not in KINDS:
        close = difflib.get_close_matches(kind, KINDS, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise InputError(f"grammar {kind!r} is unknown: {hint}choose from {', '.join(KINDS)}")
    return KINDS[kind]()  # type: ignore[call-arg]


def record_from_json(value: Any, path: str = "") -> Record:
    """A row of a token store as JSON -> record; `response` and `rejected` may hold records in turn.

    Raises InputError where a field is not of the form expected.
    """
    if not isinstance(value, dict):
        raise InputError(f"{path}: a record is a JSON object, this is {type(value).__name__}")
    known = {*_FIELDS, "id", "words", "streams", "extra", *LINKS}
    try:
        fields: dict[str, Any] = {name: _field(name, value[name]) for name in _FIELDS if value.get(name) is not None}
        fields |= {link: record_from_json(value[link], path) for link in LINKS if isinstance(value.get(link), dict)}
        given = dict(value.get("streams") or {})
        streams = {name: _codes(stream, name) for name, stream in given.items()}
        return Record(
            id=str(value.get("id", "record")),
            **fields,
            words=tuple((_field("word", w), _finite(start), _finite(end)) for w, start, end in value["words"])
            if value.get("words")
            else None,
            extra={**(value.get("extra") or {}), **{key: item for key, item in value.items() if key not in known}},
            streams=streams,
            durations={n: _durations(s, n, streams[n]) for n, s in given.items() if _has_durations(s)},
        )
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise InputError(
            f"{path}: {error}: a record is {{text, words: [[word, start_s, end_s], …], streams: {{unit: {{codes: […], "
            "durations: null, frame_rate_hz: 25.0}}, …}}"
        ) from None


def spell(shown: Shown, token: int) -> str:
    """A token as the publication spells it; texts as their tokenizer does (a byte-level one writes Ġ for a space)."""
    block = shown.vocabulary.block_of(token)
    if block is not None and block.name == TEXT_BLOCK:
        return str(shown.text_tokenizer.convert_ids_to_tokens(token))
    if block is None or block in shown.vocabulary.marker_blocks:
        return shown.vocabulary.token_name(token)
    stream = block.name.rpartition(".")[0]
    first = shown.vocabulary.codebooks(stream)[0].start
    form = shown.spelling.get(stream)
    return form.format(token - first) if form else shown.vocabulary.token_name(token)


def _built_in(kind: str, infos: Mapping[str, StreamInfo], tokenizer: Any) -> Shown:
    """A format over a text tokenizer, with the streams that it can show or the record has."""
    config = default_format(kind)
    streams = {name: infos.get(name) or STREAMS[name] for name in {*infos, *(config.streams() & set(STREAMS))}}
    grammar = GrammarConfig(formats={kind: config}, groups={})
    vocabulary = build_vocabulary(tokenizer, streams, grammar, [])
    return Shown(build_grammars(grammar, vocabulary, tokenizer, streams)[kind], vocabulary, tokenizer, config.spelling)


def _of_model(name: str, model: str, infos: Mapping[str, StreamInfo]) -> Shown:
    """A task of a model folder, the folder's first task of that kind, or the kind on the folder's vocabulary; of a
    pretrained model that knows no audio yet, the kind with ids behind its texts'."""
    file = storage.join(model, "antiphon.json")
    if not storage.exists(file):
        if not storage.exists(storage.join(model, "tokenizer_config.json")):
            raise InputError(f"--model {model!r} is no model folder: it has no antiphon.json and no text tokenizer")
        return _built_in(name, infos, load_text_tokenizer(model))
    info = storage.read_json(file)
    config = GrammarConfig(templates=info["templates"], formats=info.get("formats", {}), groups=info["groups"])
    task = name if name in config.tasks else next((t for t, form in config.formats.items() if form.kind == name), None)
    if task is None:
        if name not in KINDS:
            raise InputError(f"grammar {name!r} is unknown: choose from {', '.join([*config.tasks, *KINDS])}")
        config, task = GrammarConfig(formats={name: default_format(name)}, groups={}), name
    vocabulary = Vocabulary.from_json(info)
    tokenizer = load_text_tokenizer(model)
    streams = {stream: StreamInfo(**described) for stream, described in info["streams"].items()}
    grammar = build_grammars(config, vocabulary, tokenizer, streams)[task]
    return Shown(grammar, vocabulary, tokenizer, config.formats[task].spelling if task in config.formats else {})


def _read_json(path: str) -> Any:
    try:
        return json.loads(storage.read_text(path))
    except FileNotFoundError:
        raise InputError(f"{path!r} does not exist: give a JSON file of one record") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path!r} is not JSON: {error}") from None


def _stream_infos(values: list[Any], records: list[Record], path: str) -> dict[str, StreamInfo]:
    """What the streams are: as the JSON says, else as usual; codebooks large enough for every code."""
    found: dict[str, StreamInfo] = {}
    for described, record in zip(values, records, strict=True):
        for name, stream, codes in _all_streams(described, record):
            usual = found.get(name) or STREAMS.get(name) or StreamInfo(25.0, 1, 1, "")
            said = stream if isinstance(stream, dict) else {}
            listed = said.get("codes", stream)
            books = len(listed[0]) if listed and isinstance(listed[0], list) else usual.num_codebooks
            books, rate = said.get("num_codebooks") or books, said.get("frame_rate_hz") or usual.frame_rate_hz
            if not isinstance(books, int) or books < 1 or not isinstance(rate, int | float) or not 0 < rate < math.inf:
                raise InputError(
                    f"{path}: stream {name!r} has num_codebooks {books!r} and frame_rate_hz {rate!r}: give numbers "
                    "above 0"
                )
            size = max(usual.codebook_size, int(codes.max(initial=0)) + 1)
            found[name] = StreamInfo(float(rate), books, size, "")
    return found


def _all_streams(value: dict[str, Any], record: Record) -> Iterator[tuple[str, Any, np.ndarray]]:
    for name, stream in (value.get("streams") or {}).items():
        yield name, stream, record.streams[name]
    for link in LINKS:
        linked = getattr(record, link)
        if linked is not None:
            yield from _all_streams(value[link], linked)


def _field(name: str, value: Any) -> Any:
    if name == "duration_s":
        return _finite(value)
    if not isinstance(value, str):
        raise ValueError(f"{name} is {value!r}, expected a string")
    return value


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{number} is no time in seconds")
    return number


def _codes(stream: Any, name: str) -> np.ndarray:
    codes = np.asarray(stream["codes"] if isinstance(stream, dict) else stream).reshape(-1)
    if len(codes) and codes.dtype.kind not in "iu":
        raise ValueError(f"stream {name!r} has codes {codes[:4].tolist()} …, expected whole numbers")
    if len(codes) and (codes.min() < 0 or codes.max() > _CODE_LIMIT):
        raise ValueError(f"stream {name!r} has codes from {codes.min()} to {codes.max()}, expected 0 to {_CODE_LIMIT}")
    return codes.astype(np.int16)


def _has_durations(stream: Any) -> bool:
    return isinstance(stream, dict) and stream.get("durations") is not None


def _durations(stream: dict[str, Any], name: str, codes: np.ndarray) -> np.ndarray:
    durations = np.asarray(stream["durations"], dtype=np.int16).reshape(-1)
    described = len(frames_of_codes(durations))
    if described != len(codes):
        raise ValueError(f"stream {name!r} has {len(codes)} codes, its durations are those of {described}")
    return durations


def _plain(segment: Segment) -> dict[str, Any]:
    content = segment.content if isinstance(segment.content, str) else list(segment.content)
    return asdict(segment) | {"content": content}
