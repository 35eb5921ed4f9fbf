"""`gradient-flow`: norms of gradients by lag, before and after training."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from charlm_model.families.recurrent import RecurrentModel
from charlm_model.language_model import LanguageModel
from charlm_model.layers.recurrent_cells import CELLS
from charlm_training.diagnose.diagnosed_model import DiagnosedModel
from charlm_training.diagnose.diagnosis import Diagnosis
from charlm_training.diagnose.input_gradients import input_gradients
from charlm_training.diagnose.jacobians import state_gradients
from charlm_training.diagnose.windows import spread_windows
from charlm_training.report.plot import Curve, Plot

LAGS = 96
STATE_WINDOWS, INPUT_WINDOWS = 16, 64
# Below this a 32-bit gradient is mostly rounding, and no line should be fitted to it.
FLOOR = 1e-6
INPUTS = "inputs"
PHASES = ("untrained", "trained")


@dataclass(frozen=True, kw_only=True, slots=True)
class Flow:
    """One curve. `path` is hidden, cell or inputs; `norms` is by lag, 1 at lag 0."""

    name: str
    phase: str
    path: str
    norms: Sequence[float]

    @property
    def half_life(self) -> float:
        return half_life(self.norms)


def diagnose(subjects: Sequence[DiagnosedModel]) -> Diagnosis:
    """Both measurements on every model, each also with its weights before training."""
    flows = [flow for subject in subjects for flow in flows_of(subject)]
    rows = [
        {
            "model": flow.name,
            "phase": flow.phase,
            "path": flow.path,
            "lag": lag,
            "norm": f"{norm:.6g}",
            "half_life": f"{flow.half_life:.4g}",
        }
        for flow in flows
        for lag, norm in enumerate(flow.norms)
    ]
    states = [flow for flow in flows if flow.path != INPUTS]
    inputs = [flow for flow in flows if flow.path == INPUTS]
    plots = [_plot(inputs, "Last loss by token vector, relative to lag 0")]
    if states:
        plots.append(_plot(states, "State by earlier state, Frobenius norm / sqrt(H)"))
    return Diagnosis(
        name="gradient-flow", sentence=finding(flows, subjects[0]), rows=rows, plots=plots
    )


def flows_of(subject: DiagnosedModel) -> Iterator[Flow]:
    """Every path of one model, untrained and trained."""
    length = min(LAGS + 2, len(subject.validation.ids_N) // 2)
    few_BT = spread_windows(subject.validation.ids_N, STATE_WINDOWS, length)
    many_BT = spread_windows(subject.validation.ids_N, INPUT_WINDOWS, length)
    for phase, model in zip(PHASES, (subject.untrained(), subject.model), strict=True):
        yield Flow(
            name=subject.name, phase=phase, path=INPUTS, norms=input_gradients(model, many_BT)
        )
        for path in _paths(model):
            norms = state_gradients(model, few_BT[:, :-2], path)  # type: ignore[arg-type]
            yield Flow(name=subject.name, phase=phase, path=path, norms=norms)


def _paths(model: LanguageModel) -> Sequence[str]:
    return CELLS[model.config.family].state_names if isinstance(model, RecurrentModel) else ()


def half_life(norms: Sequence[float]) -> float:
    """The lag at which a fitted exponential has halved; infinite when it does not decay.

    A straight line through the logarithms, by least squares, as far as the first norm that is
    below what 32 bits tell from nothing.
    """
    logs = []
    for norm in norms[1:]:
        if not FLOOR < norm < math.inf:
            break
        logs.append(math.log(norm))
    if len(logs) < 2:
        return 1.0
    slope = float(np.polyfit(np.arange(len(logs)), logs, 1)[0])
    return math.inf if slope >= 0 else math.log(2) / -slope


def finding(flows: Sequence[Flow], subject: DiagnosedModel) -> str:
    """The half-lives after training, and what training did to the longest of them."""
    trained = [flow for flow in flows if flow.phase == PHASES[1]]
    before = {(flow.name, flow.path): flow for flow in flows if flow.phase == PHASES[0]}
    parts = [
        f"{flow.name} {flow.path} {_lag(flow.half_life)} "
        f"({_lag(before[flow.name, flow.path].half_life)} untrained)"
        for flow in trained
    ]
    return (
        f"Gradients halve every so many {subject.token_name} (exponential fitted over "
        f"{len(trained[0].norms) - 1} lags): {', '.join(parts)}."
    )


def _lag(value: float) -> str:
    return "never" if math.isinf(value) else f"{value:.1f}"


def _plot(flows: Sequence[Flow], title: str) -> Plot:
    return Plot(
        title=f"{title} (dashed: untrained)",
        x_label="lag in tokens",
        y_label="norm",
        is_log_y=True,
        curves=[
            Curve(
                name=flow.name if flow.path == INPUTS else f"{flow.name} {flow.path}",
                x=range(len(flow.norms)),
                y=[norm or math.nan for norm in flow.norms],  # 0 has no logarithm
                is_dashed=flow.phase == PHASES[0],
            )
            for flow in flows
        ],
    )
