"""Draws of tokens, decided by given random numbers, without sorting the vocabulary or summing it up more than once.

With a vocabulary of 152k a draw can cost more than the 0.5 B model that made the logits: a sort takes 25 ms a row, a topk,
a cumulative sum in fp64 or 152k exponential random numbers 1 to 2 ms each. Here one pass takes exponentials, and one sums them
and finds the largest, block by block; the rest looks at single blocks. Tokens stand in the order of the vocabulary: a random
number falls on the same token whether the nucleus was cut out or, at top-p 1, is the whole row.
"""

import torch

BLOCK = 128
HEAD = 64
"""Largest tokens of a row that are looked at for its nucleus before the row is sorted."""
TOGETHER = {"cpu": 2**20, "cuda": 2**27}
"""Logits of the rows that are computed together: they stay in a processor's cache from one pass to the next. On CUDA launches
are dear, and 512 MiB a copy are the bound."""


def draw(
    logits: torch.Tensor, top_p: torch.Tensor, uniforms: torch.Tensor, temperature: torch.Tensor | None = None
) -> torch.Tensor:
    """Tokens int64 [rows] drawn from the nuclei of softmax(`logits` / `temperature`), where `uniforms` decide.

    `logits` fp32 [rows, vocabulary], of which -inf is never drawn; `top_p` fp32 [rows], 1 is the whole row; `uniforms` fp64
    [rows], in [0, 1); `temperature` fp32 [rows], above 0. The nucleus is the smallest set of most probable tokens whose mass
    reaches top_p, at least one token, with all that are as probable as the last of them.
    """
    found = []
    step = max(1, TOGETHER[logits.device.type] // logits.shape[1])
    for start in range(0, logits.shape[0], step):
        rows = slice(start, start + step)
        heat = None if temperature is None else temperature[rows]
        found.append(_draw(logits[rows], top_p[rows], uniforms[rows], heat))
    return torch.cat(found) if found else torch.zeros(0, dtype=torch.int64)


def draw_at_once(
    logits: torch.Tensor, top_p: torch.Tensor, uniforms: torch.Tensor, temperature: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same without a look at any value on the way, so that a device can record it: tokens [rows], and which are drawn.

    Here `temperature` 0 is greedy. What is not drawn, of a row whose nucleus is large, is for `draw`.
    """
    greedy = temperature == 0
    weights = (logits - logits.amax(-1, keepdim=True)) / torch.where(greedy, 1.0, temperature).unsqueeze(1)
    blocks = torch.nn.functional.pad(weights.exp(), (0, -weights.shape[1] % BLOCK))
    blocks = blocks.view(weights.shape[0], -1, BLOCK)
    sums = blocks.sum(-1).double()
    head, small = _from_head(blocks, top_p.double() * sums.sum(-1), uniforms)
    whole = top_p >= 1.0
    drawn = torch.where(whole, _from_whole(blocks, sums, uniforms), head)
    return torch.where(greedy, logits.argmax(-1), drawn), greedy | whole | small


def _draw(
    logits: torch.Tensor, top_p: torch.Tensor, uniforms: torch.Tensor, temperature: torch.Tensor | None
) -> torch.Tensor:
    weights = logits - logits.amax(-1, keepdim=True)
    if temperature is not None:
        weights /= temperature.unsqueeze(1)
    weights.exp_()
    lacking = -weights.shape[1] % BLOCK
    if lacking:
        weights = torch.nn.functional.pad(weights, (0, lacking))
    blocks = weights.view(weights.shape[0], -1, BLOCK)
    sums = blocks.sum(-1).double()
    tokens = torch.empty(weights.shape[0], dtype=torch.int64, device=weights.device)
    whole = top_p >= 1.0
    if bool((~whole).any()):
        part = torch.nonzero(~whole).flatten()
        mass = top_p[part].double() * sums[part].sum(-1)
        tokens[part], small = _from_head(_rows(blocks, part), mass, uniforms[part])
        for row in part[~small].tolist():
            # The nucleus is large: what is outside it loses its weight.
            least = _least_inside(
                weights[row].sort(descending=True).values, top_p[row].double() * sums[row].sum()
            )
            weights[row].masked_fill_(weights[row] < least, 0.0)
            sums[row] = blocks[row].sum(-1).double()
            whole[row] = True
    if bool(whole.any()):
        part = torch.nonzero(whole).flatten()
        tokens[part] = _from_whole(_rows(blocks, part), sums[part], uniforms[part])
    return tokens


def _rows(blocks: torch.Tensor, part: torch.Tensor) -> torch.Tensor:
    """These rows, without a copy where they are all."""
    return blocks if len(part) == len(blocks) else blocks[part]


def _from_whole(blocks: torch.Tensor, sums: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """Tokens [rows] drawn by weights [rows, blocks, BLOCK], whose sums [rows, blocks] are given."""
    above = sums.cumsum(-1)
    target = uniforms.to(above).unsqueeze(1) * above[:, -1:]
    block = _place(above, sums, target)
    rest = target - (above - sums).gather(1, block)
    inside = blocks[torch.arange(len(blocks), device=blocks.device), block.squeeze(1)].double()
    return (block * BLOCK + _place(inside.cumsum(-1), inside, rest)).squeeze(1)


def _place(above: torch.Tensor, weights: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The first place [rows, 1] whose cumulative weight `above` is over the target: never one without weight."""
    found = torch.searchsorted(above, target, right=True)
    # The target may be the sum itself, by a last bit: then it is the last one that has weight.
    numbers = torch.arange(weights.shape[1], device=weights.device)
    last = torch.where(weights > 0, numbers, -1).amax(-1, keepdim=True)
    return torch.minimum(found, last)


def _from_head(
    blocks: torch.Tensor, mass: torch.Tensor, uniforms: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens [rows] drawn from nuclei of these masses [rows], and for which rows that holds: their nuclei lie in the head."""
    rows, count, _ = blocks.shape
    # The largest tokens lie in the blocks with the largest maxima.
    chosen = blocks.amax(-1).topk(min(HEAD, count), dim=-1).indices
    near = blocks.gather(1, chosen.unsqueeze(-1).expand(-1, -1, BLOCK)).view(rows, -1)
    head, place = near.topk(min(HEAD, near.shape[1]), dim=-1)
    least = _least_inside(head, mass)
    reached = head.double().sum(-1) >= mass
    # As likely ones may lie beyond the head; of weight 0 they do not count.
    closed = (head[:, -1:] < least).squeeze(1) | (head[:, -1] == 0)
    token = chosen.gather(1, place // BLOCK) * BLOCK + place % BLOCK
    token, order = token.sort(-1)
    inside = torch.where(head >= least, head, 0.0).gather(1, order).double()
    above = inside.cumsum(-1)
    found = _place(above, inside, uniforms.to(above).unsqueeze(1) * above[:, -1:])
    return token.gather(1, found).squeeze(1), reached & closed


def _least_inside(ranked: torch.Tensor, mass: torch.Tensor) -> torch.Tensor:
    """The smallest weight inside the nucleus [rows, 1]; `ranked` [rows, N]: the largest, in order. One row goes, too."""
    wide = ranked.double()
    before = wide.cumsum(-1) - wide
    inside = (before < mass.unsqueeze(-1)).sum(-1, keepdim=True).clamp(min=1)
    return ranked.gather(-1, inside - 1)
