"""Chain of modality: spoken and written questions with computable answers, beside controls without the question.

`com_s2t_exact` (speech in, text out) and `com_t2t_exact` count exact answers; `com_s2s_wer` lets the recogniser judge
the spoken answer against the answer's text. A control asks with 0.3 s of silence, or no text: what it reaches is what
the most frequent answers alone would reach.
"""

from data.manifest import Utterance
from eval.corpus import EvalCorpus
from eval.metrics.wer import normalize
from eval.samples import Sample, score_sample, word_sample
from eval.tasks.base import Evidence, Listening, Request

FORMS = ("s2t", "t2t", "s2s")
LONG_ANSWER_WORDS = 3
SILENCE = "silence"


def requests(corpus: EvalCorpus) -> list[Request]:
    """Every question in every form, and each different control once."""
    found: dict[str, Request] = {}
    for question, _ in corpus.questions():
        for form in _forms(corpus, question):
            for control in (False, True):
                request = _request(form, question, control)
                found.setdefault(request.key, request)
    return list(found.values())


def listenings(corpus: EvalCorpus) -> list[Listening]:
    """Spoken answers of the model, of the control, and the true ones."""
    found: dict[str, Listening] = {}
    for question, answer in corpus.questions():
        if "s2s" not in _forms(corpus, question):
            continue
        truth = Listening(f"transcribe/{answer.id}", "transcribe", question.id, utterance=answer.id)
        found[truth.key] = truth
        for control in (False, True):
            key = _key("s2s", question, control)
            heard = Listening(f"transcribe/{key}", "transcribe", key if control else question.id, answer=key)
            found.setdefault(heard.key, heard)
    return list(found.values())


def samples(corpus: EvalCorpus, evidence: Evidence) -> list[Sample]:
    """One sample per question, form and control; answers of three or more words count in a subset of their own."""
    found = []
    for question, answer in corpus.questions():
        for form in _forms(corpus, question):
            for control in (False, True):
                judge = _spoken if form == "s2s" else _written
                found.append(judge(evidence, form, question, answer, control))
        if "s2s" in _forms(corpus, question):
            found.append(_truth(evidence, question, answer))
    return found


def _written(evidence: Evidence, form: str, question: Utterance, answer: Utterance, control: bool) -> Sample:
    reply = evidence.answer(_key(form, question, control))
    reference = answer.text or ""
    return score_sample(
        f"com_{form}_exact" + ("_control" if control else ""),
        question.id,
        score=float(normalize(reply.text or "") == normalize(reference)),
        error=reply.error,
        task="chain",
        judge=evidence.judges["exact"],
        reference=reference,
        hypothesis=reply.text,
        subsets=_subsets(answer),
        speaker=question.speaker,
    )


def _spoken(evidence: Evidence, form: str, question: Utterance, answer: Utterance, control: bool) -> Sample:
    key = _key(form, question, control)
    line, audio = "com_s2s_wer" + ("_control" if control else ""), evidence.answer(key).audio
    return _heard(evidence, line, key, question, answer, speaker=question.speaker, audio=audio)


def _truth(evidence: Evidence, question: Utterance, answer: Utterance) -> Sample:
    return _heard(evidence, "com_s2s_wer_ground_truth", answer.id, question, answer, speaker=answer.speaker)


def _heard(
    evidence: Evidence, line: str, key: str, question: Utterance, answer: Utterance, **fields: str | None
) -> Sample:
    """What the recogniser heard of `key`, against the words of the right answer."""
    verdict = evidence.verdict(f"transcribe/{key}")
    return word_sample(
        line,
        question.id,
        task="chain",
        judge=evidence.judges["recogniser"],
        reference=answer.text or "",
        hypothesis=verdict.text,
        error=verdict.error,
        subsets=_subsets(answer),
        **fields,
    )


def _request(form: str, question: Utterance, control: bool) -> Request:
    written = form == "t2t"
    return Request(
        _key(form, question, control),
        "chat",
        task=form,
        text=("" if control else question.text) if written else None,
        audio=None if written else (SILENCE if control else question.id),
        voice=question.speaker if form == "s2s" else None,
    )


def _key(form: str, question: Utterance, control: bool) -> str:
    """Controls that ask the same thing share one key: only the voice of a spoken answer sets them apart."""
    if not control:
        return f"{form}/{question.id}"
    return f"{form}_control/{question.speaker if form == 's2s' else 'any'}"


def _forms(corpus: EvalCorpus, question: Utterance) -> list[str]:
    speaks = corpus.has_vocoder and corpus.can_speak(question.speaker)
    return [form for form in FORMS if form in corpus.tasks and (form != "s2s" or speaks)]


def _subsets(answer: Utterance) -> tuple[str, ...]:
    return ("long" if len(normalize(answer.text or "").split()) >= LONG_ANSWER_WORDS else "short",)
