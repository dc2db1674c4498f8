from dataclasses import replace

import pytest

from eval.headline import HEADLINE, compute_metrics
from eval.tasks import TASKS, asr, chain, music, tts
from eval.tasks.base import Answer, Evidence, Verdict, choose, derangement

NEW_LINES_WITHOUT_SECOND_PART = {
    "asr_wer_new_voices_sentences",
    "asr_wer_new_accent_digits",
}


def _metrics(corpus, evidence):
    return compute_metrics([s for task in TASKS.values() for s in task.samples(corpus, evidence)], seed=1)


def test_a_flawless_model_reaches_every_topline_and_controls_do_not(corpus, flawless):
    metrics = _metrics(corpus, flawless(corpus))
    assert set(HEADLINE) - set(metrics) == NEW_LINES_WITHOUT_SECOND_PART
    right = [
        "asr_wer",
        "asr_wer_new_voices",
        "asr_wer_new_accent",
        "asr_wer_before_lora",
        "tts_wer",
        "tts_wer_ground_truth",
        "tts_wer_resynthesis",
        "com_s2s_wer",
    ]
    assert {metrics[name]["value"] for name in right} == {0.0}
    assert metrics["tts_wer_shuffled"]["value"] > 0.2
    perfect = ("tts_sim_same", "clap_matched", "clap_generated", "com_s2t_exact", "com_t2t_exact", "caption_exact")
    assert {metrics[name]["value"] for name in perfect} == {1.0}
    for control in ("com_s2t_exact_control", "com_t2t_exact_control", "tts_sim_other", "clap_mismatched"):
        assert metrics[control]["value"] == 0.0
    assert metrics["com_s2s_wer_control"]["value"] == 1.0
    assert all(metric["n_scored"] == metric["n_expected"] for metric in metrics.values())


def test_a_model_that_never_answers_is_wholly_wrong_and_nothing_is_left_out(corpus, flawless):
    full = _metrics(corpus, flawless(corpus))
    judges = flawless(corpus).judges
    silent = _metrics(corpus, Evidence({}, {}, judges))
    assert set(silent) == set(full)
    for name, metric in silent.items():
        assert metric["n_scored"] == 0
        assert metric["n_expected"] == full[name]["n_expected"]
        assert metric["value"] == (1.0 if "wer" in name else 0.0)


def test_recognition_asks_the_model_before_lora_on_seen_voices_only(corpus):
    asked = [request for request in asr.requests(corpus) if request.model == "before_lora"]
    assert {request.audio for request in asked} == {f"s{number}" for number in range(8)}
    assert not [r for r in asr.requests(replace(corpus, models=("final",))) if r.model == "before_lora"]


def test_synthesis_is_judged_on_marked_utterances_and_compared_with_another_recording(corpus, flawless):
    samples = tts.samples(corpus, flawless(corpus))
    assert "s7" not in {sample.id for sample in samples}
    for sample in samples:
        if sample.line.startswith("tts_sim"):
            assert sample.reference != sample.id
            same = corpus.utterances[sample.reference].speaker == sample.speaker
            assert same == sample.line.startswith("tts_sim_same")


def test_shuffled_texts_stay_within_a_part_and_are_never_their_own(corpus, flawless):
    samples = [s for s in tts.samples(corpus, flawless(corpus)) if s.line == "tts_wer_shuffled"]
    by_text = {utterance.text: utterance for utterance in corpus.utterances.values()}
    for sample in samples:
        assert by_text[sample.reference].id != sample.id
        assert (by_text[sample.reference].extra["part"],) == sample.subsets
    assert len({sample.reference for sample in samples}) == len(samples)


def test_mismatched_captions_are_other_captions(corpus, flawless):
    samples = [s for s in music.samples(corpus, flawless(corpus)) if s.line == "clap_mismatched"]
    assert len(samples) == 3
    assert all(sample.reference != corpus.utterances[sample.id].caption for sample in samples)


def test_controls_ask_the_same_thing_once(corpus):
    controls = [request for request in chain.requests(corpus) if "_control/" in request.key]
    assert sorted(request.key for request in controls) == ["s2s_control/voice0", "s2t_control/any", "t2t_control/any"]
    assert {request.audio for request in controls} == {"silence", None}


def test_answers_of_three_or_more_words_are_shown_apart(corpus, flawless):
    metrics = _metrics(corpus, flawless(corpus))
    assert metrics["com_s2t_exact_long"]["n_expected"] == 1
    assert metrics["com_s2t_exact_short"]["n_expected"] == 1


def test_exact_answers_are_compared_after_normalisation(corpus, flawless):
    evidence = flawless(corpus)
    answers = {**evidence.answers, "s2t/q0": Answer(text="  FIVE. "), "s2t/q1": Answer(text="one two four")}
    samples = chain.samples(corpus, replace(evidence, answers=answers))
    scores = {sample.id: sample.score for sample in samples if sample.line == "com_s2t_exact"}
    assert scores == {"q0": 1.0, "q1": 0.0}


def test_a_corpus_without_speakers_parts_or_music_has_fewer_lines(corpus, flawless):
    plain = {
        identity: replace(utterance, extra={}, speaker=None)
        for identity, utterance in corpus.utterances.items()
        if identity.startswith("s")
    }
    bare = replace(corpus, utterances=plain, models=("final",))
    assert set(_metrics(bare, flawless(bare))) == {"asr_wer"}


def test_without_a_vocoder_nothing_is_spoken(corpus):
    mute = replace(corpus, has_vocoder=False)
    assert not tts.requests(mute)
    assert "s2s" not in {request.task for request in chain.requests(mute)}


def test_the_limit_keeps_the_same_utterances_whatever_their_order(corpus):
    few = replace(corpus, max_utterances=3)
    turned = replace(few, utterances=dict(reversed(corpus.utterances.items())))
    assert [u.id for u in few.speech("seen")] == [u.id for u in turned.speech("seen")]
    assert len(few.speech("seen")) == 3


def test_a_failed_judgement_fails_every_line_that_needs_it(corpus, flawless):
    evidence = flawless(corpus)
    verdicts = {**evidence.verdicts, "transcribe/tts/s0": Verdict(error="empty: no samples")}
    metrics = _metrics(corpus, replace(evidence, verdicts=verdicts))
    for line in ("tts_wer", "tts_wer_sentences", "tts_wer_shuffled"):
        assert metrics[line]["n_scored"] == metrics[line]["n_expected"] - 1
    assert metrics["tts_wer"]["value"] == pytest.approx(4 / 28)


def test_derangement_has_no_fixed_point_and_choice_depends_on_nothing_else():
    ids = [f"u{number}" for number in range(9)]
    mapping = derangement(7, ids)
    assert sorted(mapping.values()) == ids
    assert all(a != b for a, b in mapping.items())
    assert mapping == derangement(7, reversed(ids))
    assert derangement(7, ["alone"]) == {}
    assert choose(1, "u", ids) == choose(1, "u", ids[::-1])
