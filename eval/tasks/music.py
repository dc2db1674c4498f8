"""Music: how well clips fit captions by a dual encoder (CLAP score, Huang et al. 2023), and captioning.

`clap_matched` (true clip, its caption) is the topline, `clap_mismatched` (true clip, a caption with other attributes)
the bottom line; `clap_generated` and `clap_resynthesis` lie between.
"""

from data.manifest import Utterance
from eval.corpus import EvalCorpus
from eval.metrics.wer import normalize
from eval.samples import Sample, score_sample
from eval.tasks.base import Evidence, Listening, Request, choose, cosine

CLIPS = {"clap_matched": "truth", "clap_generated": "generated", "clap_resynthesis": "resynthesis"}


def requests(corpus: EvalCorpus) -> list[Request]:
    """Generate a clip per caption, make the true codes audible, and caption every true clip."""
    found = []
    for clip in corpus.music():
        if "text_to_music" in corpus.tasks:
            found.append(Request(f"generated/{clip.id}", "chat", task="text_to_music", text=clip.caption))
        if _has_codes(corpus, clip):
            codes = corpus.codes[clip.id]["music"]
            found.append(Request(f"resynthesis/{clip.id}", "resynthesise", stream="music", codes=codes))
        if "music_to_caption" in corpus.tasks:
            found.append(Request(f"caption/{clip.id}", "chat", task="music_to_caption", audio=clip.id))
    return found


def listenings(corpus: EvalCorpus) -> list[Listening]:
    """Each rendering of a clip, and its caption."""
    found = []
    for clip in corpus.music() if "text_to_music" in corpus.tasks else []:
        found.append(Listening(f"embed_caption/{clip.id}", "embed_caption", clip.id, text=clip.caption))
        for rendering in _renderings(corpus, clip).values():
            key = f"{rendering}/{clip.id}"
            true, made = (clip.id, None) if rendering == "truth" else (None, key)
            found.append(Listening(f"embed_music/{key}", "embed_music", clip.id, utterance=true, answer=made))
    return found


def samples(corpus: EvalCorpus, evidence: Evidence) -> list[Sample]:
    """CLAP lines and exact captions."""
    found = []
    clips = corpus.music()
    for clip in clips:
        if "text_to_music" in corpus.tasks:
            for line, rendering in _renderings(corpus, clip).items():
                found.append(_fit(evidence, line, clip, rendering, clip))
            different = [other.id for other in clips if _attributes(other) != _attributes(clip)]
            if different:
                other = corpus.utterances[choose(corpus.seed, clip.id, different)]
                found.append(_fit(evidence, "clap_mismatched", clip, "truth", other))
        if "music_to_caption" in corpus.tasks:
            found.append(_caption(evidence, clip))
    return found


def _fit(evidence: Evidence, line: str, clip: Utterance, rendering: str, captioned: Utterance) -> Sample:
    heard = evidence.verdict(f"embed_music/{rendering}/{clip.id}")
    score, error = cosine(heard, evidence.verdict(f"embed_caption/{captioned.id}"))
    audio = evidence.answer(f"{rendering}/{clip.id}").audio if rendering != "truth" else None
    return score_sample(
        line,
        clip.id,
        score=score,
        error=error,
        task="music",
        judge=evidence.judges["clap"],
        reference=captioned.caption,
        audio=audio,
    )


def _caption(evidence: Evidence, clip: Utterance) -> Sample:
    answer = evidence.answer(f"caption/{clip.id}")
    reference = clip.caption or ""
    return score_sample(
        "caption_exact",
        clip.id,
        score=float(normalize(answer.text or "") == normalize(reference)),
        error=answer.error,
        task="music",
        judge=evidence.judges["exact"],
        reference=reference,
        hypothesis=answer.text,
    )


def _attributes(clip: Utterance) -> str:
    """The caption stands for the attributes: one names every attribute of its clip."""
    return normalize(clip.caption or "")


def _has_codes(corpus: EvalCorpus, clip: Utterance) -> bool:
    return "music" in corpus.codes.get(clip.id, {})


def _renderings(corpus: EvalCorpus, clip: Utterance) -> dict[str, str]:
    """Lines of the report -> the rendering of the clip that they judge."""
    return {line: name for line, name in CLIPS.items() if name != "resynthesis" or _has_codes(corpus, clip)}
