import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from model.audio_tokenizers.finite_reach import in_pieces, reach_of

layer = st.tuples(st.integers(1, 4), st.integers(1, 3), st.booleans())  # stride, dilation, whether it looks ahead


class Convolution(nn.Module):
    """Output steps = input steps / stride, rounded up."""

    def __init__(self, stride: int, dilation: int, ahead: bool) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 3, stride, dilation=dilation)
        self.stride, self.padding, self.ahead = stride, 2 * dilation, ahead

    def forward(self, x_BCN: torch.Tensor) -> torch.Tensor:
        steps = -(-x_BCN.shape[-1] // self.stride)
        around = (0, self.padding + self.stride) if self.ahead else (self.padding, self.stride)
        return self.conv(nn.functional.pad(x_BCN, around))[..., :steps].sin()


@settings(deadline=None)
@given(st.lists(layer, min_size=1, max_size=3), st.integers(1, 400), st.integers(1, 90))
def test_pieces_of_any_length_join_to_the_whole(shapes: list, steps: int, piece: int) -> None:
    torch.manual_seed(steps)
    layers = nn.Sequential(*(Convolution(*shape) for shape in shapes)).double()
    stride = 1
    for shape in shapes:
        stride *= shape[0]
    x_BCN = torch.randn(1, 1, steps, dtype=torch.float64)
    with torch.no_grad():
        whole = layers(x_BCN)
        pieces = in_pieces(layers, x_BCN, stride, reach_of([layers]), piece)
    assert pieces.shape == whole.shape
    torch.testing.assert_close(pieces, whole, rtol=0, atol=1e-12)


def test_reach_counts_kernels_at_the_rate_they_run_at() -> None:
    layers = [nn.Conv1d(1, 1, 7), nn.Sequential(nn.Conv1d(1, 1, 4, stride=2), nn.ELU(), nn.Conv1d(1, 1, 3, dilation=5))]
    assert reach_of(layers) == 6 + 3 + 2 * 10
