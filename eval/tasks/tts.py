"""Speech synthesis: words by a recogniser, voice by a speaker encoder, both beside truth and resynthesis.

Speaker similarity compares an utterance with *another* recording of the same speaker (the next id on a seeded
circle through the speaker's test utterances) and with a recording of another speaker (drawn by the utterance's id),
as in Jia et al. 2018.
"""

from itertools import groupby

from data.manifest import Utterance
from eval.corpus import EvalCorpus, parts
from eval.samples import Sample, score_sample, word_sample
from eval.tasks.base import Evidence, Listening, Request, choose, cosine, derangement

GENERATED, TRUTH, RESYNTHESIS = "", "_ground_truth", "_resynthesis"


def requests(corpus: EvalCorpus) -> list[Request]:
    """Speak every text with its own speaker's voice; make the true units audible through the vocoder."""
    found = []
    for utterance in _spoken(corpus):
        text, voice = utterance.text or "", utterance.speaker
        found.append(Request(_key(GENERATED, utterance.id), "speak", text=text, voice=voice))
        if _has_units(corpus, utterance):
            codes = corpus.codes[utterance.id]["unit"]
            key = _key(RESYNTHESIS, utterance.id)
            found.append(Request(key, "resynthesise", voice=voice, stream="unit", codes=codes))
    return found


def listenings(corpus: EvalCorpus) -> list[Listening]:
    """Each rendering once for its words and once for its voice."""
    found = []
    for utterance in _spoken(corpus):
        for rendering in _renderings(corpus, utterance):
            key = _key(rendering, utterance.id)
            true, made = (utterance.id, None) if rendering == TRUTH else (None, key)
            for kind in ("transcribe", "embed_voice"):
                found.append(Listening(f"{kind}/{key}", kind, utterance.id, utterance=true, answer=made))
    return found


def samples(corpus: EvalCorpus, evidence: Evidence) -> list[Sample]:
    """Word error and similarity lines of every rendering, and the control with permuted texts."""
    spoken = _spoken(corpus)
    words = [_words(evidence, u, rendering) for u in spoken for rendering in _renderings(corpus, u)]
    return words + _shuffled(corpus, words) + _similarities(corpus, evidence, spoken)


def _words(evidence: Evidence, utterance: Utterance, rendering: str) -> Sample:
    key = _key(rendering, utterance.id)
    verdict = evidence.verdict(f"transcribe/{key}")
    return word_sample(
        f"tts_wer{rendering}",
        utterance.id,
        task="tts",
        judge=evidence.judges["recogniser"],
        reference=utterance.text or "",
        hypothesis=verdict.text,
        error=verdict.error,
        subsets=parts(utterance),
        speaker=utterance.speaker,
        audio=evidence.answer(key).audio if rendering != TRUTH else None,
    )


def _shuffled(corpus: EvalCorpus, words: list[Sample]) -> list[Sample]:
    """What was heard against the text of another utterance: how much the judge's own expectations give away.

    Texts are permuted within a part, so that the parts stay parts of the mixed line.
    """
    generated = sorted((s for s in words if s.line == "tts_wer"), key=lambda s: (s.subsets, s.id))
    by_id = {sample.id: sample for sample in generated}
    found = []
    for _, group in groupby(generated, key=lambda sample: sample.subsets):
        for identity, other in derangement(corpus.seed, (sample.id for sample in group)).items():
            sample = by_id[identity]
            found.append(
                word_sample(
                    "tts_wer_shuffled",
                    identity,
                    task="tts",
                    judge=sample.judge,
                    reference=by_id[other].reference or "",
                    hypothesis=sample.hypothesis,
                    error=sample.error,
                    subsets=sample.subsets,
                    speaker=sample.speaker,
                )
            )
    return found


def _similarities(corpus: EvalCorpus, evidence: Evidence, spoken: list[Utterance]) -> list[Sample]:
    by_speaker: dict[str, list[str]] = {}
    for utterance in spoken:
        by_speaker.setdefault(utterance.speaker or "", []).append(utterance.id)
    same = {a: b for ids in by_speaker.values() for a, b in derangement(corpus.seed, ids).items()}
    found = []
    for utterance in spoken:
        others = [u.id for u in spoken if u.speaker != utterance.speaker]
        partners = {"same": same.get(utterance.id)}
        partners["other"] = choose(corpus.seed, utterance.id, others) if others else None
        for rendering in _renderings(corpus, utterance):
            for name, partner in partners.items():
                if partner is not None:
                    line = f"tts_sim_{name}{rendering}"
                    found.append(_similarity(evidence, line, utterance, rendering, partner))
    return found


def _similarity(evidence: Evidence, line: str, utterance: Utterance, rendering: str, partner: str) -> Sample:
    mine = evidence.verdict(f"embed_voice/{_key(rendering, utterance.id)}")
    theirs = evidence.verdict(f"embed_voice/{_key(TRUTH, partner)}")
    score, error = cosine(mine, theirs)
    judge, speaker = evidence.judges["speaker"], utterance.speaker
    return score_sample(
        line, utterance.id, score=score, error=error, task="tts", judge=judge, reference=partner, speaker=speaker
    )


def _spoken(corpus: EvalCorpus) -> list[Utterance]:
    return corpus.spoken() if "tts" in corpus.tasks and corpus.has_vocoder else []


def _has_units(corpus: EvalCorpus, utterance: Utterance) -> bool:
    return "unit" in corpus.codes.get(utterance.id, {})


def _renderings(corpus: EvalCorpus, utterance: Utterance) -> tuple[str, ...]:
    return (GENERATED, TRUTH, RESYNTHESIS) if _has_units(corpus, utterance) else (GENERATED, TRUTH)


def _key(rendering: str, identity: str) -> str:
    return f"tts{rendering}/{identity}"
