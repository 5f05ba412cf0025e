"""``python -m lightning_synther fidelity``: compare two stores (or SynthER's NPZ files), print a table, draw plots."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning_synther.allocator import keep_freed_memory
from lightning_synther.data.store import TransitionStore, describe
from lightning_synther.data.synther_npz import import_npz
from lightning_synther.diffusion.statistics import ColumnStatistics
from lightning_synther.envs.config import EnvConfig
from lightning_synther.errors import ConfigError, DataError
from lightning_synther.synthesis import fidelity as measures
from lightning_synther.synthesis.figures import fidelity_figure, novelty_figure
from lightning_synther.synthesis.overview import pca_figure, reward_figure
from lightning_synther.synthesis.simulation import NUM_STEPS, simulator_errors
from lightning_synther.synthesis.subsample import subsample, unit

#: Lines of the table: a score, and what it says.
LINES = {
    "ks_mean": "marginals: Kolmogorov-Smirnov, mean over columns",
    "ks_max": "marginals: Kolmogorov-Smirnov, worst column",
    "ks_observation": "  observation",
    "ks_action": "  action",
    "ks_reward": "  reward",
    "ks_next_observation": "  next observation",
    "ks_terminal": "  terminal",
    "correlation_error": "correlations: mean absolute difference",
    "sliced_wasserstein": "joint distribution: sliced Wasserstein distance",
    "dynamics_error": "one-step predictor: error of reward and next observation",
    "reward_error": "one-step predictor: error of the reward",
    "simulator_dynamics_error": "simulator: error of the next state",
    "simulator_reward_error": "simulator: error of the reward",
    "simulator_state_error": "simulator: distance of the state from one that exists",
    "simulator_diverged": "simulator: share of steps that diverge",
    "nearest": "distance to the closest training record, median",
    "memorised": "share closer to one than 99 % of held-out records",
    "unsupported": "share farther from one than 99 % of held-out records",
    "out_of_range": "share outside the training data's range",
    "action_beyond_1": "share with an action outside [-1, 1]",
}

#: How many synthetic records stand behind a line, by the name in `Fidelity.counts`; all where none is said.
ROWS = {
    "sliced_wasserstein": "sliced_wasserstein",
    "dynamics_error": "dynamics",
    "reward_error": "dynamics",
    **{name: "simulator" for name in LINES if name.startswith("simulator_")},
    **dict.fromkeys(("nearest", "memorised", "unsupported"), "nearest_queries"),
}

#: Pictures beside the table.
PLOTS = {"marginals": fidelity_figure, "pca": pca_figure, "reward": reward_figure}


def fidelity(
    real: str,
    synthetic: str,
    heldout: str | None = None,
    plot: str | None = None,
    task: str | None = None,
    action_repeat: int = 2,
    max_rows: int = measures.MAX_ROWS,
    seed: int = 0,
) -> None:
    """Compare synthetic transitions with the real ones that their model was trained on.

    Prints a table of scores, each beside what real held-out records score and the number of synthetic records
    that it is taken from: the slower ones read a part, chosen by seed. A million records take seconds.

    Args:
        real: store of the training transitions, or an NPZ file of SynthER's layout.
        synthetic: store (or NPZ file) of synthetic transitions.
        heldout: store (or NPZ file) of real transitions that were not trained on; novelty, memorisation and the
            floor of every score need it.
        plot: folder for marginals.png, pca.png, reward.png, novelty.png and fidelity.json.
        task: for states, the dm_control task: also compare with the simulator itself, set to each state.
        action_repeat: control steps per action, with task.
        max_rows: rows read of each, at most.
        seed: of subsamples and projections.
    """
    keep_freed_memory()
    with ExitStack() as stack:
        stores = _open(stack, real=real, synthetic=synthetic, heldout=heldout)
        store, made, other = stores["real"], stores["synthetic"], stores.get("heldout")
        result = measures.fidelity(
            store.rows, made.rows, None if other is None else other.rows, store.spec, max_rows, seed
        )
        scores, counts = dict(result.scores), dict(result.counts)
        if task is not None:
            scores |= _simulate(
                stores, EnvConfig(task, "states", action_repeat=action_repeat), max_rows, seed
            )
            counts["simulator"] = min(counts["synthetic"], NUM_STEPS)
        print(table(scores, counts))
        if plot is not None:
            folder = Path(plot)
            folder.mkdir(parents=True, exist_ok=True)
            reference = store if other is None else other
            for name, draw in PLOTS.items():
                draw(reference.rows, made.rows, store.spec, seed=seed).savefig(folder / f"{name}.png")
            if result.novelty is not None:
                novelty_figure(result.novelty).savefig(folder / "novelty.png")
            text = json.dumps({"scores": scores, "counts": counts}, indent=2)
            (folder / "fidelity.json").write_text(text + "\n")
            print(f"plots and fidelity.json in {folder}")


def table(scores: Mapping[str, float], counts: Mapping[str, int]) -> str:
    """The scores as lines, each with its floor, and what stands behind them."""
    width = max(map(len, LINES.values()))
    against = "held-out" if counts["heldout"] else "training"
    lines = [f"{f'synthetic against {against} records':<{width}}  synthetic     real     rows"]
    for name, words in LINES.items():
        if name in scores:
            floor = scores.get(f"{name}_floor")
            said = "" if floor is None else f"{floor:.4f}"
            rows = counts[ROWS.get(name, "synthetic")]
            lines.append(f"{words:<{width}}  {scores[name]:9.4f}  {said:>7}  {rows:>7}")
    lines.append(
        f"{counts['synthetic']} synthetic, {counts['training']} training and {counts['heldout']} held-out records; "
        f"rows: synthetic ones behind a line; nearest neighbours among {counts['nearest_candidates']} of training"
    )
    if not counts["heldout"]:
        lines.append("no held-out records, so no floors, novelty or memorisation: give --heldout")
    return "\n".join(lines)


def _open(stack: ExitStack, **paths: str | None) -> dict[str, TransitionStore]:
    """The stores at ``paths``, NPZ files imported to a temporary one; all of one size of record."""
    stores: dict[str, TransitionStore] = {}
    given = {name: Path(path) for name, path in paths.items() if path is not None}
    for name, path in sorted(given.items(), key=lambda item: item[1].suffix == ".npz"):  # stores say the spec
        like = next(iter(stores.values())).spec if stores else None
        if path.suffix == ".npz":
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            settings: dict[str, Any] = (
                {} if like is None else {"discount": like.discount, "terminal": like.terminal}
            )
            stores[name] = import_npz(path, folder / "store", **settings)
        else:
            stores[name] = TransitionStore.open(path)
        found = stores[name].spec
        if like is not None and replace(found, discount=like.discount) != like:
            raise DataError(
                f"{path} has {describe(found)}, the other records have {describe(like)}: compare like with like"
            )
    return stores


def _simulate(
    stores: Mapping[str, TransitionStore], env: EnvConfig, max_rows: int, seed: int
) -> dict[str, float]:
    """Errors against the simulator of synthetic records, and as floor those of real ones."""
    real = stores["real"]
    steps = int(real.metadata.extra.get("n_step", 1))
    if steps != 1:
        raise ConfigError(
            f"the records of {real.path} span {steps} steps, whose actions in between they do not hold: "
            "leave task out, or make the store with n_step 1"
        )
    scale = unit(ColumnStatistics.of(real.rows[:max_rows]).std)
    scores: dict[str, float] = {}
    for name, suffix in (("synthetic", ""), ("heldout" if "heldout" in stores else "real", "_floor")):
        store = stores[name]
        rows = subsample(store.rows, min(len(store), max_rows, NUM_STEPS), store.spec, seed)
        errors = simulator_errors(rows, store.spec, env, scale, seed=seed)
        scores |= {f"{score}{suffix}": value for score, value in errors.items()}
    return scores
