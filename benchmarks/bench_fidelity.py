"""`fidelity` of a million records, and its measures against the straightforward scipy and numpy computation.

Synthetic, held-out and training rows are normals of slightly different scale in memory-mapped stores. First the whole
command, in a process of its own, whose CPU seconds include the start and whose peak memory includes the mapped files.
Then each measure beside its plain version in one process, in turn, on the same rows (the
largest difference of the results is in the record; that of Wasserstein is of fewer directions):
`scipy.stats.ks_2samp` of every column, `numpy.corrcoef`,
`scipy.stats.wasserstein_distance` along every direction, `scipy.spatial.distance.cdist`. Columns and directions cost
the same, so that the plain versions of KS and Wasserstein are run on `--part` of them and scaled.

    python benchmarks/bench_fidelity.py
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from report import interleaved, save, table
from scipy.spatial.distance import cdist
from scipy.stats import ks_2samp, wasserstein_distance

from lightning_synther.data.store import TransitionStore
from lightning_synther.data.store_writer import StoreWriter
from lightning_synther.seeding import derive_seed
from lightning_synther.synthesis import joint, novelty
from lightning_synther.synthesis.joint import correlations, sliced_wassersteins
from lightning_synther.synthesis.marginals import ks_statistics
from lightning_synther.synthesis.novelty import nearest_distances
from lightning_synther.synthesis.subsample import thin
from lightning_synther.transition import TransitionSpec

SPEC = TransitionSpec(observation_dim=46, action_dim=6, discount=0.99)  # 99 numbers
PAIRS = ((0, 1), (2, 1), (0, 2))  # of synthetic, held-out and training rows
CHUNK = 50_000


def write(path: Path, num_rows: int, number: int) -> TransitionStore:
    """A store of normals; the synthetic ones are 5 % wider."""
    scale = np.float32(1.05 if number == 0 else 1.0)
    settings: dict[str, Any] = {"seed": number, "producer": "bench_fidelity", "fingerprint": ""}
    with StoreWriter(path, SPEC, num_rows, chunk_size=CHUNK, **settings) as writer:
        for chunk, start in enumerate(range(0, num_rows, CHUNK)):
            shape = (min(CHUNK, num_rows - start), SPEC.dim)
            generator = np.random.default_rng([number, chunk])
            writer.write(chunk, scale * generator.standard_normal(shape, dtype=np.float32))
        return writer.commit()


def whole(stores: list[TransitionStore], num_rows: int) -> dict[str, float]:
    """Seconds and peak memory of the command, once to warm the file cache and once to count."""
    synthetic, heldout, real = (store.path for store in stores)
    command = [sys.executable, "-m", "lightning_synther", "fidelity", f"--real={real}"]
    command += [f"--synthetic={synthetic}", f"--heldout={heldout}", f"--max_rows={num_rows}"]
    used = []
    for _ in range(2):
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        used.append({"cpu_s": cpu, "wall_s": wall, "peak_gb": after.ru_maxrss * 1024 / 1e9})
    return used[-1]


def plain_ks(samples: list[np.ndarray], part: int) -> np.ndarray:
    """Every comparison by itself, of the first ``part`` columns."""
    return np.array(
        [[ks_2samp(samples[a][:, c], samples[b][:, c]).statistic for c in range(part)] for a, b in PAIRS]
    )


def plain_sliced(samples: list[np.ndarray], part: int) -> np.ndarray:
    """Mean distance along the first ``part`` directions."""
    generator = torch.Generator().manual_seed(derive_seed(0, "projections"))
    directions = torch.randn(SPEC.dim, joint.NUM_PROJECTIONS, generator=generator)
    lines = (directions / directions.norm(dim=0)).numpy()[:, :part].T
    distances = [
        [wasserstein_distance(samples[a] @ line, samples[b] @ line) for line in lines] for a, b in PAIRS
    ]
    return np.array(distances).mean(axis=1)


def plain_nearest(queries: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """By all distances, 20,000 candidates at a time."""
    blocks = [candidates[start : start + 20_000] for start in range(0, len(candidates), 20_000)]
    return np.min([cdist(queries, block).min(axis=1) for block in blocks], axis=0) / SPEC.dim**0.5


def measures(stores: list[TransitionStore], part: int, repeats: int) -> dict[str, dict[str, float]]:
    """CPU seconds of each measure and of its plain version, and the largest difference of their results."""
    rows = [store.mapped for store in stores]
    some = [thin(part_of, joint.MAX_PROJECTED, 0) for part_of in rows]
    queries, candidates = thin(rows[0], novelty.NUM_QUERIES, 0), thin(rows[2], novelty.NUM_CANDIDATES, 0)
    arrays, lines = [part_of.numpy() for part_of in rows], [part_of.numpy() for part_of in some]
    arms: dict[str, tuple[Callable[[], Any], Callable[[], Any], float]] = {
        "Kolmogorov-Smirnov": (
            lambda: ks_statistics(rows, PAIRS)[:, :part].numpy(),
            lambda: plain_ks(arrays, part),
            SPEC.dim / part,
        ),
        "correlations": (
            lambda: np.array([correlations(part_of).numpy() for part_of in rows]),
            lambda: np.array([np.corrcoef(part_of.T) for part_of in arrays]),
            1.0,
        ),
        "sliced Wasserstein": (
            lambda: np.array(sliced_wassersteins(some, PAIRS)),
            lambda: plain_sliced(lines, part),
            joint.NUM_PROJECTIONS / part,
        ),
        "nearest neighbours": (
            lambda: nearest_distances(queries, candidates).numpy(),
            lambda: plain_nearest(queries.numpy(), candidates.numpy()),
            1.0,
        ),
    }
    result = {}
    for name, (ours, plain, scale) in arms.items():
        kept: dict[str, Any] = {}
        taken = interleaved(
            {
                "ours": lambda ours=ours, kept=kept: kept.update(ours=ours()),
                "plain": lambda plain=plain, kept=kept: kept.update(plain=plain()),
            },
            repeats,
        )
        ours_s, plain_s = taken["ours"]["cpu_s"], scale * taken["plain"]["cpu_s"]
        difference = float(np.abs(kept["ours"] - kept["plain"]).max())
        result[name] = {
            "ours_s": ours_s,
            "plain_s": plain_s,
            "ratio": plain_s / ours_s,
            "difference": difference,
        }
        print(name, result[name], flush=True)
    return result


def main() -> None:
    """Run, write ``results/fidelity.json``, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000, help="synthetic, and real; a tenth held out")
    parser.add_argument("--part", type=int, default=4, help="columns and directions of the plain versions")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    os.environ["OMP_NUM_THREADS"] = str(args.threads)  # of the command's own process
    with tempfile.TemporaryDirectory() as folder:
        counts = (args.rows, args.rows // 10, args.rows)
        stores = [write(Path(folder) / str(k), count, k) for k, count in enumerate(counts)]
        command = whole(stores, args.rows)
        print("command", command, flush=True)
        found = measures(stores, args.part, args.repeats)
    path = save(
        "fidelity",
        {"settings": vars(args), "columns": SPEC.dim, "command": command, "measures": found},
        "torch",
        "numpy",
        "scipy",
    )
    lines = [["measure", "ours", "plain", "ratio"]]
    lines += [
        [n, f"{m['ours_s']:.2f} s", f"{m['plain_s']:.1f} s", f"{m['ratio']:.1f}x"] for n, m in found.items()
    ]
    print(f"{table(lines)}\n\ncommand: {command}\n{path}")


if __name__ == "__main__":
    main()
