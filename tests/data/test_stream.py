"""The token stream: one stream, whatever the cluster does."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.config import GrammarConfig, PhaseMixture
from data.errors import InputError
from data.grammar.template import build_grammars
from data.packing import rows_per_rank
from data.store import Record, StreamInfo
from data.stream import TokenStream, evaluation_rows
from data.text_tokenizer import build_byte_words_tokenizer
from data.vocabulary import build_vocabulary

CONFIG = GrammarConfig(
    templates={
        "asr": "[asr] {unit} | [text] {text} [eos]",
        "tts": "[tts] {speaker} {text} | [speech] {unit} [eos]",
        "text_lm": "[lm] | {text} [eos]",
        "s2t": "[chain] {unit} | [ta] {response.text} [eos]",
    },
    groups={"asr": ("asr",), "tts": ("tts",), "lm": ("text_lm",), "chain": ("s2t",)},
)
STREAMS = {"unit": StreamInfo(25.0, 1, 50, "u")}
VOCABULARY_WORDS = ("one", "two", "three", "four", "five", "six")
TOKENIZER = build_byte_words_tokenizer(VOCABULARY_WORDS)
VOCABULARY = build_vocabulary(TOKENIZER, STREAMS, CONFIG, ["amy"])
GRAMMARS = build_grammars(CONFIG, VOCABULARY, TOKENIZER)


def make_records(count: int) -> list[Record]:
    rng = np.random.default_rng(7)
    records = []
    for number in range(count):
        spoken = rng.choice(VOCABULARY_WORDS, size=rng.integers(1, 7)).tolist()
        words = tuple((word, index * 0.4, (index + 1) * 0.4) for index, word in enumerate(spoken))
        units = rng.integers(0, 50, size=len(spoken) * 10).astype(np.int16)
        records.append(Record(f"u{number}", " ".join(spoken), "amy", words=words, streams={"unit": units}))
    return records


RECORDS = make_records(120)


def phase(**changes) -> PhaseMixture:
    values = {
        "name": "cross_modal",
        "weights": {"asr": 0.5, "tts": 0.4, "lm": 0.1},
        "loss_weights": {"asr": 2.0},
        "crop_probability": 0.7,
        "crop_end_fraction": 0.5,
    }
    return PhaseMixture(**{**values, **changes})


def make_stream(seed: int = 1, records: list[Record] = RECORDS, rows: int = 5, **changes) -> TokenStream:
    return TokenStream(records, GRAMMARS, CONFIG.groups, phase(**changes), 40, 128, rows, seed, STREAMS)


def gathered(stream: TokenStream, step: int, world_size: int) -> list[np.ndarray]:
    """The rows of all ranks, put together again as ranks deal them out."""
    padded = rows_per_rank(stream.global_batch_rows, 2, world_size)
    ranks = [stream.rows(step, rank, world_size, padded) for rank in range(world_size)]
    assert all(batch.ids_BT.shape == (padded, stream.sequence_length) for batch in ranks)
    rows = [
        np.stack([getattr(ranks[index % world_size], name)[index // world_size] for index in range(5)])
        for name in ("ids_BT", "labels_BT", "position_ids_BT", "weights_BT")
    ]
    empty = sum(int((batch.labels_BT == -100).all(axis=1).sum()) for batch in ranks)
    assert empty == padded * world_size - 5
    return rows


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 1000), step=st.integers(0, 39))
def test_the_global_batch_is_the_same_for_any_workers_and_after_any_resume(seed: int, step: int) -> None:
    from_the_start = make_stream(seed)
    hashes = [from_the_start.batch_hash(number) for number in range(step + 1)]
    resumed = make_stream(seed)
    assert resumed.batch_hash(step) == hashes[step]
    assert resumed.batch_hash(step // 2) == hashes[step // 2]  # back again
    alone = gathered(make_stream(seed), step, 1)
    for world_size in (2, 3, 4):
        for ours, theirs in zip(gathered(make_stream(seed), step, world_size), alone, strict=True):
            assert (ours == theirs).all()


def test_the_order_of_the_store_does_not_change_the_batches() -> None:
    assert [make_stream().batch_hash(step) for step in (0, 5)] == [
        make_stream(records=RECORDS[::-1]).batch_hash(step) for step in (0, 5)
    ]


def test_seeds_and_steps_give_other_batches() -> None:
    stream = make_stream()
    hashes = [stream.batch_hash(step) for step in range(20)] + [make_stream(seed=2).batch_hash(0)]
    assert len(set(hashes)) == 21
    assert all(len(value) == 16 for value in hashes)


def test_no_document_is_lost_or_repeated_within_an_epoch() -> None:
    stream = make_stream(crop_probability=0.0)
    visits: Counter[tuple[str, int, int]] = Counter()
    for step in range(40):
        visits.update((doc.source, doc.record, doc.visit) for row in stream.plan(step) for doc in row)
    assert set(visits.values()) == {1}
    last = max(visit for source, _, visit in visits if source == "asr")
    assert last >= 2
    for visit in range(last - 1):  # the newest epochs may still wait in the packing window
        assert sum(1 for source, _, number in visits if (source, number) == ("asr", visit)) == len(RECORDS)


def test_plans_and_rows_agree_and_waste_little() -> None:
    stream = make_stream()
    planned = [doc.num_tokens for row in stream.plan(3) for doc in row]
    batch = stream.rows(3)
    starts = (batch.position_ids_BT == 0) & (batch.ids_BT != VOCABULARY.pad_id)
    assert starts.sum() == len(planned)
    assert (batch.ids_BT != VOCABULARY.pad_id).sum() == sum(planned)
    assert [len(row) for row in stream.plan(3)] == [len(names) for names in batch.sources]
    used = sum(doc.num_tokens for step in range(40) for row in stream.plan(step) for doc in row)
    assert used / (40 * 5 * 128) > 0.97


def test_every_packed_document_can_be_read() -> None:
    stream = make_stream()
    batch = stream.rows(0)
    for index, row in enumerate(stream.plan(0)):
        start = 0
        for doc in row:
            segments = GRAMMARS[doc.source].parse(batch.ids_BT[index, start : start + doc.num_tokens])
            spoken = RECORDS[doc.record].text.split()
            text = next(piece.content for piece in segments if piece.kind == "text")
            assert text == " ".join(spoken[slice(*doc.span)] if doc.span else spoken)
            start += doc.num_tokens


def test_targets_carry_their_tasks_weight() -> None:
    batch = make_stream().rows(0)
    assert set(np.unique(batch.weights_BT)) == {0.0, 1.0, 2.0}
    assert ((batch.weights_BT > 0) == (batch.labels_BT != -100)).all()
    targets = batch.labels_BT != -100
    assert (batch.labels_BT[targets] == batch.ids_BT[targets]).all()


def test_cropping_ends_after_its_share_of_the_steps() -> None:
    stream = make_stream()
    cropped = [sum(1 for row in stream.plan(step) for doc in row if doc.span) for step in range(40)]
    assert sum(cropped[:20]) > 100
    assert sum(cropped[24:]) == 0  # some drawn before the end may still have waited in the window


def test_got_is_what_was_asked() -> None:
    table = make_stream().mixture_table(40)
    for row in table:
        assert row.got == pytest.approx(row.asked, abs=0.02)
    asr = next(row for row in table if row.source == "asr")
    assert asr.epochs > 1
    assert asr.repeated == asr.documents - len(RECORDS)


def test_documents_longer_than_a_row_are_dropped_and_counted() -> None:
    long = Record("long", "one", "amy", streams={"unit": np.zeros(500, np.int16)})
    stream = make_stream(records=[*RECORDS, long], weights={"asr": 1.0})
    assert 120 not in {doc.record for step in range(40) for row in stream.plan(step) for doc in row}
    assert stream.num_dropped == {"asr": 1}


def test_a_split_document_is_shown_in_parts_that_hold_every_token_and_every_target_once() -> None:
    long = Record("long", " ".join(VOCABULARY_WORDS * 70), "amy")  # 420 words of one token each
    arguments = ([*RECORDS[:20], long], GRAMMARS, CONFIG.groups, phase(weights={"lm": 1.0}), 40, 128, 5, 1, STREAMS)
    stream = TokenStream(*arguments, over_long="split")
    whole = GRAMMARS["text_lm"].render(long)
    ids, targets = {}, []
    for step in range(6):
        batch, rows = stream.rows(step), stream.plan(step)
        for index, row in enumerate(rows):
            place = 0
            for doc in row:
                here = slice(place, place + doc.num_tokens)
                assert batch.position_ids_BT[index, here].tolist() == list(range(doc.num_tokens))
                if doc.record == 20 and doc.visit == 0:
                    ids.update(
                        zip(range(doc.start, doc.start + doc.num_tokens), batch.ids_BT[index, here], strict=True)
                    )
                    targets += (np.flatnonzero(batch.labels_BT[index, here] != -100) + doc.start).tolist()
                place += doc.num_tokens
    assert [ids[place] for place in range(len(whole.ids))] == whole.ids.tolist()
    assert sorted(targets) == np.flatnonzero(whole.loss_mask).tolist()
    assert stream.planner.num_split == {"text_lm": 1}
    assert TokenStream(*arguments).plan(0)


def test_only_sequences_without_a_prompt_are_split() -> None:
    assert {name for name, grammar in GRAMMARS.items() if grammar.splittable} == {"text_lm"}
    long = Record("long", "one", "amy", streams={"unit": np.zeros(500, np.int16)})
    arguments = ([*RECORDS, long], GRAMMARS, CONFIG.groups, phase(weights={"asr": 1.0}), 40, 128, 5, 1, STREAMS)
    stream = TokenStream(*arguments, over_long="split")
    stream.plan(40)
    assert (stream.num_dropped, stream.planner.num_split) == ({"asr": 1}, {"asr": 0})


def test_a_task_that_nothing_fits_is_an_input_error() -> None:
    long = Record("long", "one", "amy", streams={"unit": np.zeros(500, np.int16)})
    with pytest.raises(InputError, match="sequence_length=128"):
        make_stream(records=[long], weights={"asr": 1.0}).plan(0)
    with pytest.raises(InputError, match="s2t"):
        make_stream(weights={"chain": 1.0})
    with pytest.raises(InputError, match=r"store\.streams"):
        TokenStream(RECORDS, GRAMMARS, CONFIG.groups, phase(), 40, 128, 5, 1)


def test_held_out_rows_are_fixed_and_show_each_record_once() -> None:
    first = evaluation_rows(RECORDS[:20], GRAMMARS["asr"], 128, 50)
    again = evaluation_rows(RECORDS[19::-1], GRAMMARS["asr"], 128, 50)
    assert (first.ids_BT == again.ids_BT).all()
    assert sum(len(row) for row in first.sources) == 20
    assert (first.labels_BT != -100).any(axis=1).all()
    assert evaluation_rows(RECORDS, GRAMMARS["asr"], 128, 3).ids_BT.shape == (3, 128)
    with pytest.raises(InputError, match="s2t"):
        evaluation_rows(RECORDS, GRAMMARS["s2t"], 128, 3)
