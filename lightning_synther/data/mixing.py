"""How a training batch is composed of real and synthetic transitions."""

from __future__ import annotations

from typing import Literal

from lightning_synther.errors import ConfigError

Mixing = Literal["alternate", "ratio", "real", "synthetic"]
"""``alternate``: whole batches, even updates real and odd ones synthetic. ``ratio``: both in every batch."""


def composition(
    update: int, batch_size: int, mixing: Mixing, ratio: float = 0.5, num_stored: int | None = None
) -> tuple[int, int]:
    """Number of real and of synthetic transitions in the batch of gradient update ``update``.

    ``ratio`` is the synthetic share with ``mixing="ratio"``, truncated to whole transitions. ``num_stored``
    is the number of synthetic transitions that exist, None for plenty: as in SynthER's online agent
    (``REDQRLPDAgent.sample_data``), a batch that would need more than exist is real altogether.

    >>> [composition(update, 256, "alternate") for update in range(2)]
    [(256, 0), (0, 256)]
    >>> composition(0, 256, "ratio", 0.25)
    (192, 64)
    """
    if not 0.0 <= ratio <= 1.0:
        raise ConfigError(f"data.ratio is {ratio}: give the synthetic share of a batch, from 0 to 1")
    shares = {"alternate": float(update % 2), "ratio": ratio, "real": 0.0, "synthetic": 1.0}
    if mixing not in shares:
        raise ConfigError(f"data.mixing is {mixing!r}: give one of {', '.join(shares)}")
    num_synthetic = int(batch_size * shares[mixing])
    if num_stored is not None and num_stored < num_synthetic:
        num_synthetic = 0
    return batch_size - num_synthetic, num_synthetic


def sources(mixing: Mixing, ratio: float = 0.5) -> tuple[bool, bool]:
    """Whether ``mixing`` needs real transitions, and whether it needs synthetic ones.

    >>> sources("ratio", 1.0)
    (False, True)
    """
    batches = [composition(update, 1 << 30, mixing, ratio) for update in range(2)]
    return any(real for real, _ in batches), any(synthetic for _, synthetic in batches)
