"""From spikes to calcium to bound indicator: linear recurrences in time, without a loop over it.

All functions take ``(*, T)``, with particles and cells to the left, and seconds and Hz as
tensors that broadcast against it, ``(*batch, 1)``. A spike acts within its own frame.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

__all__ = ["exponential_decay", "linear_recurrence", "relaxation", "rise_and_decay"]


def exponential_decay(spikes: Tensor, decay: Tensor, rate: float) -> Tensor:
    r"""Each spike adds 1, which decays: :math:`c_t = g c_{t-1} + s_t`, :math:`g = e^{-1/f\tau}`.

    Args:
        spikes: :math:`s`, ``(*, T)``.
        decay: time constant :math:`\tau`, seconds.
        rate: frames per second, f.

    Example:
        >>> spike = torch.tensor([0.0, 1.0, 0.0, 0.0])
        >>> exponential_decay(spike, decay=torch.tensor([0.1]), rate=10.0)
        tensor([0.0000, 1.0000, 0.3679, 0.1353])
    """
    return linear_recurrence(torch.exp(-1 / (rate * decay)), spikes)


def rise_and_decay(spikes: Tensor, rise: Tensor, decay: Tensor, rate: float) -> Tensor:
    r"""Each spike adds a transient :math:`(1 - e^{-t/\rho}) \, e^{-t/\tau}` of height 1.

    It is the difference of two exponentials with the time constants :math:`\tau` and
    :math:`1 / (1/\rho + 1/\tau)`, so it rises before it decays whatever the two parameters are.
    It peaks at :math:`\rho \log(1 + \tau/\rho)` seconds; height 1 is that of the continuous
    curve, which slow frames may miss. An autoregression of order 2, run as two of order 1; a
    spike is at the start of its frame, which shows the end of it.

    Args:
        spikes: ``(*, T)``.
        rise: :math:`\rho`, seconds.
        decay: :math:`\tau`, seconds.
        rate: frames per second.

    Example:
        The GCaMP6f kernel, 0.02 and 0.4 s, at 1000 frames per second: it peaks after 63 ms.

        >>> spike = torch.zeros(300).index_fill(0, torch.tensor([0]), 1.0)
        >>> rise, decay = torch.tensor([1 / (1 / 0.02 - 1 / 0.4)]), torch.tensor([0.4])
        >>> transient = rise_and_decay(spike, rise, decay, rate=1000.0)
        >>> transient.argmax() + 1, transient.max()
        (tensor(63), tensor(1.0000))
    """
    slow = torch.exp(-1 / (rate * decay))
    rising = -torch.expm1(-1 / (rate * rise))
    both = linear_recurrence(slow * (1 - rising), linear_recurrence(slow, spikes))
    ratio = rise / decay
    peak = (1 + ratio) ** (-1 - ratio) * ratio**ratio
    return slow * rising / peak * both


def relaxation(target: Tensor, speed: Tensor, rate: float) -> Tensor:
    r"""The state of :math:`dy/dt = v (u - y)`, from 0, with u and v constant within a frame.

    .. math:: y_t = u_t + (y_{t-1} - u_t) e^{-v_t / f}

    Exact for such u and v, so y stays between 0 and the largest u at any frame rate; a step of
    Euler's method is its first order in v/f.

    Args:
        target: u, ``(*, T)``.
        speed: v, ``(*, T)``, per second.
        rate: frames per second, f.

    Example:
        >>> relaxation(torch.ones(3), torch.full((3,), 10.0), rate=10.0)
        tensor([0.6321, 0.8647, 0.9502])
    """
    moved = -torch.expm1(-speed / rate)
    return linear_recurrence(1 - moved, moved * target)


def linear_recurrence(factor: Tensor, drive: Tensor) -> Tensor:
    r"""The sequence :math:`y_t = a_t y_{t-1} + b_t`, with :math:`y_{-1} = 0`.

    Frames are joined by twos, fours, ...: :math:`\log_2 T` passes over the data. The gradient
    is the same recurrence run backwards, so that no pass is kept in memory; it can itself be
    differentiated.

    References:
        Blelloch (1990), *Prefix sums and their applications*, CMU-CS-90-190, section 1.4.

    Args:
        factor: a, ``(*, T)`` or, the same in each frame, ``(*, 1)``.
        drive: b, ``(*, T)``.

    Example:
        >>> linear_recurrence(torch.tensor([0.5]), torch.tensor([4.0, 0.0, 1.0]))
        tensor([4., 2., 2.])
    """
    factor = factor.expand(*factor.shape[:-1], drive.shape[-1])
    drive = drive.expand(torch.broadcast_shapes(factor.shape, drive.shape))
    sequence: Tensor = _Recurrence.apply(factor, drive)  # type: ignore[no-untyped-call]
    return sequence


class _Recurrence(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(factor: Tensor, drive: Tensor) -> Tensor:
        return _scan(factor, drive)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.save_for_backward(inputs[0], output)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        r"""With :math:`\lambda_t = \bar y_t + a_{t+1} \lambda_{t+1}`: of b it is
        :math:`\lambda_t`, of a it is :math:`\lambda_t y_{t-1}`.
        """
        factor, sequence = ctx.saved_tensors
        following = pad(factor[..., 1:], (0, 1)).flip(-1)
        drive = linear_recurrence(following, gradient.flip(-1)).flip(-1)
        return (drive * pad(sequence[..., :-1], (1, 0))).sum_to_size(factor.shape), drive


def _scan(factor: Tensor, drive: Tensor) -> Tensor:
    """After the pass over steps of n frames, each frame holds what the last 2n add up to."""
    factor, total, step = factor.clone(), drive.clone(), 1
    while step < total.shape[-1]:
        total[..., step:] += factor[..., step:] * total[..., :-step]
        factor[..., step:] = factor[..., step:] * factor[..., :-step]
        step *= 2
    return total
