"""InfoNCE against torch's cross entropy, group by group."""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy, normalize

from mosaicvi.alignment import infonce


def oracle(left: torch.Tensor, right: torch.Tensor, temperature: torch.Tensor) -> torch.Tensor:
    similarity = normalize(left, dim=1) @ normalize(right, dim=1).T / temperature
    target = torch.arange(len(left))
    there = cross_entropy(similarity, target, reduction="none")
    back = cross_entropy(similarity.T, target, reduction="none")
    return (there + back) / 2


def test_equals_symmetric_cross_entropy_within_groups() -> None:
    left, right = torch.randn(2, 12, 5, dtype=torch.float64)
    temperature = torch.tensor(0.2, dtype=torch.float64)
    torch.testing.assert_close(
        infonce(left, right, temperature=temperature), oracle(left, right, temperature)
    )
    groups = torch.tensor([0, 1, 0, 2, 1, 0, 2, 2, 1, 0, 0, 1])
    actual = infonce(left, right, temperature=temperature, groups=groups)
    for group in range(3):
        own = groups == group
        torch.testing.assert_close(actual[own], oracle(left[own], right[own], temperature))


def test_a_pair_alone_in_its_group_contributes_nothing() -> None:
    left, right = torch.randn(2, 4, 3).unbind()
    left.requires_grad_()
    value = infonce(left, right, temperature=torch.tensor(0.1), groups=torch.tensor([0, 0, 1, 0]))
    assert value[2] == 0
    value.sum().backward()
    assert left.grad is not None
    assert left.grad.isfinite().all()
    assert (left.grad[2] == 0).all()
    assert infonce(left[:1], right[:1], temperature=torch.tensor(0.1)).item() == 0


def test_scale_of_embeddings_does_not_matter_and_gradients_check() -> None:
    left, right = torch.randn(2, 6, 3, dtype=torch.float64).unbind()
    temperature = torch.tensor(0.3, dtype=torch.float64)
    torch.testing.assert_close(
        infonce(left * 7, right * 0.1, temperature=temperature),
        infonce(left, right, temperature=temperature),
    )
    groups = torch.tensor([0, 0, 0, 1, 1, 2])
    leaves = tuple(leaf.clone().requires_grad_() for leaf in (left, right, temperature))
    assert torch.autograd.gradcheck(
        lambda a, b, t: infonce(a, b, temperature=t, groups=groups), leaves
    )
