"""What several test files share: a real browser for pages, instruction sets and dropout of the CPU kernels."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
WIDE, NARROW = (1280, 900), (380, 800)


@dataclass
class Opened:
    """A page in the browser, and what went wrong or out of it."""

    page: object
    complaints: list[str] = field(default_factory=list)  # of the console, and errors that nobody caught
    requests: list[str] = field(default_factory=list)  # beyond the file itself


@pytest.fixture(scope="session")
def browser():
    """Headless Chromium, or a skipped test: `apt-get install chromium` and `pip install playwright` give it."""
    api = pytest.importorskip("playwright.sync_api", reason="the pages are looked at through playwright")
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("no Chromium on this machine")
    with api.sync_playwright() as playwright:
        # a container's root needs the first, its small /dev/shm the second
        arguments = ["--no-sandbox", "--disable-dev-shm-usage"]
        opened = playwright.chromium.launch(executable_path=path, args=arguments)
        yield opened
        opened.close()


@pytest.fixture
def open_page(browser) -> Callable[..., Opened]:
    """``open_page(path, size=WIDE, scheme="light")`` → :class:`Opened`."""
    contexts = []

    def open_page(path: Path, size: tuple[int, int] = WIDE, scheme: str = "light") -> Opened:
        context = browser.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
        contexts.append(context)
        opened = Opened(context.new_page())
        url = Path(path).resolve().as_uri()
        opened.page.on("console", lambda message: opened.complaints.append(f"{message.type}: {message.text}"))
        opened.page.on("pageerror", lambda error: opened.complaints.append(str(error)))
        context.on("request", lambda request: request.url != url and opened.requests.append(request.url))
        opened.page.goto(url)
        return opened

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture
def random_start(monkeypatch):
    """Models begin without heads at their neighbours: scores in the hundreds would magnify the rounding of sums."""
    monkeypatch.setattr("fastbert.model.init_neighbor_heads", lambda embeddings, encoder: None)


@pytest.fixture
def dropout_factors():
    """What the C++ kernels' dropout multiplies by, worked out by fastbert/data/batches/philox.py."""
    import numpy as np
    import torch

    from fastbert.data.batches import philox

    def factors(seed: int, probability: float, rows: int, columns: int, width: int, stream: int = 0, item: int = 0):
        """(rows, columns) float64, of a matrix whose rows have ``width`` draws, a multiple of 8."""
        counters = np.zeros((rows * width // 8, 4), np.uint32)
        counters[:, 0] = np.arange(len(counters))
        counters[:, 1], counters[:, 2] = stream, item
        draws = philox.philox4x32(seed, counters).astype("<u4").view("<u2").reshape(rows, width)[:, :columns]
        return torch.from_numpy((draws >= round(probability * 65536)) / (1 - probability))

    return factors


def pytest_generate_tests(metafunc):
    """``isa``: every instruction set of the C++ compute kernels that this machine has."""
    if "isa" in metafunc.fixturenames:
        from fastbert.system import native

        metafunc.parametrize("isa", native.compute().cpu_isas(), indirect=True)


@pytest.fixture
def isa(request):
    """The kernels run by this instruction set during the test."""
    from fastbert.system import native

    native.compute().cpu_set_isa(request.param)
    yield request.param
    native.compute().cpu_set_isa("auto")
