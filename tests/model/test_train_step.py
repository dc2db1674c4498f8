"""The loss of packed rows: against documents one by one, in float64."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from data.errors import InputError
from model.attention import document_arguments, set_attention
from model.packed_attention import NAME, layout_documents, register
from model.train_step import IGNORED, StepLoss, TensorBatch, compute_loss, target_weight
from tests.model.tiny_training import global_batch, share, tiny_model


def _documents(batch: TensorBatch) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """(ids, labels, weights) of each packed document."""
    found = []
    for row in range(batch.ids_BT.shape[0]):
        starts = [*(batch.position_ids_BT[row] == 0).nonzero().flatten().tolist(), batch.ids_BT.shape[1]]
        found += [
            tuple(tensor[row, start:stop] for tensor in (batch.ids_BT, batch.labels_BT, batch.weights_BT))
            for start, stop in itertools.pairwise(starts)
        ]
    return found


def _one_by_one(model: torch.nn.Module, batch: TensorBatch) -> torch.Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for ids_T, labels_T, weights_T in _documents(batch):
        if len(ids_T) > 1:
            logits_TV = model(input_ids=ids_T[None], use_cache=False).logits[0, :-1]
            losses_T = F.cross_entropy(logits_TV, labels_T[1:], reduction="none", ignore_index=IGNORED)
            total = total + (losses_T * weights_T[1:]).sum()
    return total


@pytest.mark.parametrize("attention", ["sdpa", "eager", NAME])
@pytest.mark.parametrize("lora", [False, True])
def test_the_loss_and_its_gradient_equal_documents_one_by_one_in_float64(attention: str, lora: bool) -> None:
    batch = global_batch(3)
    model = tiny_model(lora=lora)
    reference = tiny_model(lora=lora).double()
    _one_by_one(reference, batch).div(target_weight(batch)).backward()
    register()
    (model.get_base_model() if lora else model).set_attn_implementation(attention)
    loss = compute_loss(model, batch, target_weight(batch).float())
    loss.backward()
    expected = _one_by_one(reference, batch) / target_weight(batch)
    assert torch.allclose(loss.double(), expected, atol=1e-6)
    gradients = {name: p.grad for name, p in reference.named_parameters() if p.grad is not None}
    assert gradients
    for name, parameter in model.named_parameters():
        if name in gradients:
            assert torch.allclose(parameter.grad.double(), gradients[name], atol=1e-6), name


def test_shares_of_a_batch_add_up_to_its_loss() -> None:
    batch, model = global_batch(1), StepLoss(tiny_model())
    total = target_weight(batch).float()
    whole, _ = model(batch, total)
    parts = [model(share(batch, rank, 3).rows(start, start + 1), total)[0] for rank in range(3) for start in range(2)]
    assert torch.allclose(torch.stack(parts).sum(), whole, atol=1e-6)


def test_a_document_does_not_hear_its_neighbours() -> None:
    model, batch = StepLoss(tiny_model()), global_batch(2)
    lm, layout = model.lm, layout_documents(batch.position_ids_BT)
    changed = batch.ids_BT.clone()
    second = int((batch.position_ids_BT[0, 1:] == 0).nonzero()[0]) + 1
    changed[0, :second] = 5

    def states(ids_BT: torch.Tensor) -> torch.Tensor:
        arguments = {"position_ids": batch.position_ids_BT, "use_cache": False, "documents": layout}
        return lm.get_decoder()(input_ids=ids_BT, **arguments).last_hidden_state[0, second:]

    assert torch.equal(states(batch.ids_BT), states(changed))


def test_the_layout_puts_every_token_at_its_own_place() -> None:
    for step in range(20):
        position_ids_BT = global_batch(step).position_ids_BT
        layout = layout_documents(position_ids_BT)
        assert torch.equal(layout.source_N[layout.place_BT], torch.arange(position_ids_BT.numel()))
        assert len(set(layout.place_BT.tolist())) == position_ids_BT.numel()
        assert sum(count * longest for count, longest in layout.groups) == len(layout.source_N)
        offset = 0
        for count, longest in layout.groups:
            places_GL = layout.source_N[offset : offset + count * longest].view(count, longest)
            assert (position_ids_BT.flatten()[places_GL[:, 0]] == 0).all()
            offset += count * longest


def test_rows_without_targets_give_zero_and_reach_every_weight() -> None:
    batch, model = global_batch(0), StepLoss(tiny_model())
    empty = TensorBatch(
        batch.ids_BT, torch.full_like(batch.labels_BT, IGNORED), batch.position_ids_BT, batch.weights_BT
    )
    loss, _ = model(empty, torch.tensor(1.0))
    loss.backward()
    assert loss.item() == 0
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in model.parameters())


def test_autocast_stays_near_float32() -> None:
    batch = global_batch(4)
    total = target_weight(batch).float()
    exact, rounded = (StepLoss(tiny_model(), autocast)(batch, total)[0] for autocast in (False, True))
    assert rounded.dtype == torch.float32
    assert torch.allclose(exact, rounded, rtol=2e-2)


def test_an_attention_that_would_mix_documents_is_refused() -> None:
    model = tiny_model()
    model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(InputError, match="does not separate"):
        compute_loss(model, global_batch(0), 1.0)


@pytest.mark.parametrize("attention", ["packed", "sdpa", "eager"])
@pytest.mark.parametrize("silent", [{}, {"use_cache": True}, {"use_cache": False, "attention_mask": torch.ones(1)}])
def test_the_two_silent_ways_to_mix_documents_are_refused(attention: str, silent: dict) -> None:
    lm, batch = tiny_model().eval(), global_batch(2)
    arguments = {"input_ids": batch.ids_BT, "position_ids": batch.position_ids_BT}
    if "attention_mask" in silent:
        silent = {**silent, "attention_mask": torch.ones_like(batch.ids_BT)}
    lm.set_attn_implementation("sdpa")
    apart = lm.get_decoder()(**arguments, use_cache=False).last_hidden_state
    mixed = lm.get_decoder()(**arguments, **silent).last_hidden_state
    assert (mixed - apart).abs().max() > 0.1  # what is refused: nothing else would say so
    set_attention(lm, attention)
    with pytest.raises(ValueError, match="documents attend to each other"):
        lm.get_decoder()(**arguments, **document_arguments(lm, batch.position_ids_BT), **silent)


def test_a_row_that_begins_with_a_document_of_one_token_is_one_of_several() -> None:
    lm, batch = tiny_model().eval(), global_batch(2)
    set_attention(lm, "sdpa")
    positions = torch.tensor([[0, 0, 1, 2]])
    with pytest.raises(ValueError, match="documents attend to each other"):
        lm.get_decoder()(input_ids=batch.ids_BT[:1, :4], position_ids=positions)


def test_rows_of_one_document_may_have_a_cache_or_a_mask() -> None:
    lm, batch = tiny_model().eval(), global_batch(2)
    set_attention(lm, "sdpa")
    positions = torch.arange(batch.ids_BT.shape[1])[None].expand_as(batch.ids_BT)
    plain = lm.get_decoder()(input_ids=batch.ids_BT, position_ids=positions, use_cache=False).last_hidden_state
    cached = lm.get_decoder()(
        input_ids=batch.ids_BT, position_ids=positions, attention_mask=torch.ones_like(batch.ids_BT)
    ).last_hidden_state
    assert torch.allclose(plain, cached, atol=1e-6)
