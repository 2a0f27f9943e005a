"""Energy in bands of frequencies: Parseval, known sines, and what is refused."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.formula.check import Quantity, compile_formula
from headrace.formula.evaluate import History, evaluate
from headrace.formula.problems import FormulaProblem
from headrace.formula.spectrum import band_mean_square
from headrace.model import status as codes

SECOND = 1_000_000
NAMES = {"a": Quantity(unit="m/s2"), "warm": Quantity(unit="degC")}
RATE_HZ = 1_000


def run(text: str, x: np.ndarray, at_us: np.ndarray, **status: np.ndarray) -> pl.DataFrame:
    plan = compile_formula(text, NAMES)
    codes_ = status.get("status", np.zeros(len(x), np.uint32))
    history = History(np.zeros(len(x), np.int64), at_us, x, codes_)
    return evaluate(plan, {"a": history}, 0, int(at_us[-1]) + 1, assets=1)


def seconds(count: int) -> np.ndarray:
    return np.arange(1, count * RATE_HZ + 1) * (SECOND // RATE_HZ)


def sine(at_us: np.ndarray, amplitude: float, hz: float) -> np.ndarray:
    return amplitude * np.sin(2 * np.pi * hz * at_us / SECOND)


def test_a_sine_has_half_the_square_of_its_amplitude_in_its_band_alone() -> None:
    at_us = seconds(2)
    x = 5.0 + sine(at_us, 3.0, 50.0) + sine(at_us, 0.4, 180.0)
    for band, wanted in (("40 Hz, 60 Hz", 4.5), ("170 Hz, 190 Hz", 0.08), ("60 Hz, 170 Hz", 0.0)):
        rows = run(f"band_energy(a, {band}, 1 s)", x, at_us).tail(1)
        assert rows["value"][0] == pytest.approx(wanted, abs=1e-9)
        assert rows["status"][0] == codes.GOOD
    rms = run("sqrt(band_energy(a, 40 Hz, 60 Hz, 1 s)) -> mm/s2", x, at_us)["value"][-1]
    assert rms == pytest.approx(3000 / np.sqrt(2))


@given(
    n=st.integers(8, 300),
    seed=st.integers(0, 10_000),
    cuts=st.lists(st.floats(0.0, 0.5), max_size=4),
)
@settings(max_examples=60, deadline=None)
def test_all_bands_together_have_the_mean_square(n: int, seed: int, cuts: list[float]) -> None:
    x = np.random.default_rng(seed).normal(3.0, 2.0, n)
    window = np.sin(np.pi * np.arange(n) / n) ** 2
    wanted = np.sum(((x - x.mean()) * window) ** 2) / np.sum(window**2)
    edges = [0.0, *sorted(cut * RATE_HZ for cut in cuts), RATE_HZ / 2]
    bands = [pair for pair in pairwise(edges) if pair[0] < pair[1]]
    whole = (np.array([0]), np.array([n]))
    at_us, length = np.arange(n) * 1000, np.array([n * 1000])
    found = sum(band_mean_square(x, at_us, whole, length, band)[0] for band in bands)
    assert found == pytest.approx(wanted, rel=1e-9)


def test_a_window_that_is_not_filled_evenly_has_no_result() -> None:
    at_us = seconds(3)
    x = sine(at_us, 1.0, 20.0)
    gap = np.delete(np.arange(len(x)), 2_200)
    rows = run("band_energy(a, 10 Hz, 30 Hz) per 1 s", x[gap], at_us[gap])
    assert rows["status"].to_list() == [codes.GOOD, codes.GOOD, codes.BAD_NO_DATA]
    assert run("band_energy(a, 10 Hz, 30 Hz, 1 s)", x[gap], at_us[gap])["value"][-1] is None
    bad = np.zeros(len(x), np.uint32)
    bad[1_500] = codes.BAD
    rows = run("band_energy(a, 10 Hz, 30 Hz, 1 s)", x, at_us, status=bad)
    usable = rows["value"].is_not_null().to_numpy()
    assert usable[1_499] and not usable[1_500:2_499].any() and usable[2_500]
    assert not usable[:998].any(), "the window is not full yet"
    assert run("band_energy(a, 10 Hz, 501 Hz, 1 s)", x, at_us)["value"].null_count() == len(x)
    assert run("band_energy(a, 10 Hz, 500 Hz, 1 s)", x, at_us)["value"][-1] == pytest.approx(0.5)


def test_cutting_time_changes_no_bit() -> None:
    at_us = seconds(3)
    x = np.random.default_rng(3).normal(0.0, 1.0, len(at_us))
    plan = compile_formula("band_energy(a, 10 Hz, 200 Hz, 250 ms)", NAMES)
    zeros = np.zeros(len(x), np.uint32)
    assets = np.zeros(len(x), np.int64)
    whole = evaluate(plan, {"a": History(assets, at_us, x, zeros)}, 0, 4 * SECOND, assets=1)
    for cut_us in (500_500, 1_234_000, 2_000_000):
        keep = at_us >= cut_us - plan.back_us - 2_000
        later = History(assets[keep], at_us[keep], x[keep], zeros[keep])
        part = evaluate(plan, {"a": later}, cut_us, 4 * SECOND, assets=1)
        assert part.equals(whole.filter(pl.col("at_us") >= cut_us))


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("band_energy(a, 50 Hz, 10 Hz, 1 s)", "FORM-1080"),
        ("band_energy(a, 10, 50 Hz, 1 s)", "FORM-1021"),
        ("band_energy(a, 10 Hz, 50 s, 1 s)", "FORM-1021"),
        ("band_energy(a, 10 Hz, 1 s)", "FORM-1021"),
        ("band_energy(a, 10 Hz, 1e12 Hz, 1 s)", "FORM-1030"),
    ],
)
def test_a_band_that_cannot_be_is_said(text: str, code: str) -> None:
    with pytest.raises(FormulaProblem, match=code):
        compile_formula(text, NAMES)


def test_its_unit_is_a_square() -> None:
    assert compile_formula("band_energy(a, 1 Hz, 2 Hz, 9 s)", NAMES).unit == "m^2/s^4"
    assert compile_formula("sqrt(band_energy(a, 1 Hz, 2 Hz, 9 s))", NAMES).unit == "m/s^2"
    assert compile_formula("band_energy(warm, 1 Hz, 2 Hz, 9 s)", NAMES).unit == "K^2"
