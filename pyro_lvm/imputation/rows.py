"""Imputation of long tables: some rows at a time, and only those with holes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm  # type: ignore[import-untyped, unused-ignore]

from pyro_lvm.diagnostics import Imputations, impute
from pyro_lvm.missing import BinaryColumn, Schema

__all__ = ["best_of", "by_rows"]


def by_rows(
    model: Any,
    guide: Callable[..., Any],
    x: Tensor,
    *,
    num_samples: int,
    num_particles: int,
    method: Any,
    chunk_size: int,
    progress: bool = False,
) -> Imputations:
    """Imputations of a table's independent rows, kept on the CPU.

    Memory beside that of the result does not depend on the number of rows.

    Args:
        model: a module on data with NaN, called as ``model(rows)``.
        guide: likewise.
        x: ``(N, D)``, NaN where missing.
        num_samples: M.
        num_particles: draws of the guide for each row.
        method: of :func:`~pyro_lvm.impute`.
        chunk_size: rows at a time.
        progress: whether to show a progress bar.

    Returns:
        ``(M, N, D)`` imputations; the quality of a row without holes is NaN.
    """
    device = _device(model)
    holed = x.isnan().any(1).nonzero().flatten()
    parts = []
    with tqdm(total=len(holed), disable=not progress, unit="row") as bar:
        for rows in holed.split(chunk_size) if len(holed) else ():
            drawn = impute(
                model,
                guide,
                x[rows].to(device),
                num_samples=num_samples,
                num_particles=num_particles,
                method=method,
            )
            parts.append(drawn.cpu())
            bar.update(len(rows))
    whole = x.expand(1 if method == "mean" else num_samples, *x.shape)
    if not parts:
        return Imputations(whole, ~x.isnan())
    return _among(Imputations.joined(parts), whole, holed)


def best_of(values: Tensor, schema: Schema) -> Tensor:
    """The best guess ``(N, D)`` from imputations ``(M, N, D)``: means, most frequent classes."""
    is_class = [bool(c.num_classes) or isinstance(c, BinaryColumn) for c in schema.columns]
    columns = [
        drawn.mode(0).values if count else drawn.mean(0)
        for drawn, count in zip(values.unbind(-1), is_class, strict=True)
    ]
    return torch.stack(columns, -1)


def _among(imputed: Imputations, whole: Tensor, rows: Tensor) -> Imputations:
    values = whole.clone()
    values[:, rows] = imputed.values
    quality: dict[str, Any] = {
        name: of_some.new_full(whole.shape[1:2], torch.nan).index_copy(0, rows, of_some)
        for name, of_some in imputed.quality.items()
    }
    return replace(imputed, values=values, observed=~whole[0].isnan(), **quality)


def _device(model: Any) -> torch.device:
    parameter = next(iter(model.parameters()), None) if isinstance(model, nn.Module) else None
    return torch.device("cpu") if parameter is None else parameter.device
