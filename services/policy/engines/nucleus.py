"""Sampling: exact top-p without sorting the vocabulary, and draws that are decided by given random numbers.

A full sort of 64 rows of 152k logits takes 1.6 s on two cores, longer than the 0.5B model itself; the nucleus nearly
always lies within the few hundred largest logits, which `topk` finds in a twentieth of that. Rows where it does not
are sorted after all.
"""

import torch

HEAD = 256
"""Largest logits of a row that are looked at before it is sorted."""


def keep_nucleus(logits: torch.Tensor, top_p: torch.Tensor) -> torch.Tensor:
    """Set all but each row's nucleus to -inf, in place.

    `logits` [rows, vocabulary] float, already divided by the temperature; `top_p` [rows], 1 keeps the row as it is. The
    nucleus is the smallest set of most probable tokens whose mass reaches top_p (at least one token).
    """
    rows = torch.nonzero(top_p < 1.0).flatten()
    if rows.numel() == 0:
        return logits
    part = logits if rows.numel() == logits.shape[0] else logits[rows]
    p = top_p[rows].to(part.dtype).unsqueeze(1)
    total = torch.logsumexp(part, dim=-1, keepdim=True)
    head = min(HEAD, part.shape[1])
    threshold, found = _threshold(part.topk(head, dim=-1).values, total, p)
    if head < part.shape[1] and not bool(found.all()):
        missed = torch.nonzero(~found).flatten()
        sort = part[missed].sort(dim=-1, descending=True).values
        threshold[missed] = _threshold(sort, total[missed], p[missed])[0]
    part.masked_fill_(part < threshold, -torch.inf)
    if part is not logits:
        logits[rows] = part
    return logits


def _threshold(
    ranked: torch.Tensor, total: torch.Tensor, p: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The smallest logit inside the nucleus of each row [rows, 1], and whether `ranked` reaches that far [rows]."""
    mass = (ranked - total).exp().cumsum(dim=-1)
    # A token is inside while the mass before it is below p.
    inside = (mass - (ranked - total).exp() < p).sum(dim=-1, keepdim=True).clamp(min=1)
    found = (mass[:, -1:] >= p).flatten()
    return ranked.gather(1, inside - 1), found


def draw(logits: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """Tokens [rows] drawn from softmax(`logits` [rows, vocabulary]) where `uniforms` [rows], in [0, 1), decide."""
    mass = logits.softmax(dim=-1).double().cumsum(dim=-1)
    target = uniforms.to(mass).unsqueeze(1) * mass[:, -1:]
    # Strictly above the target: a token of probability 0 is never drawn.
    return torch.searchsorted(mass, target, right=True).clamp(max=mass.shape[1] - 1).squeeze(1)
