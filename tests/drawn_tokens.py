"""Draws from nuclei as the definition has them, by sorting: what the policy's engines draw is compared with it."""

import torch


def nucleus_of(logits: torch.Tensor, top_p: torch.Tensor) -> torch.Tensor:
    """The logits [rows, vocabulary], -inf outside each row's nucleus; with the last one inside all that are as likely."""
    ranked = logits.double().sort(-1, descending=True).values
    weights = ranked.softmax(-1)
    inside = weights.cumsum(-1) - weights < top_p.double().unsqueeze(1)
    inside[:, 0] = True
    least = ranked.gather(1, inside.sum(-1, keepdim=True) - 1)
    return logits.masked_fill(logits.double() < least, -torch.inf)


def drawn(
    logits: torch.Tensor, top_p: torch.Tensor, uniforms: torch.Tensor, temperature: torch.Tensor
) -> torch.Tensor:
    """Tokens [rows], by the cumulative probabilities of all tokens in the order of the vocabulary."""
    tempered = logits / temperature.unsqueeze(1)
    mass = nucleus_of(tempered, top_p).double().softmax(-1).cumsum(-1)
    target = uniforms.unsqueeze(1) * mass[:, -1:]
    return torch.searchsorted(mass, target, right=True).clamp(max=mass.shape[1] - 1).squeeze(1)
