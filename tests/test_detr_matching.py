"""The cheapest assignment by trying, against scipy and the table of lesson 7."""

import pytest
import torch
from scipy.optimize import linear_sum_assignment

from gligen_lessons.detr import brute_force_assignment

SLIDE = torch.tensor([[12., 11, 1, 1, 1], [4, 2, 8, 5, 9], [1, 3, 5, 7, 8], [2, 5, 6, 7, 4],
                      [2, 1, 9, 10, 6]])


def test_the_slide_s_table():
    sigma = brute_force_assignment(SLIDE)
    assert (sigma + 1).tolist() == [3, 5, 1, 2, 4]                # target to prediction
    assert (sigma.argsort() + 1).tolist() == [3, 4, 1, 5, 2]      # what the slide reads off
    assert SLIDE[sigma, torch.arange(5)].sum() == 12


@pytest.mark.parametrize("q, n", [(1, 1), (4, 4), (6, 2), (7, 3), (5, 0)])
def test_costs_what_scipy_s_assignment_costs(q, n):
    cost = torch.randn(q, n, generator=torch.Generator().manual_seed(q + n))
    sigma, (rows, cols) = brute_force_assignment(cost), linear_sum_assignment(cost.numpy())
    assert sigma.shape == (n,) and len({*sigma.tolist()}) == n
    torch.testing.assert_close(cost[sigma, torch.arange(n)].sum(), cost[rows, cols].sum())


def test_columns_that_cost_every_row_the_same_need_not_be_built():
    cost = SLIDE.clone()
    cost[:, 2:] = 7
    assert brute_force_assignment(cost)[:2].tolist() == brute_force_assignment(cost[:, :2]).tolist()
