"""Speech recognition: word error rate over the test split, by condition."""

from eval.corpus import EvalCorpus, parts
from eval.samples import Sample, word_sample
from eval.tasks.base import Evidence, Listening, Request

# line -> (condition of the recordings, id of the model at the endpoint)
LINES = {
    "asr_wer": ("seen", "final"),
    "asr_wer_new_voices": ("new_voice", "final"),
    "asr_wer_new_accent": ("new_accent", "final"),
    "asr_wer_before_lora": ("seen", "before_lora"),
}
JUDGE = "words"


def requests(corpus: EvalCorpus) -> list[Request]:
    """Transcribe every test utterance of each condition, seen voices with the model before LoRA as well."""
    if "asr" not in corpus.tasks:
        return []
    return [
        Request(f"{line}/{utterance.id}", "transcribe", model=model, audio=utterance.id)
        for line, (condition, model) in LINES.items()
        if model in corpus.models
        for utterance in corpus.speech(condition)
    ]


def listenings(corpus: EvalCorpus) -> list[Listening]:
    """None: transcripts are compared as text."""
    return []


def samples(corpus: EvalCorpus, evidence: Evidence) -> list[Sample]:
    """One sample per transcript."""
    found = []
    for request in requests(corpus):
        utterance = corpus.utterances[request.audio or ""]
        answer = evidence.answer(request.key)
        found.append(
            word_sample(
                request.key.rpartition(f"/{utterance.id}")[0],
                utterance.id,
                task="asr",
                judge=evidence.judges[JUDGE],
                reference=utterance.text or "",
                hypothesis=answer.text,
                error=answer.error,
                subsets=parts(utterance),
                speaker=utterance.speaker,
            )
        )
    return found
