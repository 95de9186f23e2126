"""Distributions of z, one a record: what router and posterior say, the same way for both kinds of latent."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Gaussians:
    """B diagonal Gaussians. A value of z is a vector.

    Attributes:
        mu, log_var: (B, d_z).
    """

    mu: Tensor
    log_var: Tensor

    def __len__(self) -> int:
        return len(self.mu)

    def sample(self, rng: torch.Generator) -> Tensor:
        """Draw one z each, (B, d_z); `rng` belongs to the same device."""
        return self.mu + self.sigma() * torch.randn(self.mu.shape, generator=rng, device=self.mu.device)

    def mode(self) -> Tensor:
        """Return the most probable z of each, its mean, (B, d_z)."""
        return self.mu

    def sigma(self) -> Tensor:
        """Return the standard deviations, (B, d_z)."""
        return (self.log_var / 2).exp()

    def features(self) -> Tensor:
        """Return what a probe reads from the distributions, (B, d_z)."""
        return self.mu

    @staticmethod
    def value_features(z: Tensor) -> Tensor:
        """Return what a probe reads from values of z, (B, d_z) to (B, d_z)."""
        return z

    def cpu(self) -> "Gaussians":
        """Return them in the host's memory, without gradient."""
        return Gaussians(self.mu.detach().cpu(), self.log_var.detach().cpu())

    @staticmethod
    def cat(parts: Sequence["Gaussians"]) -> "Gaussians":
        """Return several as one."""
        return Gaussians(torch.cat([part.mu for part in parts]), torch.cat([part.log_var for part in parts]))


@dataclass(frozen=True)
class Categoricals:
    """B distributions over K values. A value of z is a number k from 0 to K - 1, for the token ``<z(k+1)>``.

    Attributes:
        log_p: (B, K), normalised.
    """

    log_p: Tensor

    def __len__(self) -> int:
        return len(self.log_p)

    @property
    def count(self) -> int:
        """K."""
        return self.log_p.shape[1]

    def sample(self, rng: torch.Generator) -> Tensor:
        """Draw one z each, (B,), int64; `rng` belongs to the same device."""
        return torch.multinomial(self.log_p.exp(), 1, generator=rng)[:, 0]

    def mode(self) -> Tensor:
        """Return the most probable z of each, (B,), int64."""
        return self.log_p.argmax(1)

    def features(self) -> Tensor:
        """Return what a probe reads from the distributions: log probabilities, (B, K)."""
        return self.log_p

    def value_features(self, z: Tensor) -> Tensor:
        """Return what a probe reads from values of z: one of K, (B,) to (B, K)."""
        return functional.one_hot(z, self.count).to(self.log_p.dtype)

    def cpu(self) -> "Categoricals":
        """Return them in the host's memory, without gradient."""
        return Categoricals(self.log_p.detach().cpu())

    @staticmethod
    def cat(parts: Sequence["Categoricals"]) -> "Categoricals":
        """Return several as one."""
        return Categoricals(torch.cat([part.log_p for part in parts]))


Distributions = Gaussians | Categoricals


def concatenate(parts: Sequence[Distributions]) -> Distributions:
    """Return distributions of one kind, in several batches, as one batch."""
    if isinstance(parts[0], Gaussians):
        return Gaussians.cat([part for part in parts if isinstance(part, Gaussians)])
    return Categoricals.cat([part for part in parts if isinstance(part, Categoricals)])
