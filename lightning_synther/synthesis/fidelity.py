"""How faithful synthetic transitions are: every number beside the one that real data score against real data.

Rows are compared column by column (Kolmogorov-Smirnov), in pairs of columns (correlations), along random
directions (sliced Wasserstein), and by the relation that an agent learns from: reward and next observation
given observation and action. Marginals alone mislead, as samplers with few steps keep them and lose that
relation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lightning_synther.bounds import check_counts
from lightning_synther.diffusion.statistics import ColumnStatistics
from lightning_synther.synthesis import dynamics, joint, novelty
from lightning_synther.synthesis.dynamics import Dynamics
from lightning_synther.synthesis.joint import correlation_difference, correlations, sliced_wassersteins
from lightning_synther.synthesis.marginals import ks_statistics
from lightning_synther.synthesis.novelty import Novelty, nearest_distances
from lightning_synther.synthesis.subsample import Rows, Units, subsample, thin
from lightning_synther.synthesis.support import Support, support_scores
from lightning_synther.transition import TransitionSpec

MAX_ROWS = 1_000_000
#: What is compared, by the ending of a score's name: the numbers of two of synthetic, held-out and training rows.
PAIRS = {"": (0, 1), "_floor": (2, 1), "_train": (0, 2)}


@dataclass(frozen=True)
class Fidelity:
    """Result of `fidelity`.

    ``scores`` by name; lower is better unless said otherwise. A name alone compares synthetic with held-out rows,
    ``<name>_floor`` compares the real training rows with held-out ones in equal numbers (what a perfect generator
    would score), and ``<name>_train`` synthetic with training rows, which a small held-out set does not blur:

    * ``ks_mean``, ``ks_max``, ``ks_<field>``: two-sample Kolmogorov-Smirnov statistic over columns, in [0, 1];
    * ``correlation_error``: mean absolute difference of the correlations of two different columns;
    * ``sliced_wasserstein``: mean Wasserstein-1 distance along random directions, in standard deviations, of at
      most `joint.MAX_PROJECTED` rows of each;
    * ``dynamics_error``, ``reward_error``: RMSE, in standard deviations, of reward and next observation together,
      and of the reward alone, as predicted from observation and action by a regression that is fitted on the
      training rows (no ``_train``); on at most `dynamics.MAX_ROWS` rows of each;
    * ``out_of_range``, ``action_beyond_1``: shares of records outside the training data's range (`Support`) and
      with an action outside [-1, 1] (no ``_train``);
    * ``nearest``, ``memorised``, ``unsupported``: distances of at most `novelty.NUM_QUERIES` records to the
      closest of at most `novelty.NUM_CANDIDATES` training records (`Novelty`); their ``_floor`` is what they
      should equal. Only with held-out rows.

    What names no number of rows reads all of them. Where there are more than that number, ``seed`` chooses.

    ``ks`` holds the statistic of every column of a field, synthetic against held-out rows; ``counts`` how many rows
    stand behind the figures; ``novelty`` the distances themselves.
    """

    scores: dict[str, float]
    ks: dict[str, NDArray[np.float64]]
    counts: dict[str, int]
    novelty: Novelty | None


def fidelity(
    real: Rows,
    synthetic: Rows,
    heldout: Rows | None,
    spec: TransitionSpec,
    max_rows: int = MAX_ROWS,
    seed: int = 0,
) -> Fidelity:
    """Compare rows (N, D): the ``real`` ones trained on, ``synthetic`` ones, and ``heldout`` real ones.

    At most ``max_rows`` of each are read, and not more synthetic than real ones, chosen by ``seed`` alone; memory
    maps are read in place. Without held-out rows the training rows stand in for them, which flatters a model that
    memorises: then there are neither floors nor `Novelty`.

    A million rows of a hundred numbers take about 7 seconds of one core (`benchmarks/bench_fidelity.py`).

    Raises `ConfigError` for ``max_rows`` below two, `DataError` for rows of another spec, with values that are not
    finite, or fewer than two.

    >>> import torch
    >>> spec = TransitionSpec(observation_dim=3, action_dim=1, discount=0.99)
    >>> normals = torch.randn(3, 1000, spec.dim, generator=torch.Generator().manual_seed(0))
    >>> real, heldout, synthetic = normals[0], normals[1], 1.5 * normals[2]
    >>> result = fidelity(real, synthetic, heldout, spec)
    >>> result.scores["ks_mean"] > 2 * result.scores["ks_mean_floor"]
    True
    """
    check_counts("", least=2, max_rows=max_rows)
    train = subsample(real, min(max_rows, len(real)), spec, seed)
    fake = subsample(synthetic, min(len(train), len(synthetic)), spec, seed)
    held = train if heldout is None else subsample(heldout, min(max_rows, len(heldout)), spec, seed)
    counts = {"synthetic": len(fake), "training": len(train), "heldout": 0 if heldout is None else len(held)}
    statistics = ColumnStatistics.of(train.numpy())
    units = Units.of(statistics)
    samples = [fake, held] if heldout is None else [fake, held, thin(train, len(fake), seed)]
    columns, scores = _distances(samples, units, spec, seed)
    scores |= support_scores(Support.of(statistics, spec), fake, held, spec)
    scores |= _dynamics(train, fake, held, units, spec, seed)
    distances = None
    if heldout is None:
        scores = {name: score for name, score in scores.items() if not name.endswith("_floor")}
    else:
        candidates = units(thin(train, novelty.NUM_CANDIDATES, seed))
        queries = (units(thin(rows, novelty.NUM_QUERIES, seed)) for rows in (fake, held))
        distances = Novelty(*(nearest_distances(rows, candidates) for rows in queries))
        scores |= distances.scores()
    by_field = {name: columns[part].numpy() for name, part in spec.fields.items()}
    return Fidelity(scores, by_field, counts | _subsamples(counts), distances)


def _distances(
    samples: list[Tensor], units: Units, spec: TransitionSpec, seed: int
) -> tuple[Tensor, dict[str, float]]:
    """KS (D,) of the first two ``samples``, and the scores of all `PAIRS` that they allow."""
    pairs = {suffix: pair for suffix, pair in PAIRS.items() if max(pair) < len(samples)}
    statistics = ks_statistics(samples, list(pairs.values()))
    matrices = [correlations(rows) for rows in samples]
    some = [units(thin(rows, joint.MAX_PROJECTED, seed)) for rows in samples]
    distances = sliced_wassersteins(some, list(pairs.values()), seed)
    scores: dict[str, float] = {}
    for (suffix, (one, other)), ks, distance in zip(pairs.items(), statistics, distances, strict=True):
        scores |= {f"ks_mean{suffix}": ks.mean().item(), f"ks_max{suffix}": ks.max().item()}
        scores |= {f"ks_{name}{suffix}": ks[columns].mean().item() for name, columns in spec.fields.items()}
        scores[f"correlation_error{suffix}"] = correlation_difference(matrices[one], matrices[other])
        scores[f"sliced_wasserstein{suffix}"] = distance
    return statistics[0], scores


def _dynamics(
    train: Tensor, fake: Tensor, held: Tensor, units: Units, spec: TransitionSpec, seed: int
) -> dict[str, float]:
    """Errors of a one-step predictor that is fitted to the training rows."""
    fitted, *judged = (units(thin(rows, dynamics.MAX_ROWS, seed)) for rows in (train, fake, held))
    predictor = Dynamics(fitted, spec, seed)
    scores = {}
    for suffix, rows in zip(("", "_floor"), judged, strict=True):
        scores[f"dynamics_error{suffix}"], scores[f"reward_error{suffix}"] = predictor.errors(rows)
    return scores


def _subsamples(counts: dict[str, int]) -> dict[str, int]:
    """What those figures read that do not read all rows."""
    return {
        "sliced_wasserstein": min(counts["synthetic"], joint.MAX_PROJECTED),
        "dynamics": min(counts["synthetic"], dynamics.MAX_ROWS),
        "nearest_queries": min(counts["synthetic"], novelty.NUM_QUERIES),
        "nearest_candidates": min(counts["training"], novelty.NUM_CANDIDATES),
    }
