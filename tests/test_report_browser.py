"""The report in a real browser: it draws, every picture loads, nothing is fetched or goes wrong."""

import re
import shutil
import subprocess
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch
from matplotlib.image import imread
from torch import Tensor

from pyro_lvm.diagnostics import report

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason=f"no browser, none of {BROWSERS}")

# Runs after the page has loaded, and leaves what it saw in the page.
PROBE = """<script>
addEventListener("load", () => {
  const images = [...document.images];
  const seen = document.createElement("output");
  seen.textContent = "images " + images.map(image => image.naturalWidth).join(",")
    + " fetched " + performance.getEntriesByType("resource")
        .filter(entry => !entry.name.startsWith("data:")).length
    + " wide " + (document.documentElement.scrollWidth > innerWidth);
  document.body.append(seen);
});
</script>"""


def model(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)


def guide(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x / 2, 0.4).to_event(1))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    pyro.set_rng_seed(0)
    report(model, guide, torch.randn(20, 2), num_samples=400, folder=folder)
    return folder / "report.html"


def browse(page: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Open the page without a network, in a fresh profile."""
    command = [
        str(BROWSER),
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
        *("--disable-dev-shm-usage", "--no-first-run", "--disable-extensions"),
        f"--user-data-dir={page.parent / 'profile'}",
        "--enable-logging=stderr",
        *options,
        page.as_uri(),
    ]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)


def console(run: subprocess.CompletedProcess[str]) -> list[str]:
    """What the page had to say: errors of scripts, styles and resources."""
    return [line for line in run.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.parametrize("width", [1000, 420], ids=["desk", "phone"])
def test_every_picture_loads_and_nothing_is_fetched(page: Path, width: int) -> None:
    probed = page.with_name(f"probed{width}.html")
    text = page.read_text(encoding="utf-8")
    probed.write_text(text.replace("</body>", f"{PROBE}</body>"), encoding="utf-8")
    seen = browse(probed, f"--window-size={width},900", "--dump-dom")
    told = re.search(r"<output>images (.*) fetched (\d+) wide (\w+)</output>", seen.stdout)
    assert told, seen.stderr
    widths = [int(width) for width in told[1].split(",")]
    assert len(widths) == 9
    assert min(widths) > 300, "one per check that ran, none broken"
    assert (told[2], told[3]) == ("0", "false"), "nothing fetched, nothing wider than the window"
    assert not console(seen)


def test_the_page_is_drawn(page: Path) -> None:
    shot = page.with_name("report.png")
    run = browse(page, "--window-size=1000,1600", f"--screenshot={shot}")
    assert not console(run)
    picture = imread(shot)[..., :3]  # (height, width, 3)
    assert picture.shape == (1600, 1000, 3)
    assert (picture == 1.0).all(-1).mean() > 0.5, "dark on white"
    red = (picture[..., 0] > 0.5) & (picture[..., 1:] < 0.25).all(-1)
    assert red.sum() > 500, "the badge of a failed check"


def test_a_broken_picture_would_be_seen(page: Path) -> None:
    """The check above can fail."""
    broken = page.with_name("broken.html")
    text = page.read_text(encoding="utf-8").replace("base64,", "base64,AAAA", 1)
    broken.write_text(text.replace("</body>", f"{PROBE}</body>"), encoding="utf-8")
    seen = browse(broken, "--dump-dom")
    assert re.search(r"<output>images 0,\d", seen.stdout), seen.stderr
