r"""What programs descend when a critic knows the log-ratio of two distributions they draw from.

Let :math:`r = a / b = e^T`, and :math:`D_f(a \,\|\, b) = E_b f(r)` with f convex. Where
parameters move reparameterised draws of a and b, with T held fixed,

.. math:: \partial D_f = E_a [r f''(r) \, \partial T] - E_b [r^2 f''(r) \, \partial T]

so a divergence is two weights of a logit's gradient:

====================  =======================  =======================  =======================
divergence            draws of a               draws of b               f''(r)
====================  =======================  =======================  =======================
``"kl"``              1                        :math:`e^T`              :math:`1 / r`
``"reverse_kl"``      :math:`e^{-T}`           1                        :math:`1 / r^2`
``"jensen_shannon"``  :math:`\sigma(-T)`       :math:`\sigma(T)`        :math:`1 / (r (1 + r))`
``"non_saturating"``  :math:`\sigma(T)`        :math:`\sigma(-T)`       two, below
====================  =======================  =======================  =======================

They are :math:`KL(a \,\|\, b)`, :math:`KL(b \,\|\, a)` and, of the minimax game,
:math:`KL(a \,\|\, m) + KL(b \,\|\, m)` with the mixture :math:`m = (a + b) / 2`. The
non-saturating game has a divergence for each player: what moves a descends
:math:`2 KL(m \,\|\, b)`, with :math:`f'' = 1 / (1 + r)`, and what moves b
:math:`2 KL(m \,\|\, a)`, with :math:`f'' = 1 / (r^2 (1 + r))`. All are 0 at a = b only. Its weight
is largest where the critic is right, where that of the minimax game vanishes.

A critic that errs by :math:`\delta` or :math:`-\delta` at a = b, each as often, does more than add
noise: programs of the non-saturating game descend
:math:`(E_a + E_b) \log \cosh(\delta / 2) \approx (E_a + E_b)\, \delta^2 / 8` too, which narrows
what they draw. Those of the minimax game ascend it. Weights that are all equal
(``max_weight=1``) leave noise alone.

References:
    Nowozin, Cseke, Tomioka (2016), *f-GAN*, arXiv:1606.00709.
    Poole, Alemi, Sohl-Dickstein, Angelova (2016), *Improved generator objectives for GANs*,
    arXiv:1612.02780.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["DIVERGENCES", "Divergence"]

Weight = Callable[[Tensor], Tensor]


class Divergence(NamedTuple):
    """Weights of the logit's gradient, functions of it, at draws of each distribution.

    Example:
        >>> weight = DIVERGENCES["kl"]
        >>> weight.a(torch.tensor(2.0)), weight.b(torch.tensor(2.0))
        (tensor(1.), tensor(7.3891))
    """

    a: Weight
    b: Weight


DIVERGENCES = {
    "non_saturating": Divergence(torch.sigmoid, lambda t: torch.sigmoid(-t)),
    "jensen_shannon": Divergence(lambda t: torch.sigmoid(-t), torch.sigmoid),
    "kl": Divergence(torch.ones_like, torch.exp),
    "reverse_kl": Divergence(lambda t: torch.exp(-t), torch.ones_like),
}
"""By name; the first is the one to start with."""
