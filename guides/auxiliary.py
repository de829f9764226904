"""Guide with an auxiliary variable: a mixture of infinitely many Normals, labels included."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_lvm.errors import ProgramError, explain
from pyro_lvm.guides.encoding import Encoding
from pyro_lvm.nn import MLP, ConditionalNormal, check_num_data, check_size, data_plate, joined
from pyro_lvm.nn.labels import as_labels, drawn_labels, one_hot_labels

__all__ = ["AuxiliaryNormal"]


class AuxiliaryNormal(PyroModule):
    r"""Normals in a row: the auxiliary from the data, the label from both, z from all three.

    .. math:: q(a \mid x) \, q(y \mid a, x) \, q(z \mid a, x, y), \qquad
        q(z \mid x) = \sum_y \int q(a \mid x) \, q(y \mid a, x) \, q(z \mid a, x, y) \, da

    The guide of :class:`~pyro_lvm.models.ADGM` and :class:`~pyro_lvm.models.SDGM`. Every
    network reads features h(x) that an encoder computes once a datum. Sites "a", "z", and "y"
    where there are classes; of labels that are partly known the drawn ones are the site
    "y_unobserved".

    **The classifier.** Nothing in a bound trains :math:`q(y \mid a, x)` on known labels.
    ``classifier_weight`` :math:`\alpha` adds :math:`\alpha \log q(y \mid a, x)` of each known
    label to the log-weights in training mode, as a factor of the guide. It is at most 0, so
    bounds stay bounds; in evaluation mode it is not there. KL warm-up and free bits then act on
    all latent sites and this factor in one sum. Labels are drawn, so train by
    ``gradient="score"``, "vimco" or "ovis". :meth:`classify` predicts.

    References:
        Maaløe, Sønderby, Sønderby, Winther (2016), *Auxiliary deep generative models*,
        arXiv:1602.05473, eqs. 3, 9 and 10.

    Args:
        encoder: from a batch of data to ``(B, encoder_features)``; an MLP if left out.
        in_features: size of a datum, for the MLP; a given encoder takes rows of any shape.
        latent_features: size of z.
        auxiliary_features: size of a.
        hidden: hidden sizes of the MLP; none at all makes it linear.
        num_classes: C; None for no labels, or for labels that the model sums out.
        classifier_weight: :math:`\alpha`, 0 or more.
        context_features: size of h(x).
        conditional_hidden: hidden sizes of the networks that read it.
        encoder_features: size of a given encoder's output.
        num_data: N, the model's own ``num_data``.

    Raises:
        ProgramError: a size below 1, an encoder without ``encoder_features``.
        DataError: ``x`` has another number of features, or no rows; ``y`` another
            shape.

    Example:
        >>> guide = AuxiliaryNormal(in_features=6, latent_features=3, num_classes=4)
        >>> {name: draw.shape for name, draw in guide(torch.zeros(5, 6)).items()}
        {'a': torch.Size([5, 16]), 'y': torch.Size([5]), 'z': torch.Size([5, 3])}
        >>> guide.classify(torch.zeros(5, 6)).shape
        torch.Size([5, 4])
    """

    def __init__(
        self,
        encoder: nn.Module | None = None,
        *,
        in_features: int = 64,
        latent_features: int = 16,
        auxiliary_features: int = 16,
        hidden: Sequence[int] = (200, 200),
        num_classes: int | None = None,
        classifier_weight: float = 0.0,
        context_features: int = 64,
        conditional_hidden: Sequence[int] = (64,),
        encoder_features: int | None = None,
        num_data: int | None = None,
    ) -> None:
        super().__init__(name=type(self).__name__)
        self.num_classes = None if num_classes is None else check_size("num_classes", num_classes)
        self.classifier_weight = _check_weight(classifier_weight)
        self.num_data = check_num_data(num_data)
        width = check_size("context_features", context_features)
        both = width + check_size("auxiliary_features", auxiliary_features)
        inside = conditional_hidden
        self.encoding = Encoding(encoder, encoder_features, in_features, hidden, width)
        self.auxiliary = ConditionalNormal(width, auxiliary_features, inside)
        self.latent = ConditionalNormal(both + (num_classes or 0), latent_features, inside)
        self.classifier = None if num_classes is None else MLP(both, num_classes, inside)

    def forward(self, x: Any, y: Any = None) -> dict[str, Tensor]:
        """One draw of each site, inside plate "data".

        Args:
            x: ``(B, in_features)`` data.
            y: ``(B,)`` labels from 0, below 0 where unknown; None where all are.
        """
        h = self.encoding(x)
        with data_plate(len(x), self.num_data, like=h):
            a = pyro.sample("a", self.auxiliary(h))
            if self.num_classes is None:
                return {"a": a, "z": pyro.sample("z", self.latent(joined([h, a])))}
            label = self._label(h, a, y)
            indicator = one_hot_labels(label, self.num_classes, like=h)
            z = pyro.sample("z", self.latent(joined([h, a, indicator])))
        return {"a": a, "y": label, "z": z}

    def classify(self, x: Any, num_samples: int = 100) -> Tensor:  # (B, C)
        """Probability of each class: the classifier's, averaged over draws of a.

        Raises:
            ProgramError: the guide has no classes.
        """
        h = self.encoding(x)
        a = self.auxiliary(h).rsample(torch.Size([num_samples]))
        probabilities: Tensor = self._classifier(h, a).probs
        return probabilities.mean(0)

    def _label(self, h: Tensor, a: Tensor, y: Any) -> Tensor:
        """Known labels and draws of the others; the classifier's term for the known ones."""
        q = self._classifier(h, a)
        labels = None if y is None else as_labels(y, like=h)
        if labels is not None and self.training and self.classifier_weight > 0:
            log_q = torch.where(labels >= 0, q.log_prob(labels.clamp(min=0)), 0.0)
            pyro.factor("classifier", -self.classifier_weight * log_q, has_rsample=True)
        return drawn_labels(q, labels)

    def _classifier(self, h: Tensor, a: Tensor) -> dist.Categorical:
        if self.classifier is None:
            hint = "Pass num_classes=10 to the guide."
            raise ProgramError(explain("num_classes", "a number of classes", "None", hint))
        return dist.Categorical(logits=self.classifier(joined([h, a])))


def _check_weight(weight: float) -> float:
    if not 0 <= weight < inf:
        hint = "Pass classifier_weight=0.1 * num_data / num_labels."
        raise ProgramError(explain("classifier_weight", "0 or more", repr(weight), hint))
    return float(weight)
