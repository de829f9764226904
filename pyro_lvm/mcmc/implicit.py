"""Draws of a generator, corrected by a discriminator towards a target given by samples."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from math import inf
from typing import Any
from warnings import warn

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from pyro_lvm.critic import Critic, Side
from pyro_lvm.diagnostics.chunks import check_count
from pyro_lvm.diagnostics.ratio_quality import RatioQuality, quality_of_logits
from pyro_lvm.diagnostics.thresholds import MIN_ACCEPTANCE
from pyro_lvm.errors import DataError, explain
from pyro_lvm.mcmc.corrected_draws import ADVICE, CorrectedDraws
from pyro_lvm.metropolis import independence_chain

__all__ = ["ImplicitMetropolisHastings"]

_CHECK_EVERY = 50
_BINS = 20


class ImplicitMetropolisHastings:
    r"""Metropolis-Hastings where proposal and target are known by their draws only.

    .. math:: \alpha = \min\bigl(1, e^{T(x') - T(x)}\bigr), \qquad T(x) \to \log p(x) - \log q(x)

    with T the logit of a discriminator that tells samples of p from draws of the generator q.
    The limit is p as far as T is right. One that has learned its samples by heart makes draws
    look perfect and gives modes any weight, so ``fit`` stops by the loss on samples that are held
    out, and judges by others: look at the verdict, not at the draws.

    References:
        Neklyudov, Egorov, Vetrov (2019), *The implicit Metropolis-Hastings algorithm*,
        arXiv:1906.03644.
        Turner, Hung, Frank, Saatci, Yosinski (2019), *Metropolis-Hastings generative adversarial
        networks*, arXiv:1811.11357, eq. 5.

    Args:
        generator: from a number n to n independent draws ``(n, features)``.
        discriminator: module called as ``discriminator(x, None)``, logits ``(*,)``; for
            instance :class:`pyro_lvm.nn.Discriminator`.

    Example:
        >>> from pyro_lvm.nn import Discriminator
        >>> _ = torch.manual_seed(0)
        >>> sampler = ImplicitMetropolisHastings(lambda n: torch.randn(n, 1), Discriminator(1))
        >>> quality = sampler.fit(0.5 + 0.8 * torch.randn(4000, 1), max_steps=300)
        >>> draws = sampler.sample(1000)
        >>> draws.values.shape, draws.values.mean().round(decimals=1)
        (torch.Size([4, 1000, 1]), tensor(0.5000))
    """

    def __init__(self, generator: Callable[[int], Tensor], discriminator: nn.Module) -> None:
        self.generator = generator
        self.critic = Critic(discriminator, optimizer=None, hint=ADVICE)
        self.quality: RatioQuality | None = None

    def fit(
        self,
        samples: Tensor,
        *,
        held_out: float = 0.2,
        max_steps: int = 3000,
        batch_size: int = 256,
        lr: float = 1e-3,
        patience: int = 10,
    ) -> RatioQuality:
        """Train the discriminator until the loss on held-out samples is at its least.

        Args:
            samples: of the target, ``(N, features)``.
            held_out: share of them to hold out: half to stop by, half to judge by.
            max_steps: at most, each on a batch and as many fresh draws of the generator.
            batch_size: samples a step.
            lr: learning rate at first; it falls to 0, as the last steps else move whole modes.
            patience: looks at the held-out loss, one every 50 steps, without a better one.

        Returns:
            The quality on the last part: p is the first of the two kinds of draws.

        Raises:
            DataError: there are too few samples.
        """
        stop, judge, train = _parted(samples, held_out)
        fake = self._proposals(len(stop))
        self.critic.follow(samples)
        best, kept, waited = inf, self._weights(), 0
        for step in range(check_count("max_steps", max_steps)):
            if step % _CHECK_EVERY == 0:
                loss = self._loss(stop, fake)
                better = loss < best
                best, kept = (loss, self._weights()) if better else (best, kept)
                waited = 0 if better else waited + 1
            if waited > patience:
                break
            self.critic.set_rate(lr * (1 - step / max_steps))
            rows = torch.randint(len(train), (batch_size,), device=train.device)
            real = Side(train[rows])
            self.critic.learn(real, Side(self._proposals(batch_size)))
        self.critic.discriminator.load_state_dict(kept)
        with torch.no_grad():
            logits = self.critic(Side(judge)), self.critic(Side(self._proposals(len(judge))))
        self.quality = quality_of_logits(*logits, _BINS)
        return self.quality

    @torch.no_grad()
    def sample(
        self,
        num_samples: int = 1000,
        *,
        num_chains: int = 4,
        num_warmup: int = 100,
        start: Tensor | None = None,
    ) -> CorrectedDraws:
        """Chains of ``num_samples`` draws each, with a warning where they stand still.

        Args:
            num_samples: states kept of each chain.
            num_chains: side by side.
            num_warmup: states dropped of each.
            start: ``(num_chains, features)``, samples of the target for instance; the
                generator's draws if left out.
        """
        length = check_count("num_samples", num_samples) + num_warmup
        proposals = self._proposals(length * num_chains).unflatten(0, (length, num_chains))
        if start is not None:
            proposals = torch.cat([start.to(proposals)[None], proposals[1:]])
        chain = independence_chain(self.critic(Side(proposals)))
        states = proposals.gather(0, chain.rows[..., None].expand_as(proposals))[num_warmup:]
        moved = (chain.rows[1:] != chain.rows[:-1]).to(proposals).mean(0)
        _warn_of_standstill(moved)
        return CorrectedDraws(states.transpose(0, 1), moved, self.quality)

    @torch.no_grad()
    def _proposals(self, count: int) -> Tensor:
        return self.generator(count)

    @torch.no_grad()
    def _loss(self, real: Tensor, fake: Tensor) -> float:
        terms = softplus(-self.critic(Side(real))).mean() + softplus(self.critic(Side(fake))).mean()
        return terms.item()

    def _weights(self) -> dict[str, Any]:
        return deepcopy(self.critic.discriminator.state_dict())


def _parted(samples: Tensor, held_out: float) -> tuple[Tensor, Tensor, Tensor]:
    """In random order: to stop by, to judge by, to train on."""
    half = int(len(samples) * held_out / 2)
    if half < 1 or 2 * half >= len(samples):
        found = f"{len(samples)} samples and held_out={held_out}"
        hint = "Pass more samples, or held_out=0.2."
        raise DataError(explain("samples", "some to train on and some to hold out", found, hint))
    order = torch.randperm(len(samples), device=samples.device)
    stop, judge, train = samples[order].tensor_split([half, 2 * half])
    return stop, judge, train


def _warn_of_standstill(acceptance: Tensor) -> None:
    if bool((acceptance < MIN_ACCEPTANCE).any()):
        expected = f"{MIN_ACCEPTANCE:.0%} of the proposals accepted"
        found = f"{acceptance.min().item():.2g} in a chain"
        hint = f"The chains stand still: do not use them. {ADVICE}"
        warn(explain("ImplicitMetropolisHastings", expected, found, hint), stacklevel=3)
