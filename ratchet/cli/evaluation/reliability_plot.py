"""The reliability diagram of a calibration: stated probability against the share of right answers, with 95 % intervals."""

from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from ratchet.cli.evaluation.plot import FAINT, INK, PNG_DPI
from ratchet.contracts.calibration import AnswerCalibration

INCHES = (4.4, 4.4)
COLOUR = "#d1495b"


def draw_reliability(calibration: AnswerCalibration, path: Path) -> None:
    """Write the file; its suffix says the format (png, svg). Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "ratchet"}):
        metadata = {"Date": None, "Creator": None} if path.suffix == ".svg" else None
        _figure(calibration).savefig(path, format=path.suffix.removeprefix("."), metadata=metadata)


def _figure(calibration: AnswerCalibration) -> Figure:
    figure = Figure(INCHES, dpi=PNG_DPI, layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    bins = calibration.reliability.bins
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=0.9, linestyle=(0, (3, 3)))
    axes.vlines(
        [each.predicted for each in bins],
        [each.ci95[0] for each in bins],
        [each.ci95[1] for each in bins],
        color=COLOUR,
        linewidth=1.2,
        alpha=0.6,
    )
    axes.plot(
        [each.predicted for each in bins],
        [each.share for each in bins],
        color=COLOUR,
        marker="o",
        markersize=4.5,
    )
    axes.axvline(calibration.min_confidence, color=FAINT, linewidth=0.9)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_xlabel("stated probability (line: counts as solved)", color=INK)
    axes.set_ylabel("share of right answers", color=INK)
    axes.set_title(
        f"{calibration.policy}\n{calibration.prm}\nECE {calibration.reliability.ece:.3f}, n = {calibration.reliability.n}",
        color=INK,
        fontsize=8,
        loc="left",
        parse_math=False,
    )
    axes.grid(color=FAINT, alpha=0.25, linewidth=0.7)
    axes.tick_params(colors=FAINT, labelcolor=INK, labelsize=9)
    return figure
