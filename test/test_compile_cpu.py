"""The gate of compile_cpu: labels where they mean something, fp32's classes where the weights are random."""

import numpy as np
import pytest

import cli
import compile_cpu

ROWS = 872
LABELS = np.arange(ROWS) % 2


def logits(classes, margin=2.0):
    """float32 [n, 2] whose rows have these classes, decided by `margin`; the largest |logit| is 2."""
    side = np.where(np.asarray(classes) == 1, 1, -1) * margin / 2
    found = np.stack([-side, side], 1).astype("f4")
    found[0] = found[0] / np.abs(found[0]).max() * 2
    return found


def flipped(count, margin=2.0):
    """fp32 and a result with the last `count` rows flipped, decided by `margin` in fp32."""
    margins = np.where(np.arange(ROWS) < ROWS - count, 2.0, margin)
    reference = logits(LABELS, margins)
    made = reference.copy()
    made[ROWS - count :] = made[ROWS - count :, ::-1]
    return reference, made


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_random_weights_may_flip_as_many_rows_as_others_may_lose(precision):
    assert "3 flips but for near ties, 3 flips: rows 869 870 871" in compile_cpu.compare(
        *flipped(3), LABELS, precision, seeded=True
    )
    with pytest.raises(cli.UserError, match="4 flips but for near ties.*allowed are 3 flips but for near ties"):
        compile_cpu.compare(*flipped(4), LABELS, precision, seeded=True)


def test_labels_do_not_count_with_random_weights():
    """40 rows flip away from the labels and 40 towards them: nothing is lost by labels, yet the classes are others."""
    reference, made = flipped(80)
    labels = np.where(np.arange(ROWS) >= ROWS - 40, made.argmax(1), LABELS)
    assert "0 more wrong" in compile_cpu.compare(reference, made, labels, "int8")
    with pytest.raises(cli.UserError, match="80 flips but for near ties"):
        compile_cpu.compare(reference, made, labels, "int8", seeded=True)


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_a_near_tie_may_flip(precision):
    """The largest |logit| is 2: a margin of 2/8 is a tie."""
    assert "0 flips but for near ties, 50 flips" in compile_cpu.compare(
        *flipped(50, 0.24), LABELS, precision, seeded=True
    )
    with pytest.raises(cli.UserError, match="50 flips but for near ties"):
        compile_cpu.compare(*flipped(50, 0.26), LABELS, precision, seeded=True)


def test_fp32_may_flip_nothing_whatever_the_weights():
    for seeded in (False, True):
        with pytest.raises(cli.UserError, match="allowed are 1e-04 and no flips"):
            compile_cpu.compare(*flipped(1, 1e-5), LABELS, "fp32", seeded)


def test_a_result_that_is_not_finite_fails():
    reference, made = flipped(0)
    made[5] = np.nan
    with pytest.raises(cli.UserError, match="inf"):
        compile_cpu.compare(reference, made, LABELS, "bf16", seeded=True)
