"""What the judge processes of an evaluation run. Imports little, since each of them pays for it."""

from collections.abc import Callable, Sequence

import ray

from eval.judging import Heard, JudgeFolders, VocoderFolders, judge_chunk, judge_ids, resynthesise_chunk
from eval.tasks.base import Answer, Request, Verdict


@ray.remote(num_cpus=1)
def judge(chunk: Sequence[Heard], folders: JudgeFolders) -> list[tuple[str, Verdict]]:
    """`judge_chunk` in a process of its own, where judges stay loaded from chunk to chunk."""
    return judge_chunk(folders, chunk)


@ray.remote(num_cpus=1)
def resynthesise(
    chunk: Sequence[Request], folders: VocoderFolders, save: Callable[[str, bytes], str]
) -> list[tuple[str, Answer]]:
    """`resynthesise_chunk` in a process of its own."""
    return resynthesise_chunk(folders, chunk, save)


@ray.remote(num_cpus=1)
def identify(folders: JudgeFolders, kinds: frozenset[str]) -> dict[str, str]:
    """`judge_ids` where the judges are loaded already."""
    return judge_ids(folders, kinds)
