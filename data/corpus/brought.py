"""A brought corpus from its folder to checked utterances: for `prepare`, and for a dry run that writes nothing."""

from collections.abc import Callable
from typing import Any, TypeVar

from data import storage
from data.corpus.adapters.base import open_corpus
from data.corpus.config import BroughtCorpus, SeveralCorpora
from data.corpus.imported import import_corpus, where
from data.corpus.validate import Checked, Facts, Finding, check_all, check_content
from data.errors import InputError
from data.frozen import result_fields
from data.manifest import Utterance

IMPORT_VERSION = 2  # raised when an unchanged corpus gives another manifest

# A job's id is asked for many times within one command, and a large corpus takes seconds to list.
_content_ids: dict[int, tuple[BroughtCorpus, str]] = {}
_Found = TypeVar("_Found")


def corpora_of(config: BroughtCorpus | SeveralCorpora) -> dict[str, BroughtCorpus]:
    """The corpora by name, in the order in which they are read; one that stands alone has the name ""."""
    if isinstance(config, SeveralCorpora):
        return {name: config.corpora[name] for name in sorted(config.corpora)}
    return {"": config}


def of_each(config: BroughtCorpus | SeveralCorpora, look: Callable[[BroughtCorpus], _Found]) -> dict[str, _Found]:
    """What `look` finds out about each corpus. One InputError tells of all that raise one."""
    found: dict[str, _Found] = {}
    problems: list[str] = []
    for name, corpus in corpora_of(config).items():
        try:
            found[name] = look(corpus)
        except InputError as error:
            problems.append(f"corpus.corpora.{name}: {error}" if name else str(error))
    if problems:
        raise InputError("\n".join(problems))
    return found


def content_id(config: BroughtCorpus) -> str:
    """Hash of a corpus' content, computed once for each loaded recipe. Raises InputError where there is none."""
    known = _content_ids.get(id(config))
    if known is None:
        known = _content_ids[id(config)] = (config, open_corpus(config).content_id())
    return known[1]


def content_fields(config: BroughtCorpus) -> dict[str, Any]:
    """What of the configuration changes the manifest, beside the corpus' content; where it lies does not."""
    fields = {name: value for name, value in result_fields(config).items() if name not in ("path", "manifest")}
    return {**fields, "import_version": IMPORT_VERSION}


def bring(config: BroughtCorpus, folder: str, taken: dict[str, int] | None = None) -> Checked:
    """The usable utterances of a corpus, with quarantine rows for the rest.

    Audio that lies in no file of its own is written below `folder`/audio, as it is. `taken` counts the ids of corpora
    that came before; those of this one are added. Raises InputError.
    """

    def keep(utterance: Utterance, content: bytes) -> None:
        storage.write_bytes(storage.join(folder, utterance.audio_filepath), content)

    imported = import_corpus(config, keep, taken)
    if config.check == "none":
        return Checked(imported.utterances, [Facts()] * len(imported.utterances), imported.quarantine)
    checked = check_all(imported.utterances, folder, config.check == "decode", config.check_workers)
    if not checked.utterances:
        row = checked.quarantine[0]
        raise InputError(
            f"{where(config)}: no audio of it can be used; the first, {row['audio_filepath']}: {row['reason']}: "
            f"{row['detail']}"
        )
    return Checked(checked.utterances, checked.facts, [*imported.quarantine, *checked.quarantine])


def look_at(config: BroughtCorpus) -> Checked:
    """What `bring` would find by headers alone, writing nothing."""
    known: dict[str, Finding] = {}

    def keep(utterance: Utterance, content: bytes) -> None:
        known[utterance.audio_filepath] = check_content(content, utterance)

    imported = import_corpus(config, keep)
    checked = check_all(imported.utterances, "", False, config.check_workers, known)
    return Checked(checked.utterances, checked.facts, [*imported.quarantine, *checked.quarantine])
