"""Non-finite losses in ``fit``, and when Pyro checks its steps."""

from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.poutine.util import is_validation_enabled
from torch import Tensor
from training_job import Guide, programs, train

from pyro_lvm.errors import NonFiniteError, PyroLVMError
from pyro_lvm.objectives import ELBO


class Overflowing(Guide):
    """Gives an infinite scale on the listed calls."""

    def __init__(self, bad_calls: range) -> None:
        super().__init__()
        self.bad_calls, self.calls = bad_calls, -2  # the search for plates

    def forward(self, x: Tensor) -> None:
        is_bad = self.training and self.calls in self.bad_calls
        self.calls += self.training
        super().forward(x * 1e30 if is_bad else x)


def test_nonfinite_loss_names_the_site() -> None:
    model, guide = programs()
    with torch.no_grad():
        guide.encoder[1].weight.fill_(1e4)
    before = {name: value.clone() for name, value in guide.state_dict().items()}
    with pytest.raises(NonFiniteError, match=r"step 1.*site 'z'.*Normal with"):
        train(model, guide)
    for name, value in guide.state_dict().items():
        assert torch.equal(value, before[name]), "parameters are unchanged"


def test_bad_updates_are_skipped_and_counted() -> None:
    result = train(programs()[0], Overflowing(range(2, 4)), on_nonfinite="skip", max_skips=2)
    assert result.history["skipped"][-1] == 2
    assert all(torch.isfinite(p).all() for p in result.model.parameters())  # type: ignore[attr-defined]
    with pytest.raises(NonFiniteError):
        train(programs()[0], Overflowing(range(1, 5)), on_nonfinite="skip", max_skips=2)


# Pyro's own checks.


class Watching(Guide):
    """Notes at each training step whether Pyro checks; at last its scale is negative."""

    def __init__(self, good_steps: int = 100, family: Any = dist.Normal) -> None:
        super().__init__()
        self.good_steps, self.family = good_steps, family
        self.seen: list[bool] = []  # the first two by the search for plates

    @property
    def is_checked(self) -> list[bool]:
        return self.seen[2:]

    def forward(self, x: Tensor) -> None:
        if self.training:
            self.seen.append(is_validation_enabled())
        sign = 1.0 if len(self.is_checked) <= self.good_steps else -1.0
        loc, log_scale = self.encoder(x).chunk(2, -1)
        scale = sign * log_scale.exp()
        with pyro.plate("data", len(x), subsample=torch.arange(len(x))):
            fn = self.family(loc, scale) if self.family is dist.Normal else self.family(scale)
            pyro.sample("z", fn.to_event(1))


def test_pyro_checks_in_the_first_epoch_or_at_every_step() -> None:
    guides = [Watching(), Watching()]
    with torch.no_grad():
        for guide in guides:
            guide.load_state_dict(programs()[1].state_dict())
    results = [train(programs()[0], g, check_every_step=e) for g, e in zip(guides, (False, True))]
    assert guides[0].is_checked == [True] * 4 + [False] * 2
    assert guides[1].is_checked == [True] * 6
    assert results[0].history == results[1].history
    assert is_validation_enabled()


def test_checks_that_the_user_switched_off_stay_off() -> None:
    guide = Watching()
    with pyro.validation_enabled(False):
        train(programs()[0], guide, check_every_step=True)
    assert guide.is_checked == [False] * 6


def test_a_resumed_run_starts_with_checks(tmp_path: Path) -> None:
    train(run_dir=tmp_path)
    guide = Watching()
    train(programs()[0], guide, run_dir=tmp_path, resume=True, max_steps=8)
    assert guide.seen == [True, False], "no search: the checkpoint knows the plates"


@pytest.mark.parametrize(
    ("family", "gradient", "told"),
    [
        (dist.Normal, "reparam", r"site 'z' of the guide, Normal with.*scale in \[-"),
        (dist.Poisson, "score", "invalid Poisson rate"),  # torch refuses to draw it
    ],
)
def test_unchecked_parameters_out_of_range_are_told(family: Any, gradient: str, told: str) -> None:
    guide = Watching(5, family)
    with pytest.raises(NonFiniteError, match=f"step 6.*{told}"):
        train(programs()[0], guide, objective=ELBO(2, gradient))
    assert guide.is_checked[:6] == [True] * 4 + [False] * 2


def test_a_datum_out_of_the_support_is_found_wherever_it_is() -> None:
    def model(x: Tensor) -> None:
        rate = pyro.param("rate", torch.tensor(1.0), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Bernoulli(logits=rate * z), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0))

    x = torch.zeros(40)
    x[7] = 2.0
    with pytest.raises(PyroLVMError, match="site 'x': expected a value that Bernoulli"):
        train(model, guide, x, max_epochs=3, max_steps=None)
