"""The scikit-learn transformer that fills the holes of a table by a latent-variable model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd  # type: ignore[import-untyped]
import pyro
from sklearn.base import BaseEstimator, TransformerMixin  # type: ignore[import-untyped]
from sklearn.utils import check_random_state  # type: ignore[import-untyped]
from sklearn.utils.validation import (  # type: ignore[import-untyped]
    FLOAT_DTYPES,
    _check_feature_names_in,
    check_is_fitted,
    validate_data,
)
from torch import Tensor

from pyro_lvm.diagnostics import GibbsSweeps, Imputations
from pyro_lvm.errors import ProgramError, explain
from pyro_lvm.imputation.budget import Budget, trained
from pyro_lvm.imputation.families import FAMILIES, Sizes
from pyro_lvm.imputation.rows import best_of, by_rows
from pyro_lvm.imputation.tables import TableCodec, check_names
from pyro_lvm.missing import CountColumn
from pyro_lvm.nn import check_choice
from pyro_lvm.training.rng import seeded

__all__ = ["LatentImputer"]

_SWEPT_DRAWS = 50
"""Most draws whose mean is the best guess where each is a sweep over all missing cells."""


class LatentImputer(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Fill missing cells by a deep latent-variable model of the rows.

    Takes arrays of floats, whose columns are real, and pandas frames, whose columns are real,
    count, categorical, ordered or binary by their dtype (see :class:`~pyro_lvm.missing.Schema`);
    columns of text are categories. What is observed is returned bit for bit, in the type and
    dtypes that came in. Draws depend on ``random_state`` and the table alone, and the random
    state of torch is left as it was.

    - A column with one value throughout is filled with it.
    - A column without any observed cell is refused, as nothing can be learned of it.
    - A row without any observed cell gets what the model makes of no information.
    - A category that was not in the table of :meth:`fit` is refused.
    - Counts are "nonnegative" numbers to "vgi", drawn by a Normal and rounded.

    Args:
        family: "miwae", an importance-weighted VAE of the observed cells; "vaeac", a VAE that
            learns to predict any cells from any others; "vgi", a VAE of rows that amortised
            conditionals of each cell complete.
        latent_features: size of the latent variable.
        hidden: hidden sizes of all networks.
        max_steps: of Adam, with a learning rate that falls to 0.
        batch_size: rows a step.
        learning_rate: at the start.
        num_particles: draws of each row in training ("miwae").
        num_draws: draws of each row that imputations are weighed or averaged over; of "vgi",
            whose draws are sweeps over the cells, at most 50.
        num_imputations: of each cell in :meth:`sample`.
        validation: share of the rows that decides at which step the model was best ("miwae",
            "vaeac"), 2000 of them at most; tables of fewer than 100 are trained to the end.
        kinds: of columns of a frame by name: "real", "positive", "nonnegative", "count" or
            "binary".
        random_state: a number, a NumPy ``RandomState``, or None.
        chunk_size: rows that are imputed at a time.
        device: "auto", "cpu", "cuda", ...
        progress: whether to show progress bars.

    Attributes:
        codec_: how tables become numbers and come back.
        model_: the trained model, and
        guide_: what imputations are drawn by.
        history_: metrics by step, for ``pandas.DataFrame(imputer.history_)``.
        n_features_in_: number of columns.
        feature_names_in_: their names, if they have any.

    Example:
        >>> import numpy as np
        >>> frame = pd.DataFrame({"height": [1.6, None, 1.8, 1.7], "visits": [3, 1, 0, 2]})
        >>> frame["place"] = pd.Categorical(["sea", "town", None, "sea"])
        >>> imputer = LatentImputer(max_steps=5, num_draws=10, random_state=0)
        >>> completed = imputer.fit_transform(frame)
        >>> int(completed.isna().sum().sum()), bool((completed.dtypes == frame.dtypes).all())
        (0, True)
        >>> [len(table) for table in imputer.sample(frame, num_imputations=3)]
        [4, 4, 4]
    """

    def __init__(
        self,
        family: str = "miwae",
        *,
        latent_features: int = 8,
        hidden: Sequence[int] = (128, 128),
        max_steps: int = 2000,
        batch_size: int = 128,
        learning_rate: float = 2e-3,
        num_particles: int = 10,
        num_draws: int = 500,
        num_imputations: int = 10,
        validation: float = 0.1,
        kinds: Mapping[Any, str] | None = None,
        random_state: Any = None,
        chunk_size: int = 1000,
        device: str = "auto",
        progress: bool = False,
    ) -> None:
        self.family = family
        self.latent_features = latent_features
        self.hidden = hidden
        self.max_steps = max_steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.num_particles = num_particles
        self.num_draws = num_draws
        self.num_imputations = num_imputations
        self.validation = validation
        self.kinds = kinds
        self.random_state = random_state
        self.chunk_size = chunk_size
        self.device = device
        self.progress = progress

    def fit(self, X: Any, y: Any = None, **options: Any) -> LatentImputer:
        """Learn the model of a table's rows.

        Args:
            X: a frame or an array ``(rows, columns)``, NaN where missing.
            y: ignored.
            options: further ones of :func:`pyro_lvm.fit`, such as ``run_dir``.

        Raises:
            DataError: a table that nothing can be learned from; see :class:`LatentImputer`.
            ProgramError: an unknown family, a size below 1, or counts that were asked for of "vgi".
        """
        check_choice("family", self.family, FAMILIES)
        table = self._checked(X, reset=True)
        self.codec_ = self.codec_of(table)
        x = self.codec_.encode(table)
        self._seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        sizes = Sizes(self.latent_features, tuple(self.hidden), self.num_particles, self.max_steps)
        with seeded(self._seed, "start"):
            programs = FAMILIES[self.family](self.codec_.schema, x, sizes)
        budget = Budget(
            self.max_steps, self.batch_size, self.learning_rate, self.validation, self._seed
        )
        shown = {"accelerator": self.device, "progress": self.progress}
        self.history_ = trained(programs, len(x), budget, {**shown, **options}).history
        self.model_, self.guide_ = programs.model, programs.imputer
        self._sweeps = programs.sweeps
        return self

    def transform(self, X: Any) -> Any:
        """``X`` with its missing cells at their best guess: means, and most probable classes.

        Args:
            X: a table with the columns of the one in :meth:`fit`.

        Raises:
            DataError: other columns, or categories not seen before.
        """
        table = self._checked(X)
        return self.codec_.complete(table, self._best(table))

    def sample(self, X: Any, num_imputations: int | None = None) -> list[Any]:
        """Completed tables, in which a missing cell differs as much as it is uncertain.

        Args:
            X: a table with the columns of the one in :meth:`fit`.
            num_imputations: M, as in the constructor if left out.

        Raises:
            DataError: other columns, or categories not seen before.
        """
        table = self._checked(X)
        values = self.impute(X, num_imputations).values
        return [self.codec_.complete(table, x) for x in values]

    def impute(self, X: Any, num_imputations: int | None = None, method: Any = None) -> Imputations:
        """Multiple imputations in the numbers of ``codec_``, with their quality for each row.

        ``imputations.to_inference_data(X, imputer.codec_.schema)`` is in the frame's units.

        Args:
            X: a table with the columns of the one in :meth:`fit`.
            num_imputations: M, as in the constructor if left out.
            method: of :func:`~pyro_lvm.impute`; the family's own if left out.

        Raises:
            DataError: other columns, or categories not seen before.
        """
        x = self.codec_.encode(self._checked(X))
        count = self.num_imputations if num_imputations is None else num_imputations
        return self._drawn(x, count, self._method(count) if method is None else method)

    def codec_of(self, table: Any) -> TableCodec:
        """What the columns of a table are taken for: to "vgi" counts are numbers from 0.

        Raises:
            DataError: a table that nothing can be learned from; see :class:`LatentImputer`.
            ProgramError: counts that were asked for of "vgi", whose conditionals are Normal.
        """
        codec, kinds = TableCodec.of(table, self.kinds), dict(self.kinds or {})
        counts = [column.name for column in codec.schema.columns if isinstance(column, CountColumn)]
        if self.family != "vgi" or not counts:
            return codec
        if chosen := [name for name in counts if name in kinds]:
            expected = "no counts under family='vgi', whose conditionals are Normal"
            hint = "Use 'nonnegative' for them, or family='miwae'."
            raise ProgramError(explain("kinds", expected, f"'count' of {chosen}", hint))
        return TableCodec.of(table, {**kinds, **dict.fromkeys(counts, "nonnegative")})

    def get_feature_names_out(self, input_features: Any = None) -> Any:
        """Names of the columns of the output: those of the input."""
        check_is_fitted(self)
        return _check_feature_names_in(self, input_features)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _best(self, table: Any) -> Tensor:
        x = self.codec_.encode(table)
        if not self._sweeps:
            return self._drawn(x, 1, "mean").values[0]
        count = min(self.num_draws, _SWEPT_DRAWS)
        drawn = self._drawn(x, count, self._method(count, thin=1))
        return best_of(drawn.values, self.codec_.schema)

    def _method(self, count: int, thin: int = 2) -> Any:
        return GibbsSweeps(2 - count % 2, thin=thin) if self._sweeps else "sir"

    def _drawn(self, x: Tensor, num_samples: int, method: Any) -> Imputations:
        with seeded(self._seed, "impute"), pyro.settings.context(module_local_params=True):
            return by_rows(
                self.model_,
                self.guide_,
                x,
                num_samples=num_samples,
                num_particles=self.num_draws,
                method=method,
                chunk_size=self.chunk_size,
                progress=self.progress,
            )

    def _checked(self, X: Any, reset: bool = False) -> Any:
        """A frame, or an array of floats."""
        if not reset:
            check_is_fitted(self)
        if isinstance(X, pd.DataFrame):
            check_names(X)
            validate_data(self, X, reset=reset, skip_check_array=True)
            return X
        return validate_data(
            self,
            X,
            reset=reset,
            dtype=FLOAT_DTYPES,
            ensure_all_finite="allow-nan",
            ensure_min_samples=2 if reset else 1,
        )
