"""Pictures of a report, each as a data URL that an <img> shows with nothing beside it."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")  # no display: reports are made on servers

import numpy as np
from matplotlib.figure import Figure
from scipy.signal import stft

from data.timing import seconds_to_samples

matplotlib.rcParams["svg.hashsalt"] = "antiphon"  # ids inside an SVG repeat from run to run
INK, ACCENT, SECOND = "#334155", "#0f766e", "#b45309"
WINDOW_S, HOP_S, FLOOR_DB, TOP_HZ = 0.025, 0.010, -70.0, 8000.0


def audio_url(wav: bytes) -> str:
    """A WAV file as a data URL."""
    return "data:audio/wav;base64," + base64.b64encode(wav).decode()


def spectrogram(wave: np.ndarray, sample_rate: int) -> str | None:
    """A log-power spectrogram (JPEG) of a mono wave; None where it is shorter than one 25 ms window."""
    window, hop = seconds_to_samples(WINDOW_S, sample_rate), seconds_to_samples(HOP_S, sample_rate)
    if len(wave) < window:
        return None
    _, _, spectrum_FT = stft(wave, sample_rate, nperseg=window, noverlap=window - hop, nfft=512, padded=False)
    power_FT = 20 * np.log10(np.abs(spectrum_FT) + 1e-6)
    figure = Figure(figsize=(3.0, 1.0), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(power_FT, origin="lower", aspect="auto", cmap="magma", vmin=power_FT.max() + FLOOR_DB)
    axes.set_ylim(0, power_FT.shape[0] * min(1.0, TOP_HZ / (sample_rate / 2)))
    axes.axis("off")
    return _jpeg(figure)


def loss_curves(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """Training loss over steps with the phases marked (SVG), from rows {step, phase, loss}; None without rows."""
    points = [(row["step"], row["loss"], row.get("phase", "")) for row in rows if row.get("loss") is not None]
    if not points:
        return None
    figure = Figure(figsize=(7, 2.8))
    axes = figure.add_subplot()
    steps = np.array([step for step, _, _ in points])
    losses = np.array([loss for _, loss, _ in points])
    axes.plot(steps, losses, color=ACCENT, alpha=0.25, linewidth=0.8)
    starts = [i for i, point in enumerate(points) if i == 0 or point[2] != points[i - 1][2]]
    for number, (start, end) in enumerate(zip(starts, [*starts[1:], len(points)], strict=True)):
        axes.plot(steps[start:end], _smooth(losses[start:end]), color=ACCENT, linewidth=1.6)
        axes.axvline(steps[start], color=SECOND, linewidth=0.8, linestyle=":")
        label = str(points[start][2]).replace("_", " ")
        axes.annotate(
            label,
            (steps[start], 1.02 + 0.07 * (number % 2)),
            xycoords=("data", "axes fraction"),
            fontsize=8,
            color=SECOND,
        )
    axes.set_xlabel("step")
    axes.set_ylabel("loss per target token")
    _plain(axes)
    return _svg(figure)


def interval_chart(metrics: Mapping[str, Mapping[str, Any]], label: str) -> str | None:
    """Rates with their intervals in percent, one line each (SVG); None without metrics."""
    if not metrics:
        return None
    names = list(metrics)[::-1]
    figure = Figure(figsize=(7, 0.7 + 0.26 * len(names)))
    axes = figure.add_subplot()
    for row, name in enumerate(names):
        metric = metrics[name]
        low, high = metric["ci95"] or (metric["value"], metric["value"])
        axes.plot([low, high], [row, row], color=ACCENT, linewidth=2.5, alpha=0.45, solid_capstyle="round")
        axes.plot(metric["value"], row, "o", color=ACCENT, markersize=4.5)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_xlabel(label)
    axes.set_xlim(left=0.0)
    axes.xaxis.set_major_formatter(lambda rate, _: f"{100 * rate:.3g} %")
    _plain(axes)
    return _svg(figure)


def tune_chart(trials: Sequence[Mapping[str, Any]]) -> str | None:
    """Trials of the mixture search (SVG) in the order given: stacked weights, objectives, steps before stopping.

    Rows are {weights, objective, step}; None without any.
    """
    done = [trial for trial in trials if trial.get("objective") is not None]
    if not done:
        return None
    groups = list(done[0]["weights"])
    figure = Figure(figsize=(7, 0.9 + 0.32 * len(done)))
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    offsets = np.zeros(len(done))
    shades = ("#0f766e", "#5eb5a6", "#d9a441", "#b45309", "#64748b", "#94a3b8")
    rows = np.arange(len(done))[::-1]
    for index, group in enumerate(groups):
        widths = np.array([float(trial["weights"].get(group, 0.0)) for trial in done])
        left.barh(rows, widths, left=offsets, color=shades[index % len(shades)], label=group, height=0.7)
        offsets += widths
    left.set_yticks(
        rows, [f"{trial['step']} steps" if "step" in trial else str(n) for n, trial in enumerate(done)], fontsize=8
    )
    left.set_xlabel("mixture weight")
    left.legend(ncols=len(groups), fontsize=7, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    right.plot([float(trial["objective"]) for trial in done], rows, "o", color=ACCENT, markersize=5)
    right.set_xlabel("loss relative to the uniform mixture")
    for axes in (left, right):
        _plain(axes)
    return _svg(figure)


def _smooth(values: np.ndarray, weight: float = 0.95) -> np.ndarray:
    """Exponential moving average without the bias of its start."""
    average, scale, smoothed = 0.0, 0.0, []
    for value in values:
        average, scale = weight * average + (1 - weight) * float(value), weight * scale + 1 - weight
        smoothed.append(average / scale)
    return np.array(smoothed)


def _plain(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#94a3b8")
    axes.tick_params(colors=INK, labelsize=8)
    axes.xaxis.label.set_size(8)
    axes.yaxis.label.set_size(8)
    axes.grid(axis="x", color="#e2e8f0", linewidth=0.6)
    axes.set_axisbelow(True)


def _jpeg(figure: Figure) -> str:
    """A tenth of a PNG's size for the noise that spectrograms are full of."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="jpeg", pil_kwargs={"quality": 75})
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _svg(figure: Figure) -> str:
    figure.set_layout_engine("tight")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()
