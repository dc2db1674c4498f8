"""Best-fit packing and the arrays of packed rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.packing import BestFitPacker, PackedDocument, pack_batch, rows_per_rank


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 64), max_size=60))
def test_every_document_is_packed_once_and_whole(lengths: list[int]) -> None:
    packer: BestFitPacker[int] = BestFitPacker(64)
    for number, length in enumerate(lengths):
        packer.add(length, number)
    rows = []
    while row := packer.next_row():
        rows.append(row)
    assert sorted(number for row in rows for number in row) == list(range(len(lengths)))
    assert all(sum(lengths[number] for number in row) <= 64 for row in rows)
    assert packer.pending_tokens == 0


def test_a_row_begins_with_the_oldest_and_closes_with_the_best_fit() -> None:
    packer: BestFitPacker[str] = BestFitPacker(10)
    for length, name in [(6, "old"), (5, "next"), (3, "three"), (4, "four"), (4, "late four")]:
        packer.add(length, name)
    assert packer.next_row() == ["old", "four"]
    assert packer.next_row() == ["next", "three"]


@pytest.mark.parametrize("length", [0, 11])
def test_a_document_that_fits_no_row_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="fits no row"):
        BestFitPacker(10).add(length, "x")


def test_little_is_wasted_on_utterance_lengths() -> None:
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(np.log(6), 0.7, 6000), 1, 30) * 25
    packer: BestFitPacker[int] = BestFitPacker(2048)
    used, rows = 0, 0
    for length in lengths.astype(int).tolist():
        packer.add(length, length)
        while packer.pending_tokens >= 16 * 2048:
            used += sum(packer.next_row())
            rows += 1
    assert 1 - used / (rows * 2048) <= 0.01


def test_documents_and_padding_are_isolated_by_their_positions() -> None:
    first = PackedDocument(np.array([7, 8, 9]), np.array([False, True, True]), 2.0, "asr")
    second = PackedDocument(np.array([5, 6]), np.array([True, True]), 1.0, "lm")
    batch = pack_batch([[first, second]], 2, 8, pad_id=1)
    assert batch.ids_BT.tolist() == [[7, 8, 9, 5, 6, 1, 1, 1], [1] * 8]
    assert batch.position_ids_BT.tolist() == [[0, 1, 2, 0, 1, 0, 1, 2], list(range(8))]
    # The first token of a document is no target: shifted, it would be predicted from another document.
    assert batch.labels_BT.tolist() == [[-100, 8, 9, -100, 6, -100, -100, -100], [-100] * 8]
    assert batch.weights_BT.tolist() == [[0, 2, 2, 0, 1, 0, 0, 0], [0] * 8]
    assert batch.sources == (("asr", "lm"), ())
    assert (batch.ids_BT.dtype, batch.labels_BT.dtype, batch.weights_BT.dtype) == (np.int64, np.int64, np.float32)


def test_packed_documents_never_attend_to_each_other() -> None:
    torch = pytest.importorskip("torch")
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=32, **shape)).eval()
    documents = [PackedDocument(np.arange(3, 3 + n), np.ones(n, dtype=bool), 1.0, "lm") for n in (4, 7, 3)]
    batch = pack_batch([documents], 1, 20, pad_id=0)
    ids, positions = torch.from_numpy(batch.ids_BT), torch.from_numpy(batch.position_ids_BT)
    with torch.no_grad():
        packed = model(ids, position_ids=positions, use_cache=False).logits[0]
        start = 0
        for document in documents:
            alone = model(torch.from_numpy(document.ids)[None], use_cache=False).logits[0]
            torch.testing.assert_close(packed[start : start + len(alone)], alone, atol=2e-6, rtol=1e-5)
            start += len(alone)


@pytest.mark.parametrize(
    ("global_rows", "micro", "world", "expected"),
    [(6, 3, 1, 6), (6, 3, 2, 3), (6, 3, 3, 3), (8, 2, 3, 4), (1, 1, 4, 1)],
)
def test_every_rank_computes_the_same_number_of_rows(global_rows: int, micro: int, world: int, expected: int) -> None:
    assert rows_per_rank(global_rows, micro, world) == expected
